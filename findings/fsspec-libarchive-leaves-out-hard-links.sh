#!/usr/bin/env bash
# fsspec's libarchive file system does not show the hard links in a tar, and a recursive get copies the rest as a success.
#
# Seen with fsspec 2026.9.0, libarchive-c 5.3, libarchive 3.6.2 (Debian 12), Python 3.11.
# GNU tar stores the second name of a file as a hard link. `tar x` and bsdtar write both names, and fsspec's own tar file
# system shows and reads both. fsspec's libarchive file system has only the first: `find` does not list the other one,
# `exists` is False, and `get(recursive=True)` writes one file of two without an error.
# Expected: both names with the same content, or an error for an entry that cannot be shown.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-cache-dir 'fsspec==2026.9.0' 'libarchive-c==5.3'
cd "$work"
mkdir model
echo weights >model/first.bin
ln model/first.bin model/second.bin
tar -cf model.tar --sort=name model
"$work/venv/bin/python" - <<'PY' | tee out
import os

import fsspec

for name in ("tar", "libarchive"):
    archive = fsspec.filesystem(name, fo="model.tar")
    archive.get("model", f"{name}/", recursive=True)
    print(name)
    print("  find:", sorted(archive.find("model")))
    print("  exists second.bin:", archive.exists("model/second.bin"))
    print("  get:", sorted(os.listdir(f"{name}")))
PY
diff out - <<'SEEN'
tar
  find: ['model/first.bin', 'model/second.bin']
  exists second.bin: True
  get: ['first.bin', 'second.bin']
libarchive
  find: ['model/first.bin']
  exists second.bin: False
  get: ['first.bin']
SEEN
echo "as described"
