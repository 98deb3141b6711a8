"""StatusSocket: tells the status of a server to `bentofs status`, over an abstract Unix socket.

The server answers its own user and root only; it asks the kernel who is there.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from bentofs.mount.daemon.server_sockets import own_address, peer_of
from bentofs.mount.view.live import LiveSource


class StatusSocket:
    """The socket of this process's server."""

    def __init__(self, url: str, source: LiveSource) -> None:
        """`source`: makes the status, as JSON."""
        self._address = own_address(url)
        self._source = source
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to answer."""
        with suppress(OSError):  # a system without such sockets: nobody can ask
            self._server = await asyncio.start_unix_server(self._answer, self._address)

    async def stop(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if peer_of(writer.get_extra_info("socket"))[1] in (0, os.geteuid()):
                snapshot = await asyncio.get_running_loop().run_in_executor(None, self._source.snapshot)
                writer.write(snapshot.content)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
