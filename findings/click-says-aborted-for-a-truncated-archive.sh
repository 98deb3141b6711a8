#!/usr/bin/env bash
# A click command that reads a truncated .xz says "Aborted!", as if the user had pressed Ctrl-C.
#
# Seen with click 8.3.0 on CPython 3.11.7.
# lzma, gzip and bz2 raise EOFError for a file that is cut short. click's main() takes every EOFError for the end of
# standard input at a prompt, and replaces it by Abort: it prints "Aborted!" and exits with 1. The user learns nothing
# of the file, and no traceback points to it. A command that reads archives must catch EOFError itself.
# Expected: the error of the file, or a traceback.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check click==8.3.0
cat >"$work/unpack.py" <<'P'
import io, lzma, click

@click.command()
def unpack():
    lzma.open(io.BytesIO(lzma.compress(b"x" * 10_000)[:-10])).read()

unpack()
P
status=0
"$work/v/bin/python" "$work/unpack.py" >"$work/out" 2>&1 || status=$?
cat "$work/out"
echo "exit status $status"
[ "$(tail -n 1 "$work/out")" = "Aborted!" ] && [ $status = 1 ] && echo "as described"
