"""The server of `bentofs serve`: one process that shows one store by HTTP, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp.web import ServerRunner

from bentofs.mount.daemon.backend import Backend, TreeSettings
from bentofs.mount.daemon.ending import End
from bentofs.mount.daemon.listening import authority, bound_sockets, is_loopback
from bentofs.mount.daemon.logs import RecentLog
from bentofs.mount.daemon.malloc import Trimmer, give_memory_back
from bentofs.mount.daemon.notify import ServiceManager
from bentofs.mount.daemon.status_socket import StatusSocket
from bentofs.mount.daemon.tuning import allow_many_files, collect_seldom
from bentofs.mount.serve.auth import Credentials
from bentofs.mount.serve.connections import BoundedServer
from bentofs.mount.serve.guards import Guards
from bentofs.mount.serve.routes import Routes
from bentofs.mount.serve.site import Site
from bentofs.mount.view.own_names import STATUS
from bentofs.mount.view.readme import Reader
from bentofs.store.util.display import printable
from bentofs.store.util.memory_budget import MemoryBudget

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GRACE_SECONDS = 2.0  # how long requests under way may take when the server ends
_BACKLOG = 256
_HANDSHAKE_SECONDS = 10.0
_HTTP = {"keepalive_timeout": 75.0, "lingering_time": 0.0, "auto_decompress": False}


@dataclass(frozen=True, kw_only=True)
class ServerSettings(TreeSettings):
    """The settings of a server."""

    host: str  # a name or an address
    port: int  # 0 for any that is free
    names: Sequence[str] = ()  # further names that lead to it
    credentials: Credentials = field(default_factory=Credentials)
    tls: ssl.SSLContext | None = None
    log_level: str = "info"
    log_file: Path | None = None  # absolute; None for standard error


def serve_http(settings: ServerSettings, ready: Callable[[str, bool], None], recent: RecentLog) -> None:
    """Serve in this process until a signal ends it. `ready` is called once the server answers, with its URL, and with
    True if it has `incoming/`. `recent`: the log's newest lines.

    Raises:
        CannotMountError: the address cannot be had.
        StagingError: there is no place for `incoming/`.
    """
    manager = ServiceManager()
    give_memory_back()
    collect_seldom()
    allow_many_files()
    sockets = bound_sockets(settings.host, settings.port, must_be_local=not settings.credentials.are_there)
    url = _url(settings, sockets[0])
    storage = settings.store.open(follow_links=settings.follow_links)
    user = os.geteuid()
    described = _described(settings, url)
    trimmer = Trimmer()
    budget = MemoryBudget(trim=trimmer.make_room)
    backend = Backend(
        storage, settings, recent, described, budget, trimmer, calling_user=lambda: user, reader=Reader.SERVER
    )
    incoming = backend.incoming
    namespace, record = (incoming.namespace, incoming.record) if incoming is not None else (None, None)
    site = Site(backend.tree, namespace, record, backend.traffic, user)
    end = End(manager, f"{url} is being closed")

    def announce() -> None:
        location = settings.store.location
        log.info("%s is served at %s, %s", location, url, _audience(settings, sockets))
        manager.ready(f"{location} is served at {url}")
        ready(url, incoming is not None)

    try:
        asyncio.run(_run(settings, backend, site, sockets, url, announce, end))
        end.hurry()
    finally:
        site.close()
        backend.stop()
        backend.close()
        end.is_there()
    log.info("%s is closed", url)


async def _run(
    settings: ServerSettings,
    backend: Backend,
    site: Site,
    sockets: list[socket.socket],
    url: str,
    announce: Callable[[], None],
    end: End,
) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[signal.Signals] = loop.create_future()

    def note(number: signal.Signals) -> None:
        if not ended.done():
            ended.set_result(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, note, number)
    server = BoundedServer(Routes(site, Guards(settings.names, settings.credentials)).answer, **_HTTP)
    runner = ServerRunner(server, handle_signals=False, shutdown_timeout=_GRACE_SECONDS)
    await runner.setup()
    listening: list[asyncio.Server] = []
    status = StatusSocket(url, backend.live[STATUS])
    try:
        handshake = None if settings.tls is None else _HANDSHAKE_SECONDS
        listening += [
            await loop.create_server(
                server, sock=sock, ssl=settings.tls, backlog=_BACKLOG, ssl_handshake_timeout=handshake
            )
            for sock in sockets
        ]
        server.start()
        await status.start()
        backend.start(lambda: server.is_busy)
        announce()
        received = await ended
        log.info("ending: %s", received.name)
        end.begin(by_signal=True)
        if backend.incoming is not None:
            backend.incoming.end_reports()
    finally:
        server.stop()
        await status.stop()
        for each in listening:
            each.close()
        await runner.cleanup()


def _audience(settings: ServerSettings, sockets: Sequence[socket.socket]) -> str:
    """Return who can read it, for the log. Warn of passwords in clear text."""
    is_local = all(is_loopback(sock.getsockname()[0]) for sock in sockets)
    if not settings.credentials.are_there:
        return "to all users of this machine"
    if not is_local and settings.tls is None:
        log.warning("passwords and tokens cross the network in clear text: add --tls-cert, or let a proxy do TLS")
    return f"to users with a password or token{', on this machine' if is_local else ''}"


def _url(settings: ServerSettings, sock: socket.socket) -> str:
    return f"{'http' if settings.tls is None else 'https'}://{authority(settings.host, sock.getsockname()[1])}/"


def _described(settings: ServerSettings, url: str) -> dict[str, Any]:
    """Return the settings for the status. They hold no secrets."""
    log_file = settings.log_file
    return {
        "mountpoint": url,
        "store": printable(settings.store.location),
        "engine": "http",
        "formats": [kind.name for kind in settings.formats],
        "compression": settings.compression.value,
        "log_file": printable(str(log_file)) if log_file is not None else None,
    }
