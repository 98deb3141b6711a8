#!/usr/bin/env bash
# Through libarchive-c, a file that ends with a hole is read short, with no error; fsspec tells its full size beside that.
#
# Seen with libarchive 3.6.2 (Debian 12), libarchive-c 5.3, fsspec 2026.9.0, GNU tar 1.34, Python 3.11.
# `tar -S` and `cp --sparse` know holes; preallocated files and checkpoints of untouched tensors end with one. libarchive's
# call for a stream of bytes stops at the last stored block. bsdtar uses another call and writes the whole file. With
# libarchive-c, and with fsspec's libarchive file system on top of it, the entry's size is right, and the content ends
# early. `get` writes the short file and succeeds. A hole in the middle is filled with zeros, as it should be.
# Expected: as many bytes as the size says. Newer libarchive claims to give them (3.8.2).
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-cache-dir 'fsspec==2026.9.0' 'libarchive-c==5.3'
cd "$work"
"$work/venv/bin/python" - <<'PY'
for name, places in (("hole-in-the-middle", (0, 2_097_152)), ("hole-at-the-end", (0, 1_048_576))):
    with open(name, "wb") as file:
        for place in places:
            file.seek(place)
            file.write(b"x" * 8192)
        file.truncate(2_105_344)
PY
tar -cSf sparse.tar hole-in-the-middle hole-at-the-end
mkdir extracted
bsdtar -xf sparse.tar -C extracted
"$work/venv/bin/python" - <<'PY' | tee out
import os

import fsspec
import libarchive

read = {}
with libarchive.file_reader("sparse.tar") as archive:
    for entry in archive:
        read[entry.pathname] = (entry.size, sum(map(len, entry.get_blocks())))
files = fsspec.filesystem("libarchive", fo="sparse.tar")
for name, (size, length) in read.items():
    files.get(name, "got")
    print(name)
    print("  bsdtar -x:", os.path.getsize(f"extracted/{name}"))
    print(f"  libarchive-c: size {size}, read {length}")
    print(f"  fsspec: size {files.info(name)['size']}, cat {len(files.cat(name))}, get {os.path.getsize('got')}")
PY
diff out - <<'SEEN'
hole-in-the-middle
  bsdtar -x: 2105344
  libarchive-c: size 2105344, read 2105344
  fsspec: size 2105344, cat 2105344, get 2105344
hole-at-the-end
  bsdtar -x: 2105344
  libarchive-c: size 2105344, read 1056768
  fsspec: size 2105344, cat 1056768, get 1056768
SEEN
echo "as described"
