#!/usr/bin/env bash
# An aiohttp server whose client is still being served ends after twice its shutdown_timeout.
#
# Seen with aiohttp 3.14.5 on CPython 3.11.7. shutdown_timeout is described as the longest wait for pending tasks.
# It passes once while the connection waits for its request, and once more while the connection's own task ends. A
# service whose manager allows it 20 seconds, and which sets 15, is killed in the middle of a download. The wait grows
# with the timeout and not by a constant: 1 second becomes 2, and 3 become 6.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check aiohttp==3.14.5
"$work/v/bin/python" - <<'P' | tee "$work/out"
import asyncio, time
from aiohttp import web

async def download(request):
    await asyncio.sleep(600)

async def wait_of_cleanup(timeout):
    app = web.Application()
    app.router.add_get("/", download)
    runner = web.AppRunner(app, shutdown_timeout=timeout)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n")
    await asyncio.sleep(1)  # the request is being answered
    begun = time.monotonic()
    await runner.cleanup()
    taken = time.monotonic() - begun
    writer.close()
    return taken

for timeout in (1, 3):
    taken = asyncio.run(wait_of_cleanup(timeout))
    print(f"shutdown_timeout={timeout}: at least {2 * timeout - 0.1} s: {taken >= 2 * timeout - 0.1}")
P
diff "$work/out" - <<'SEEN'
shutdown_timeout=1: at least 1.9 s: True
shutdown_timeout=3: at least 5.9 s: True
SEEN
echo "as described"
