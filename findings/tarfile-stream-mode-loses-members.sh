#!/usr/bin/env bash
# tarfile's stream modes read only the first member of a gzip, xz or bzip2 file, and may say nothing.
#
# Seen with CPython 3.11.7 (standard library) and rapidgzip 0.16.2.
# A .tar.gz, .tar.xz or .tar.bz2 may be several compressed streams one after another: pigz -i, pixz, pbzip2, bgzip and
# `cat a.gz b.gz` make such files. tarfile.open(mode="r:gz") reads all of it. mode="r|gz", the mode for pipes, stops at
# the end of the first stream. Where that lies between two members of the tar, tarfile reports no error: the members
# behind it are missing. Elsewhere it raises ReadError("unexpected end of data"). xz and bzip2 behave the same.
# Expected: both modes read the same members, or the stream mode raises.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check rapidgzip==0.16.2
"$work/v/bin/python" - <<'P' | tee "$work/out"
import bz2, gzip, io, lzma, tarfile, rapidgzip

plain = io.BytesIO()
with tarfile.open(fileobj=plain, mode="w") as tar:
    for name in ("first", "second"):
        info = tarfile.TarInfo(name)
        info.size = 1000
        tar.addfile(info, io.BytesIO(b"x" * 1000))
data = plain.getvalue()
between = 512 + 1024  # a header and a padded member

def names(content, mode):
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode=mode) as tar:
            return [member.name for member in tar]
    except tarfile.ReadError as error:
        return f"ReadError: {error}"

for kind, compress in (("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)):
    for where, cut in (("between members", between), ("within a member", 700)):
        parts = compress(data[:cut]) + compress(data[cut:])
        print(f"{kind}, cut {where}: r:{kind} {names(parts, 'r:' + kind)}, r|{kind} {names(parts, 'r|' + kind)}")
whole = rapidgzip.open(io.BytesIO(gzip.compress(data[:between]) + gzip.compress(data[between:]))).read()
print("rapidgzip reads all bytes:", whole == data)
P
diff "$work/out" - <<'SEEN'
gz, cut between members: r:gz ['first', 'second'], r|gz ['first']
gz, cut within a member: r:gz ['first', 'second'], r|gz ReadError: unexpected end of data
xz, cut between members: r:xz ['first', 'second'], r|xz ['first']
xz, cut within a member: r:xz ['first', 'second'], r|xz ReadError: unexpected end of data
bz2, cut between members: r:bz2 ['first', 'second'], r|bz2 ['first']
bz2, cut within a member: r:bz2 ['first', 'second'], r|bz2 ReadError: unexpected end of data
rapidgzip reads all bytes: True
SEEN
echo "as described"
