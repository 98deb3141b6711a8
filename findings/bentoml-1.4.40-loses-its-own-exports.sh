#!/usr/bin/env bash
# BentoML 1.4.40 does not get back what it exported itself: it moves files and refuses archives that 1.4.39 imports.
#
# Seen with BentoML 1.4.40 on CPython 3.11.7, Linux; its import was rewritten in this release (_normalize_member_path).
# A file named "a\b" comes back as "b" in a directory "a", without an error. A zip that holds a file "c:x" at its top is refused
# as "drive-qualified" (a .bentomodel of the same model is not, since its members begin with "./"). A model with two hard
# links to one file is refused: shutil.make_archive writes the second one as a link.
# Expected: import after export gives the same files, as in 1.4.39 and before.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check bentoml==1.4.40
export BENTOML_HOME=$work/home BENTOML_DO_NOT_TRACK=True
mkdir "$BENTOML_HOME"
cd "$work"
"$work/v/bin/python" -W ignore - <<'P' 2>/dev/null | tee "$work/out"
import os

import bentoml


def back_again(name, form, fill):
    with bentoml.models.create(f"{name}:v1") as model:
        pass
    fill(bentoml.models.get(f"{name}:v1").path)
    bentoml.models.export_model(f"{name}:v1", f"{os.getcwd()}/{name}.{form}")
    bentoml.models.delete(f"{name}:v1")
    try:
        bentoml.models.import_model(f"{os.getcwd()}/{name}.{form}")
    except ValueError as error:
        print(name, form, error)
        return
    path = bentoml.models.get(f"{name}:v1").path
    files = [os.path.relpath(os.path.join(above, file), path) for above, _, names in os.walk(path) for file in names]
    print(name, form, sorted(set(files) - {"model.yaml"}))
    bentoml.models.delete(f"{name}:v1")


def hard_links(path):
    open(f"{path}/one", "w").close()
    os.link(f"{path}/one", f"{path}/two")


back_again("backslash", "bentomodel", lambda path: open(f"{path}/a\\b", "w").close())
back_again("backslash", "zip", lambda path: open(f"{path}/a\\b", "w").close())
back_again("drive", "bentomodel", lambda path: open(f"{path}/c:x", "w").close())
back_again("drive", "zip", lambda path: open(f"{path}/c:x", "w").close())
back_again("links", "bentomodel", hard_links)
P
diff "$work/out" - <<'SEEN'
backslash bentomodel ['a/b']
backslash zip ['a/b']
drive bentomodel ['c:x']
drive zip Unsafe archive member path: 'c:x' (member is drive-qualified)
links bentomodel Unsafe archive member path: hardlinks are unsupported
SEEN
echo "as described"
