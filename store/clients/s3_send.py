"""Send a request's content, and receive its answer, in the calling thread, which heeds cancellation.

Silence ends both. Bytes that the server acknowledges late are no silence: the system buffers megabytes, which take
minutes on a slow line.

Threading: functions without state; a connection belongs to one thread.
"""

from __future__ import annotations

import array
import fcntl
import functools
import http.client
import io
import select
import socket
import ssl
import termios
import time
from typing import TYPE_CHECKING, Any

from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SLICE = 1 << 20  # bytes given to the system at a time
_TLS_SLICE = 32 << 10  # bytes; a TLS connection tells nothing until it has sent all that it was given
_POLL_SECONDS = 0.2
_HUNG_UP = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class AnswerLostError(ConnectionError):
    """A server hung up while content was sent to it. If it has answered, the answer cannot be read any more."""


def send_body(connection: socket.socket, content: bytes | memoryview, silence: float, stops: CancelTokens) -> None:
    """Send a request's content. End early if the server answers or hangs up: maybe it has refused the request.

    Raises:
        TimeoutError: the server took no byte for `silence` seconds.
        CancelledError: one of `stops` is set.
        AnswerLostError: the server hung up, and TLS reads nothing after that.
    """
    is_tls = isinstance(connection, ssl.SSLSocket)
    size = _TLS_SLICE if is_tls else _SLICE
    connection.settimeout(_POLL_SECONDS)
    patience = _Patience(connection, silence, stops)
    sent = 0
    with memoryview(content) as view:
        while sent < len(view) and (is_tls or not _has_answer(connection)):
            try:
                sent += connection.send(view[sent : sent + size])
                patience.begin()
            except TimeoutError:
                patience.check()
            except _HUNG_UP as error:
                if is_tls:
                    raise AnswerLostError("the server hung up while content was sent") from error
                return


def answer_on(connection: http.client.HTTPConnection, silence: float, stops: CancelTokens) -> http.client.HTTPResponse:
    """Return the answer to a request, with only its headers read. Reading the rest of it has the same limits.

    Raises:
        TimeoutError: no byte moved for `silence` seconds.
        CancelledError: one of `stops` is set.
        OSError: the connection broke.
    """
    connection.sock.settimeout(_POLL_SECONDS)
    connection.response_class = functools.partial(_Answer, silence=silence, stops=stops)  # type: ignore[assignment]
    return connection.getresponse()


class _Answer(http.client.HTTPResponse):
    """An answer that is received as `_Received` does it."""

    def __init__(self, sock: socket.socket, *args: Any, silence: float, stops: CancelTokens, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Received(sock, self.fp, silence, stops))


class _Received(io.RawIOBase):
    """The bytes that come from a connection. Those of TLS itself are not among them."""

    def __init__(self, connection: socket.socket, held: io.BufferedReader, silence: float, stops: CancelTokens) -> None:
        """`held`: the usual stream, which keeps the connection open."""
        self._connection = connection
        self._held = held
        self._patience = _Patience(connection, silence, stops)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._patience.begin()
        while True:
            try:
                return self._connection.recv_into(buffer)
            except TimeoutError:
                self._patience.check()

    def close(self) -> None:
        self._held.close()
        super().close()


class _Patience:
    """The limit on silence, and cancellation, while a connection is waited for."""

    def __init__(self, connection: socket.socket, silence: float, stops: CancelTokens) -> None:
        self._connection = connection
        self._silence = silence
        self._stops = stops
        self.begin()

    def begin(self) -> None:
        """Note that bytes moved."""
        refuse_if_stopped(self._stops)
        self._touched = time.monotonic()
        self._left: int | None = None

    def check(self) -> None:
        """Raise the error of a wait that is over: a TimeoutError, or a CancelledError."""
        refuse_if_stopped(self._stops)
        now, before, self._left = time.monotonic(), self._left, _unacknowledged(self._connection)
        if before is not None and self._left < before:
            self._touched = now
        elif now - self._touched > self._silence:
            raise TimeoutError(f"the server was silent for {self._silence:g} s")


def _has_answer(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _unacknowledged(connection: socket.socket) -> int:
    """Return the number of bytes that the system still has to send, or that the server has not acknowledged."""
    left = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, left)
    return left[0]
