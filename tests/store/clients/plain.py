"""Servers that give any answer, and S3 requests without the library, for tests."""

import contextlib
import http.server
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentofs.store.clients.s3_client import S3Client
from bentofs.store.clients.s3_plain import Manner, PlainRequests

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def without_library(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every later use of the library fail."""

    async def refused(*_: object, **__: object) -> None:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(client._fs, "_call_s3", refused)


@contextlib.contextmanager
def serving(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Suppress the log."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answering(status: int, content: bytes, length: int | None = None, *, of_range: str = "") -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        if of_range:
            handler.send_header("Content-Range", of_range)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = length is not None

    return answer


def requests_at(port: int, scheme: str = "http", **settings: Any) -> PlainRequests:
    settings = {"certificates": None, "connect_seconds": 2.0, "silence_seconds": 1.0, **settings}
    return PlainRequests(Manner(f"{scheme}://127.0.0.1:{port}", "/b/", ""), lambda _stops: None, **settings)


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return the settings of a TLS server on 127.0.0.1, and the certificate that its clients must trust."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
