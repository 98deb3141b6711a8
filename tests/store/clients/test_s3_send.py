"""Contents sent to slow servers, and to servers that do not want them, with and without TLS."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentofs.store.clients.s3_operations import operation_named
from bentofs.store.clients.s3_send import AnswerLostError, answer_on, send_body
from bentofs.store.errors import CancelledError
from tests.store.clients.plain import certified, requests_at, serving

_CONTENT = bytes(400 << 10)
_SILENCE = 1.5  # seconds; each server below takes longer for the content


@contextlib.contextmanager
def _accepting(serve: Callable[[socket.socket], None], context: ssl.SSLContext | None) -> Iterator[int]:
    """Give the port of a server that serves one connection, with a small buffer."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def run() -> None:
            accepted, _ = listener.accept()
            accepted.settimeout(30)
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(accepted, server_side=True) if context is not None else accepted as connection,
            ):
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)


def _read_slowly(connection: socket.socket) -> None:
    left = len(_CONTENT)
    while left:
        count = len(connection.recv(min(left, 16 << 10)))
        if not count:
            return
        left -= count
        time.sleep(0.15)  # a slow line
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("is_tls", "buffer"),
    [
        (True, 64 << 10),  # the bytes wait in the client
        (False, 64 << 10),
        (False, 8 << 20),  # in the system
    ],
)
def test_a_slow_server_is_not_silent(tmp_path: Path, is_tls: bool, buffer: int) -> None:
    context, certificate = certified(tmp_path)
    with _accepting(_read_slowly, context if is_tls else None) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        trusting = ssl.create_default_context(cafile=certificate)
        connection.sock = trusting.wrap_socket(plain, server_hostname="127.0.0.1") if is_tls else plain
        with contextlib.closing(connection):
            connection._HTTPConnection__state = "Request-sent"  # type: ignore[attr-defined]
            begun = time.monotonic()
            send_body(connection.sock, _CONTENT, _SILENCE, ())
            assert answer_on(connection, _SILENCE, ()).status == 200
            assert time.monotonic() - begun > _SILENCE


def test_a_wait_for_an_answer_by_tls_can_be_cancelled(tmp_path: Path) -> None:
    """The tickets of TLS 1.3, which a server sends at once, are no answer."""
    context, certificate = certified(tmp_path)
    stop = threading.Event()
    with serving(lambda _handler: (stop.wait(30), None)[1], context) as port:
        requests = requests_at(port, "https", certificates=str(certificate), silence_seconds=40.0)
        assert requests._context is not None
        timer = threading.Timer(1.0, stop.set)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(CancelledError):
            requests.send("GET", lambda _answer: None, stops=(stop,))
        assert time.monotonic() - begun < 20
        timer.join()


@pytest.mark.parametrize("is_tls", [True, False])
def test_a_server_that_refuses_and_hangs_up(tmp_path: Path, is_tls: bool) -> None:
    """Its answer is read, although it hung up while the content was sent. TLS cannot: the library has to."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    context, certificate = certified(tmp_path)
    operation = operation_named("put_object", bytes(8 << 20), {})
    assert operation is not None
    with _accepting(refuse, context if is_tls else None) as port:
        scheme = "https" if is_tls else "http"
        requests = requests_at(port, scheme, certificates=str(certificate), silence_seconds=20.0)
        if is_tls:
            with pytest.raises(AnswerLostError):
                operation.send(requests, "k", ())
        else:
            assert operation.send(requests, "k", ()) is None
