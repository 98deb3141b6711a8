#!/usr/bin/env bash
# Python's lzma and bz2 drop all streams behind padding without an error; its gzip reads them.
#
# Seen with CPython 3.11.7 (standard library) and python-xz 0.5.0.
# The .xz format (section 2.2, "Stream Padding") allows zeros, a multiple of four, between two streams, and xz decodes
# what follows. lzma.decompress and LZMAFile return the first stream only and report nothing. bz2 does the same. gzip,
# given the same zeros between two members, returns both.
# Expected: all three agree, or raise an error for bytes that they do not read.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check python-xz==0.5.0
"$work/v/bin/python" - <<'P' | tee "$work/out"
import bz2, gzip, io, lzma, xz

def padded(compress):
    return compress(b"first ") + bytes(4) + compress(b"second")

print("lzma.decompress", lzma.decompress(padded(lzma.compress)))
print("lzma.LZMAFile  ", lzma.LZMAFile(io.BytesIO(padded(lzma.compress))).read())
print("python-xz      ", xz.open(io.BytesIO(padded(lzma.compress))).read())
print("bz2.decompress ", bz2.decompress(padded(bz2.compress)))
print("bz2.BZ2File    ", bz2.BZ2File(io.BytesIO(padded(bz2.compress))).read())
print("gzip.decompress", gzip.decompress(padded(gzip.compress)))
P
diff "$work/out" - <<'SEEN'
lzma.decompress b'first '
lzma.LZMAFile   b'first '
python-xz       b'first second'
bz2.decompress  b'first '
bz2.BZ2File     b'first '
gzip.decompress b'first second'
SEEN
echo "as described"
