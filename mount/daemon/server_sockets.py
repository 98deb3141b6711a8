"""Find the servers of bentofs on this machine: each listens on an abstract Unix socket (`StatusSocket`).

A mount is in the kernel's table of mounts, and a server is in its table of Unix sockets. So neither leaves a file
behind.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from typing import NamedTuple

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


def own_address(url: str) -> str:
    """Return the address for this process's server."""
    return f"\0{_PREFIX}{os.getpid()}/{url}"[:_LONGEST]


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
