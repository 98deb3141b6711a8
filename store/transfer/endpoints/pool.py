"""Connect: make the endpoint that a location names, and keep it for the next use of the same server. Making one takes
longer than sending a small archive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bentofs.store.clients.error_classes import parameter_reason
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.errors import BadLocationError
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.base import Endpoint, Target
from bentofs.store.transfer.endpoints.local import LocalEndpoint
from bentofs.store.util.cancel import CancelTokens

POLICY = RetryPolicy(connect_seconds=10.0, silence_seconds=30.0, attempts=5, first_pause=0.5)  # of transfers
_GROWING = ("s3", "s3a")
_KEPT = ("s3", "s3a", "ftp", "ftps", "sftp", "ssh")  # for these, paths mean nothing to a connection


def takes_growing(location: Location) -> bool:
    """Tell whether the target of a location is a `GrowingTarget`, without connecting."""
    return location.protocol in _GROWING


class Endpoints:
    """The endpoints of many locations.

    Threading: any thread; an endpoint is lent to one thread at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[Location, CancelTokens, Endpoint]] | None = []  # None once they are closed
        self._tidied: set[str] = set()  # directories of this machine

    @contextmanager
    def target(self, location: Location, stops: CancelTokens = ()) -> Iterator[Target]:
        """Give the target of an export for the time of the context. Raises the errors of `endpoint`."""
        if location.is_local:
            yield LocalEndpoint(stops, self._tidied)
        else:
            with self.endpoint(location, stops) as endpoint:
                yield endpoint

    @contextmanager
    def endpoint(self, location: Location, stops: CancelTokens = ()) -> Iterator[Endpoint]:
        """Give the server of a location for the time of the context. `stops`: once one is set, all its work ends soon.

        Raises:
            BadLocationError: a package for its protocol is not installed, or a parameter has no meaning.
            RemoteError: it cannot be reached.
        """
        server = location.at("")
        endpoint = self._take(server, stops) or _made(location, stops)
        try:
            yield endpoint
        except BaseException:
            endpoint.close()  # its state is unknown
            raise
        with self._lock:
            if self._idle is not None and location.protocol in _KEPT:
                self._idle.append((server, stops, endpoint))
                return
        endpoint.close()

    def close(self) -> None:
        """Close the connections. A connection in use closes when its use ends."""
        with self._lock:
            idle, self._idle = self._idle, None
        for _, _, endpoint in idle or ():
            endpoint.close()

    def _take(self, server: Location, stops: CancelTokens) -> Endpoint | None:
        with self._lock:
            for number, (of, stopped_by, endpoint) in enumerate(self._idle or ()):
                if of == server and list(stopped_by) == list(stops) and self._idle is not None:
                    del self._idle[number]
                    return endpoint
        return None


def _made(location: Location, stops: CancelTokens) -> Endpoint:
    """Return a new endpoint. Libraries are loaded when they are needed: a command needs those of one protocol."""
    try:
        return _open(location, stops)
    except ImportError as error:
        raise BadLocationError(f"{location.protocol}:// is not possible here: {error}") from error
    except BadLocationError:
        raise
    except (TypeError, ValueError) as error:
        raise BadLocationError(f"{location.shown}: {parameter_reason(error)}") from error


def _open(location: Location, stops: CancelTokens) -> Endpoint:
    if location.protocol in ("s3", "s3a"):
        from bentofs.store.transfer.endpoints.s3 import S3Endpoint

        return S3Endpoint(location, POLICY, stops)
    if location.protocol in ("ftp", "ftps"):
        from bentofs.store.transfer.endpoints.ftp import FtpEndpoint

        return FtpEndpoint(location, POLICY, stops, tls=location.protocol == "ftps")
    if location.protocol in ("sftp", "ssh"):
        from bentofs.store.transfer.endpoints.sftp import SftpEndpoint

        return SftpEndpoint(location, POLICY, stops)
    from bentofs.store.transfer.endpoints.fsspec import FsspecEndpoint

    return FsspecEndpoint(location, POLICY, stops)
