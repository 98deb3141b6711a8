#!/usr/bin/env bash
# zstandard's one-call decompress returns the first frame only, without an error; its stream readers return all frames.
#
# Seen with zstandard 0.25.0 on CPython 3.11.7.
# A .zst file may hold several frames: pzstd makes such files, and so does `cat a.zst b.zst`. In the same release
# ZstdDecompressor.stream_reader, copy_stream and zstandard.open read every frame. ZstdDecompressor.decompress and
# zstandard.decompress return the first and ignore the rest, although the whole input was handed over.
# Expected: the one-call function returns what the others do, as gzip.decompress does for several members, or raises.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check zstandard==0.25.0
"$work/v/bin/python" - <<'P' | tee "$work/out"
import io, zstandard

frames = zstandard.compress(b"first ") + zstandard.compress(b"second")
reader = zstandard.ZstdDecompressor()
copied = io.BytesIO()
reader.copy_stream(io.BytesIO(frames), copied)
print("zstandard.decompress", zstandard.decompress(frames))
print("decompress          ", reader.decompress(frames))
print("stream_reader       ", reader.stream_reader(io.BytesIO(frames)).read())
print("copy_stream         ", copied.getvalue())
print("zstandard.open      ", zstandard.open(io.BytesIO(frames)).read())
P
diff "$work/out" - <<'SEEN'
zstandard.decompress b'first '
decompress           b'first '
stream_reader        b'first second'
copy_stream          b'first second'
zstandard.open       b'first second'
SEEN
echo "as described"
