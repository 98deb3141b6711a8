#!/usr/bin/env bash
# fsspec's TarFileSystem opens m.tar.gz by its name, but not m.tgz, and refuses compression="infer".
#
# Seen with fsspec 2026.9.0 on CPython 3.11.7.
# The compression is taken from the last extension, and "tgz" is none of fsspec's. The same bytes under the name m.tgz are
# read as a plain tar: tarfile.ReadError, "truncated header" or the like. compression="infer", which fsspec.open takes,
# is a KeyError here. Only compression="gzip" works.
# Expected: .tgz works as .tar.gz does, and "infer" means what it means in fsspec.open.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check fsspec==2026.9.0
cd "$work"
"$work/v/bin/python" - <<'P' | tee "$work/out"
import shutil, tarfile
from fsspec.implementations.tar import TarFileSystem

with open("weights", "wb") as file:
    file.write(b"x" * 1000)
with tarfile.open("m.tar.gz", "w:gz") as tar:
    tar.add("weights")
shutil.copy("m.tar.gz", "m.tgz")
for name, options in (("m.tar.gz", {}), ("m.tgz", {}), ("m.tgz", {"compression": "infer"}), ("m.tgz", {"compression": "gzip"})):
    try:
        print(name, options, TarFileSystem(name, **options).find(""))
    except Exception as error:
        print(name, options, type(error).__name__)
P
diff "$work/out" - <<'SEEN'
m.tar.gz {} ['weights']
m.tgz {} ReadError
m.tgz {'compression': 'infer'} KeyError
m.tgz {'compression': 'gzip'} ['weights']
SEEN
echo "as described"
