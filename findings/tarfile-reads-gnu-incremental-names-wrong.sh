#!/usr/bin/env bash
# Python's tarfile, 7z and busybox give a wrong name to every member of a tar that GNU tar made with -G.
#
# Seen with GNU tar 1.34, CPython 3.11.7, 7z 26.02 (p7zip-full) and busybox 1.35.0, as in Debian 12.
# In GNU headers (magic "ustar  ") bytes 345 to 356 hold the access time, and `tar -G` and `tar -g` fill them in. Only POSIX
# headers (magic "ustar\0") have a name prefix there. tarfile, 7z and busybox read the time as a prefix: "w" becomes
# "15303323270/w" or so, and is extracted under that path, without an error. GNU tar and bsdtar read "w".
# Expected: no prefix under the GNU magic.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
echo weights >w
tar --format=gnu -G -cf m.tar w
gnu=$(tar -tf m.tar)
bsd=$(bsdtar -tf m.tar)
python=$(python3 -c 'import tarfile; print(tarfile.open("m.tar").getnames()[0])')
busy=$(busybox tar -tf m.tar)
seven=$(7z l -slt m.tar | sed -n 's/^Path = //p' | tail -n 1)
echo "GNU tar: $gnu; bsdtar: $bsd; tarfile: $python; busybox: $busy; 7z: $seven"
[ "$gnu" = w ] && [ "$bsd" = w ]
for name in "$python" "$busy" "$seven"; do
  [[ $name =~ ^[0-7]+/w$ ]] || { echo "this has changed: $name"; exit 1; }
done
echo "as described"
