#!/usr/bin/env bash
# fsspec's HTTPFileSystem answers a read of three bytes with the whole file, if the server does not know ranges.
#
# Seen with fsspec 2026.9.0, aiohttp 3.14.5 and the http.server of CPython 3.11.7.
# cat_file(start, end) and cat_ranges send a Range header and return the body of any answer: a 200 with the whole file is
# taken for the 206 that was asked for. Each part of cat_ranges then is the whole file, so parts that are joined give a
# longer file. open() on the same address checks: after a seek, read() raises ValueError. An empty range works.
# Expected: the bytes of the range, or the error that open() raises.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check fsspec==2026.9.0 aiohttp==3.14.5
mkdir "$work/served"
printf 0123456789 >"$work/served/m.bin"
"$work/v/bin/python" - "$work/served" <<'P' | tee "$work/out"
import functools, http.server, sys, threading
import fsspec

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=sys.argv[1]))
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/m.bin"
http, local = fsspec.filesystem("http"), fsspec.filesystem("file")
for kind, fs, path in (("local", local, f"{sys.argv[1]}/m.bin"), ("http", http, url)):
    print(f"{kind}: cat_file 2 to 5:", fs.cat_file(path, start=2, end=5))
    print(f"{kind}: cat_file 5 to 5:", fs.cat_file(path, start=5, end=5))
    print(f"{kind}: cat_ranges 0 to 2, 2 to 4:", fs.cat_ranges([path, path], [0, 2], [2, 4]))
with http.open(url, "rb") as file:
    file.seek(2)
    try:
        print("http: open, seek, read:", file.read(3))
    except ValueError as error:
        print("http: open, seek, read: ValueError:", str(error).split(".")[0])
P
diff "$work/out" - <<'SEEN'
local: cat_file 2 to 5: b'234'
local: cat_file 5 to 5: b''
local: cat_ranges 0 to 2, 2 to 4: [b'01', b'23']
http: cat_file 2 to 5: b'0123456789'
http: cat_file 5 to 5: b''
http: cat_ranges 0 to 2, 2 to 4: [b'0123456789', b'0123456789']
http: open, seek, read: ValueError: The HTTP server doesn't appear to support range requests
SEEN
echo "as described"
