#!/usr/bin/env bash
# PyYAML's CSafeLoader reads a mapping whose value stands behind a tab; its SafeLoader refuses the same text.
#
# Seen with PyYAML 6.0.3 (with libyaml) on CPython 3.11.7.
# The C loader is meant as a faster drop-in. A model.yaml with "name:<TAB>iris" is fine for a tool that uses it, and an
# error for one that uses yaml.safe_load, as BentoML does. A check by the fast loader so lets a file through that the
# other program cannot list.
# Expected: both loaders of one package accept the same texts.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check pyyaml==6.0.3
"$work/v/bin/python" - <<'P' | tee "$work/out"
import yaml

for loader in (yaml.CSafeLoader, yaml.SafeLoader):
    try:
        print(loader.__name__, yaml.load("name:\tiris\n", loader))
    except yaml.YAMLError as error:
        print(loader.__name__, type(error).__name__, error.problem)
P
diff "$work/out" - <<'SEEN'
CSafeLoader {'name': 'iris'}
SafeLoader ScannerError found character '\t' that cannot start any token
SEEN
echo "as described"
