#!/usr/bin/env bash
# indexed_gzip reads the start of a cut .gz and then reports its end, as if the file were whole.
#
# Seen with indexed_gzip 1.10.3 (PyPI, 2026) and 1.8.7, Python 3.11.
# The file holds 4,000,000 random bytes. Its last 5,000 bytes did not arrive, as after an interrupted download. `gzip -t`
# and Python's gzip refuse it. indexed_gzip returns 3,995,013 bytes and no error: in one read, in pieces, and after a
# seek. A seek to a place behind the cut succeeds, and reading there gives nothing. Only a cut within the last eight
# bytes, the checksum and the length, is an error. So a program must check a file before it trusts this reader with it.
# Expected: EOFError, as from the gzip module, whose interface it has.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-cache-dir 'indexed_gzip==1.10.3'
cd "$work"
"$work/venv/bin/python" - <<'PY' | tee out
import gzip
import random

import indexed_gzip

content = random.Random(1).randbytes(4_000_000)
whole = gzip.compress(content)


def told(read):
    try:
        got = read()
    except Exception as error:
        return type(error).__name__
    return f"{len(got):,} bytes, no error"


def after_seek():
    with indexed_gzip.open("cut.gz") as file:
        file.seek(3_999_000)
        return file.read()


for missing in (0, 4, 5_000):
    with open("cut.gz", "wb") as file:
        file.write(whole[: len(whole) - missing])
    print(f"{missing} bytes are missing")
    print("  gzip:", told(lambda: gzip.open("cut.gz").read()))
    print("  indexed_gzip:", told(lambda: indexed_gzip.open("cut.gz").read()))
    print("  indexed_gzip, after seek(3_999_000):", told(after_seek))
PY
diff out - <<'SEEN'
0 bytes are missing
  gzip: 4,000,000 bytes, no error
  indexed_gzip: 4,000,000 bytes, no error
  indexed_gzip, after seek(3_999_000): 1,000 bytes, no error
4 bytes are missing
  gzip: EOFError
  indexed_gzip: ZranError
  indexed_gzip, after seek(3_999_000): ZranError
5000 bytes are missing
  gzip: EOFError
  indexed_gzip: 3,995,013 bytes, no error
  indexed_gzip, after seek(3_999_000): 0 bytes, no error
SEEN
echo "as described"
