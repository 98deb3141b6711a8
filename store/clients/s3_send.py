"""Sending of a request's content from memory by the calling thread, which heeds cancellation meanwhile.

Threading: functions without state; a connection belongs to one thread.
"""

from __future__ import annotations

import select
import socket
import ssl
import time

from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped

_SLICE = 1 << 20  # bytes given to the system at a time
_POLL_SECONDS = 0.2


def send_body(connection: socket.socket, content: bytes | memoryview, silence: float, stops: CancelTokens) -> None:
    """Send a request's content. End early if the server answers before: it has refused the request.

    Raises:
        ConnectionError: the connection broke.
        TimeoutError: the server took no byte for `silence` seconds.
        CancelledError: one of `stops` is set.
    """
    before = connection.gettimeout()
    connection.settimeout(_POLL_SECONDS)
    touched = time.monotonic()
    sent = 0
    with memoryview(content) as view:
        while sent < len(view):
            refuse_if_stopped(stops)
            if _has_answer(connection, 0):
                break
            try:
                sent += connection.send(view[sent : sent + _SLICE])
                touched = time.monotonic()
            except TimeoutError:
                if time.monotonic() - touched > silence:
                    raise TimeoutError(f"the server was silent for {silence:g} s") from None
    connection.settimeout(before)


def await_answer(connection: socket.socket, silence: float, stops: CancelTokens) -> None:
    """Wait until the server answers.

    Raises:
        TimeoutError: it was silent for `silence` seconds.
        CancelledError: one of `stops` is set.
    """
    begun = time.monotonic()
    while not _has_answer(connection, _POLL_SECONDS, may_be_of_tls=True):
        refuse_if_stopped(stops)
        if time.monotonic() - begun > silence:
            raise TimeoutError(f"the server was silent for {silence:g} s")


def _has_answer(connection: socket.socket, seconds: float, *, may_be_of_tls: bool = False) -> bool:
    """Wait so long for bytes of the server. `may_be_of_tls`: bytes of TLS itself count, too."""
    if isinstance(connection, ssl.SSLSocket) and not may_be_of_tls:
        return False
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
