#!/usr/bin/env bash
# stream-unzip cannot read a stored zip that zipstream-ng made, although zipstream-ng knew every size in advance.
#
# Seen with zipstream-ng 1.9.3 and stream-unzip 0.0.101 on CPython 3.11.7.
# Both libraries exist to stream zips. ZipStream(sized=True) knows all sizes before it writes, and len() gives the length
# of the zip. It still writes size 0 into the local headers and puts sizes into data descriptors behind the content. For
# stored content a reader that cannot seek finds no end there: stream-unzip raises NotStreamUnzippable. Deflated content
# ends by itself, and works. zipfile, which reads the directory at the end, reads both.
# Expected: sizes that are known stand in the local headers, so that a stream can be read as a stream.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check zipstream-ng==1.9.3 stream-unzip==0.0.101
"$work/v/bin/python" - <<'P' | tee "$work/out"
import io, zipfile
import zipstream
from stream_unzip import UnzipError, stream_unzip

def streamed(content):
    try:
        return [(name.decode(), b"".join(chunks)) for name, _, chunks in stream_unzip([content])]
    except UnzipError as error:
        return type(error).__name__

stored = zipstream.ZipStream(sized=True)
stored.add(b"weights", "w")
length = len(stored)
content = b"".join(stored)
print("stored: length known and right:", length == len(content))
print("stored: size in the local header:", int.from_bytes(content[22:26], "little"))
print("stored: stream-unzip:", streamed(content))
print("stored: zipfile:", zipfile.ZipFile(io.BytesIO(content)).read("w"))
deflated = zipstream.ZipStream(compress_type=zipfile.ZIP_DEFLATED)
deflated.add(b"weights", "w")
print("deflated: stream-unzip:", streamed(b"".join(deflated)))
P
diff "$work/out" - <<'SEEN'
stored: length known and right: True
stored: size in the local header: 0
stored: stream-unzip: NotStreamUnzippable
stored: zipfile: b'weights'
deflated: stream-unzip: [('w', b'weights')]
SEEN
echo "as described"
