#!/usr/bin/env bash
# fsspec's TarFileSystem finds the members of `tar -C model -c .` only under "./name", and lists its root as ["."].
#
# Seen with fsspec 2026.9.0 on CPython 3.11.7, archives as GNU tar writes them.
# `tar -c .` names its members "./a". exists("a") is False, cat("a") and cat("/a") raise FileNotFoundError, ls("") gives one
# entry, ".". get("/", ..., recursive=True) extracts every file all the same. Code that tests for "model.yaml" before it
# extracts takes a good archive for an empty one.
# Expected: "./a" and "a" are one path, as in every tar reader's output on disk.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check fsspec==2026.9.0
mkdir "$work/model"; echo x >"$work/model/model.yaml"
tar -cf "$work/m.tar" -C "$work/model" .
cd "$work"
"$work/v/bin/python" - <<'P' | tee "$work/out"
import os
from fsspec.implementations.tar import TarFileSystem

archive = TarFileSystem("m.tar")
print("ls", archive.ls("", detail=False))
print("exists", {name: archive.exists(name) for name in ("model.yaml", "/model.yaml", "./model.yaml")})
archive.get("/", "extracted/", recursive=True)
print("extracted", sorted(name for _, _, files in os.walk("extracted") for name in files))
P
diff "$work/out" - <<'SEEN'
ls ['.']
exists {'model.yaml': False, '/model.yaml': False, './model.yaml': True}
extracted ['model.yaml']
SEEN
echo "as described"
