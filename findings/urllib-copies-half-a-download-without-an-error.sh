#!/usr/bin/env bash
# urllib's response notices a lost connection in read(), but not in read(n): shutil.copyfileobj copies half a file.
#
# Seen with CPython 3.11.7 (standard library) and urllib3 2.8.0.
# A server announces 1000 bytes and closes after 400. read() raises IncompleteRead and urlretrieve ContentTooShortError.
# read(n) and readinto() give b"" and 0, the signs of a regular end. So the usual way to download without holding the
# file in memory ends without an error and leaves a short file. urllib3 raises ProtocolError either way.
# Expected: IncompleteRead from every read that meets the early end.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check urllib3==2.8.0
cd "$work"
no_proxy=127.0.0.1 "$work/v/bin/python" - <<'P' | tee "$work/out"
import io, shutil, socket, threading
import urllib.request, urllib3

def serve(listener):
    while True:
        connection = listener.accept()[0]
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 400)
        connection.close()

listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
url = f"http://127.0.0.1:{listener.getsockname()[1]}/m.tar"

def outcome(download):
    try:
        return f"{len(download())} bytes, no error"
    except Exception as error:
        return type(error).__name__

def copied(response):
    target = io.BytesIO()
    shutil.copyfileobj(response, target)
    return target.getvalue()

def ask():
    return urllib3.PoolManager(retries=False).request("GET", url, preload_content=False)

print("urllib, read():", outcome(lambda: urllib.request.urlopen(url).read()))
print("urllib, urlretrieve:", outcome(lambda: urllib.request.urlretrieve(url, "m.tar")))
print("urllib, copyfileobj:", outcome(lambda: copied(urllib.request.urlopen(url))))
print("urllib, BufferedReader:", outcome(lambda: io.BufferedReader(urllib.request.urlopen(url)).read(1000)))
print("urllib3, read():", outcome(lambda: ask().read()))
print("urllib3, copyfileobj:", outcome(lambda: copied(ask())))
P
diff "$work/out" - <<'SEEN'
urllib, read(): IncompleteRead
urllib, urlretrieve: ContentTooShortError
urllib, copyfileobj: 400 bytes, no error
urllib, BufferedReader: 400 bytes, no error
urllib3, read(): ProtocolError
urllib3, copyfileobj: ProtocolError
SEEN
echo "as described"
