"""The base of endpoints with one connection. It connects when needed, and again after an error.

Threading: same as `Endpoint`.
"""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from bentofs.store.clients.error_classes import translating
from bentofs.store.clients.retry import Retries, RetryPolicy
from bentofs.store.errors import RemoteError, SourceChangedError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.base import Known, Progress, write_files
from bentofs.store.transfer.endpoints.remote_parts import RemoteParts
from bentofs.store.util.cancel import CancelTokens

Connection = TypeVar("Connection")
Result = TypeVar("Result")


class ConnectedEndpoint(ABC, Generic[Connection]):
    """One server, as one user."""

    def __init__(
        self,
        location: Location,
        policy: RetryPolicy,
        stops: CancelTokens,
        *,
        parameters: Sequence[str],
        answers: tuple[type[Exception], ...],
    ) -> None:
        """`parameters`: that the location may have; `answers`: errors that are answers of the server, so that the
        connection is still good."""
        location.refuse_parameters_except(parameters)
        self._location = location
        self._stops = stops
        self._answers = answers
        self._retries = Retries(policy)
        self._silence_seconds = float(location.params.get("timeout", policy.silence_seconds))
        self._was_connected = False
        self._parts = RemoteParts(location, self._remove_now)
        self._open: Connection | None = None

    @abstractmethod
    def _connect(self) -> Connection:
        """Make a connection."""

    @abstractmethod
    def _disconnect(self, connection: Connection) -> None:
        """Close a connection at once."""

    @abstractmethod
    def _delete(self, connection: Connection, path: str) -> None:
        """Remove a file if it is there."""

    @abstractmethod
    def _make_folder(self, connection: Connection, path: str) -> None:
        """Make a directory unless it is there. Its parent is there."""

    @abstractmethod
    def _list(self, path: str, folder: str, below: str) -> list[tuple[str, Known | None]]:
        """Return the names in a directory, each with its data, None for a directory. `path`: where `find` began;
        `below`: the directory's path below that."""

    @abstractmethod
    def look(self, path: str) -> Known:
        """See `Source.look`."""

    @abstractmethod
    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """See `Target.write`."""

    @abstractmethod
    def make_executable(self, path: str) -> None:
        """Let everyone who may read a file execute it, if the protocol has modes."""

    @abstractmethod
    def remove_folder(self, path: str) -> None:
        """Remove a directory if it is there and empty."""

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """See `Target.write_folder`."""
        write_files(self, self._at(path), members, progress)

    def make_folder(self, path: str) -> None:
        """Make a directory and its parents."""
        full = self._path(path).rstrip("/")

        def make(connection: Connection) -> None:
            for end in [at for at, char in enumerate(full) if char == "/" and at] + [len(full)]:
                self._make_folder(connection, full[:end])

        if full:
            self._run(path, make)

    def find(self, path: str) -> Iterator[tuple[str, Known | None]]:
        """See `Source.find`."""
        base = self._path(path).rstrip("/") or "/"
        waiting = [""]
        while waiting:
            below = waiting.pop()
            for name, known in self._list(path, posixpath.join(base, below), below):
                inner = posixpath.join(below, name)
                if known is None:
                    waiting.append(inner)
                yield inner, known

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        self._run(path, lambda connection: self._delete(connection, self._path(path)))

    def close(self) -> None:
        """See `Source.close`."""
        self._drop()

    def _remove_now(self, path: str) -> None:
        """Remove a file if it is there, with one try. Its export has failed, or it belongs to another export."""
        if self._was_connected:
            with translating(self._at(path)):
                self._delete(self._connected(), self._path(path))

    def _connected(self) -> Connection:
        """Return the connection. Make it if there is none."""
        if self._open is None:
            self._open = self._connect()
            self._was_connected = True
        return self._open

    def _drop(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            self._disconnect(connection)

    def _run(self, path: str, action: Callable[[Connection], Result]) -> Result:
        """Return the result of `action`, with retries. `path`: named in errors."""

        def once() -> Result:
            try:
                return action(self._connected())
            except self._answers:
                raise
            except Exception:
                self._drop()
                raise

        return self._retries.call(self._at(path), once, self._stops)

    def _compare(self, path: str, known: Known) -> None:
        if self.look(path) != known:
            raise SourceChangedError(f"{self._at(path).shown} was replaced while it was read: start again")

    def _check_size(self, path: str, size: int | None, content: Piece) -> None:
        if size != content.length:
            raise RemoteError(f"{self._at(path).shown}: {size} bytes arrived of {content.length}")

    def _path(self, path: str) -> str:
        return f"/{path}"

    def _at(self, path: str) -> Location:
        return self._location.at(path)
