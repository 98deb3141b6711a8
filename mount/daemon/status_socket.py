"""StatusSocket: tells the status of a server to `bentofs status`, over an abstract Unix socket.

A mount is in the kernel's table of mounts, and a server is in its table of Unix sockets. So neither leaves a file
behind. The server answers its own user and root only; it asks the kernel who is there.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from bentofs.mount.view.live import LiveSource

_PREFIX = "bentofs/serve/"
_NAME = re.compile(rf"@{_PREFIX}(\d+)/(\S+)$")
_LONGEST = 100  # bytes of a name; the kernel takes 107
_LISTENS = "00010000"  # the flag in /proc/net/unix
_CREDENTIALS = struct.Struct("3i")


class ServerSocket(NamedTuple):
    """The socket of a server, of any user."""

    url: str
    pid: int
    address: str


class StatusSocket:
    """The socket of this process's server."""

    def __init__(self, url: str, source: LiveSource) -> None:
        """`source`: makes the status, as JSON."""
        self._address = f"\0{_PREFIX}{os.getpid()}/{url}"[:_LONGEST]
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


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return the pid and the uid of the process at the other end."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


def server_sockets() -> list[ServerSocket]:
    """Return the sockets of all servers on this machine, of all users."""
    found = []
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
            for line in table:
                match = _NAME.search(line.rstrip("\n"))
                if match and line.split()[3] == _LISTENS:
                    address = "\0" + match[0][1:]
                    found.append(ServerSocket(match[2], int(match[1]), address))
    except OSError:
        return []
    return sorted(found)
