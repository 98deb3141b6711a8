#!/usr/bin/env bash
# A recursive get, put or copy of fsspec 2026.9.0 leaves out each directory that it may not list, without an error.
#
# Seen with fsspec 2026.9.0 on CPython 3.11.7, Linux, with its own local file system. A model has a directory that its reader
# may not open. `get`, `put`, `copy` and `find` skip it: walk() omits what it cannot list by default. There is no warning, and
# on_error="raise" does not help.
# Expected: an error, as from `cp -r` (exit 1) and shutil.copytree. A copy without an error is taken for complete.
set -euo pipefail
work=$(mktemp -d); trap 'chmod -R u+rwX "$work"; rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check fsspec==2026.9.0
mkdir -p "$work/model/layers"; echo a >"$work/model/model.yaml"; echo b >"$work/model/layers/weights"
cat >"$work/try.py" <<'P'
import os
import shutil
import sys

import fsspec

work = sys.argv[1]
if os.geteuid() == 0:  # root may list any directory
    for path in (work, f"{work}/model", f"{work}/model/layers"):
        os.chown(path, 65534, 65534)
    os.setuid(65534)
os.chmod(f"{work}/model/layers", 0)
fs = fsspec.filesystem("file")
for name in ("get", "put", "copy"):
    getattr(fs, name)(f"{work}/model", f"{work}/{name}", recursive=True, on_error="raise")
    print(name, [path.removeprefix(f"{work}/{name}/") for path in fs.find(f"{work}/{name}")])
print("find", [os.path.basename(path) for path in fs.find(f"{work}/model")])
try:
    shutil.copytree(f"{work}/model", f"{work}/copytree")
except shutil.Error as error:
    print("copytree", error.args[0][0][2].split("]")[0])
os.chmod(f"{work}/model/layers", 0o700)
P
"$work/v/bin/python" "$work/try.py" "$work" | tee "$work/out"
diff "$work/out" - <<'SEEN'
get ['model.yaml']
put ['model.yaml']
copy ['model.yaml']
find ['model.yaml']
copytree [Errno 13
SEEN
echo "as described"
