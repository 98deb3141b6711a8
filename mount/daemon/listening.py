"""Listening: the sockets of a server, and who can reach them."""

from __future__ import annotations

import ipaddress
import socket

from bentofs.mount.errors import CannotMountError


def bound_sockets(host: str, port: int, *, must_be_local: bool) -> list[socket.socket]:
    """Return a socket for each address of a host, all bound to one port; `port`: 0 for any that is free.

    Raises:
        CannotMountError: they cannot be had, or other machines could reach them though `must_be_local`.
    """
    shown = authority(host, port)
    found: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        if must_be_local and not all(is_loopback(address[4][0]) for address in addresses):
            raise CannotMountError(
                f"other machines could reach {shown}, and nobody would have to show a password: add --auth FILE, or "
                "bind to 127.0.0.1",
                2,
            )
        for family, _, _, _, address in dict.fromkeys(addresses):
            chosen = found[0].getsockname()[1] if found else port
            sock = socket.socket(family, socket.SOCK_STREAM)
            found.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], chosen, *address[2:]))
    except OSError as error:
        for sock in found:
            sock.close()
        raise CannotMountError(f"{shown} cannot be served: {error.strerror}") from None
    return found


def is_loopback(address: str | int) -> bool:
    """Return True if only this machine can reach an address."""
    return ipaddress.ip_address(str(address).partition("%")[0]).is_loopback


def authority(host: str, port: int) -> str:
    """Return a host and a port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
