#!/usr/bin/env bash
# Info-ZIP's zip loses bytes when it joins parts of exactly 64 KiB, and exits with 0.
#
# Seen with zip 3.0 (Debian 3.0-13).
# `zip -s 64k` splits an archive, `zip -s 0` joins it. With parts of 64 KiB the joined archive is damaged: `unzip -t`
# reports errors. zip itself says nothing and exits with 0. Parts of 65 KiB and of 128 KiB join to a good archive.
# Expected: the same content as before, or an error.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir m
for number in 1 2; do head -c 150000 /dev/urandom >m/f$number; done
for size in 64k 65k 128k; do
  (cd m && zip -qr -s $size ../split-$size.zip .)
  zip -q -s 0 split-$size.zip --out joined-$size.zip
  joined=$?
  if unzip -tq joined-$size.zip >/dev/null 2>&1; then state=good; else state=damaged; fi
  echo "parts of $size: zip exits with $joined, the joined archive is $state"
done | tee out
diff out - <<'SEEN'
parts of 64k: zip exits with 0, the joined archive is damaged
parts of 65k: zip exits with 0, the joined archive is good
parts of 128k: zip exits with 0, the joined archive is good
SEEN
echo "as described"
