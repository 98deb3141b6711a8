#!/usr/bin/env bash
# shutil.unpack_archive leaves out every file of a zip whose name holds "..", such as "weights..bin", without an error.
#
# Seen with CPython 3.11.7 (standard library).
# shutil.make_archive writes such a file into the zip, and ZipFile.extractall gets it back. unpack_archive looks for ".." in
# the whole name, not for a part of the path that is "..", and passes over the member. Nothing is raised or logged. The
# same directory comes back whole through a tar.
# Expected: "weights..bin" is an ordinary name; a member that is refused is an error.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -W error - <<'P' | tee out
import logging, pathlib, shutil, zipfile

logging.basicConfig(level=logging.DEBUG)
model = pathlib.Path("model")
(model / "step1..2").mkdir(parents=True)
for name in ("weights..bin", "weights.bin", "step1..2/state"):
    (model / name).write_text(name)

def files(where):
    return sorted(str(path.relative_to(where)) for path in pathlib.Path(where).rglob("*") if path.is_file())

print("made from:", files(model))
for kind in ("zip", "tar"):
    archive = shutil.make_archive("m", kind, model)
    shutil.unpack_archive(archive, f"from-{kind}")
    print(f"unpack_archive, {kind}:", files(f"from-{kind}"))
zipfile.ZipFile("m.zip").extractall("extracted")
print("extractall, zip:", files("extracted"))
P
diff out - <<'SEEN'
made from: ['step1..2/state', 'weights..bin', 'weights.bin']
unpack_archive, zip: ['weights.bin']
unpack_archive, tar: ['step1..2/state', 'weights..bin', 'weights.bin']
extractall, zip: ['step1..2/state', 'weights..bin', 'weights.bin']
SEEN
echo "as described"
