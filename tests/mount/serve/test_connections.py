"""A connection that is closed at an odd moment ends quietly: no traceback in the log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from aiohttp.web import BaseRequest, Response, StreamResponse

from bentofs.mount.serve import connections
from bentofs.mount.serve.connections import Activity, BoundedServer

_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
Handler = Callable[[BaseRequest, Activity], Awaitable[StreamResponse]]
Client = Callable[[int], Awaitable[None]]


def complaints_of(handler: Handler, client: Client, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Serve a client, which gets the port. Return what is logged at WARNING or above."""

    async def serve() -> None:
        listening = await asyncio.get_running_loop().create_server(BoundedServer(handler), "127.0.0.1", 0)
        try:
            await asyncio.wait_for(client(listening.sockets[0].getsockname()[1]), 30)
        finally:
            listening.close()

    asyncio.run(serve())
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_one_too_many(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """All others are being served, so the new one is refused."""
    monkeypatch.setattr(connections, "MOST", 1)

    async def handle(_request: BaseRequest, _activity: Activity) -> StreamResponse:
        await asked.wait()
        return Response(text="served")

    async def connect_twice(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_REQUEST)
        await asyncio.sleep(0.1)
        other, its_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await other.read() == b""
        asked.set()
        assert b"200 OK" in await reader.readline()
        writer.close()
        its_writer.close()

    asked = asyncio.Event()
    assert complaints_of(handle, connect_twice, caplog) == []


def test_it_is_lost_while_it_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    """It was closed while bytes waited, and went when they had gone."""

    async def handle(_request: BaseRequest, activity: Activity) -> StreamResponse:
        activity.transport.write(bytes(16 << 20))
        activity.transport.close()
        await gone.wait()
        raise ConnectionResetError

    async def read_all(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_REQUEST)
        assert len(await reader.read(-1)) == 16 << 20
        writer.close()
        gone.set()
        await asyncio.sleep(0.1)

    gone = asyncio.Event()
    assert complaints_of(handle, read_all, caplog) == []
