"""Any other protocol that fsspec knows, by its own interface: written to a name beside, compared by size, and moved.

A move is a rename where there are files, and a copy on the server in object stores. So an object appears whole there
too.

Threading: same as `Endpoint`.
"""

from __future__ import annotations

import http
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

from bentofs.store.clients.fsspec_files import FsspecFiles, files_below
from bentofs.store.clients.fsspec_fs import size_of, version_of
from bentofs.store.clients.request_body import Body
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.errors import BadLocationError, RemoteError, SourceChangedError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.base import CHUNK, Known, Progress, write_files
from bentofs.store.transfer.endpoints.remote_parts import RemoteParts
from bentofs.store.util.cancel import CancelTokens

_BLOCK = 4 << 20  # bytes that a file system may hold back before it sends them
_READ_ONLY = ("http", "https", "data", "github", "git", "zip", "tar", "libarchive", "reference", "gist", "generic")

Result = TypeVar("Result")


class FsspecEndpoint:
    """One of fsspec's file systems."""

    def __init__(self, location: Location, policy: RetryPolicy, stops: CancelTokens = ()) -> None:
        self._location = location
        self._stops = stops
        self._files = FsspecFiles(location, policy, root=location.at(""))
        self._parts = RemoteParts(location, self.remove)
        self.can_seek = True
        self._knows_ranges: bool | None = None  # of a web server; None until it is known

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """See `Target.write`."""
        if self._location.protocol in _READ_ONLY:
            raise BadLocationError(f"{self._at(path).shown}: files cannot be written by {self._location.protocol}")
        final = self._path(path)
        with self._parts.new(path) as part, self._files.once(path) as fs:
            place = self._path(part)
            parent = fs._parent(final)
            if parent.strip("/"):
                fs.makedirs(parent, exist_ok=True)
            file = fs.open(place, "wb", block_size=_BLOCK)
            try:
                body = Body(content)
                while block := body.read(CHUNK):
                    file.write(block)
                    progress(len(block))
            finally:
                file.close()  # a file that is cut short has a name that nobody knows, and is removed
            size = fs.info(place).get("size")
            if size != content.length:
                raise RemoteError(f"{self._at(path).shown}: {size} bytes arrived of {content.length}")
            _move(fs, place, final)

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """See `Target.write_folder`."""
        write_files(self, self._at(path), members, progress)

    def make_folder(self, path: str) -> None:
        """Make a directory, if the file system has directories."""
        with self._files.once(path) as fs:
            fs.makedirs(self._path(path), exist_ok=True)

    def make_executable(self, path: str) -> None:
        """Do nothing: fsspec has no modes."""

    def look(self, path: str) -> Known:
        """See `Source.look`."""
        info = self._run(path, lambda fs: fs.info(self._path(path)))
        if info.get("type") == "directory":
            raise RemoteError(f"{self._at(path).shown} is a directory")
        size = size_of(info)
        if self._location.is_web and self._knows_ranges is None:
            self._knows_ranges = self._run(path, lambda fs: _gives_ranges(fs, self._path(path)))
        # If a web server knows no ranges, the object can only be read whole, once.
        self.can_seek = size is not None and self._knows_ranges is not False
        return _known(info)

    def chunks(self, path: str, known: Known) -> Iterator[bytes]:
        """See `Source.chunks`."""
        if known.size is None or not self.can_seek:
            yield from self._whole(path)
            return
        before = self.look(path)  # a listing may give times in another form
        for start in range(0, known.size, _BLOCK):
            yield self.read_at(path, known, start, min(_BLOCK, known.size - start))
        if known.size != before.size or self.look(path) != before:
            raise SourceChangedError(f"{self._at(path).shown} was replaced while it was read: start again")

    def read_at(self, path: str, known: Known, offset: int, size: int) -> bytes:  # noqa: ARG002 - compared at the end
        """See `Source.read_at`."""
        return self._files.fetch(path, offset, offset + size, self._stops)

    def read_small(self, path: str, limit: int) -> bytes | None:
        """See `Source.read_small`."""

        def read(fs: AbstractFileSystem) -> bytes | None:
            try:
                with fs.open(self._path(path), "rb", block_size=_BLOCK) as file:
                    content: bytes = file.read(limit + 1)
            except FileNotFoundError:
                return None
            return content

        content = self._run(path, read)
        return content if content is not None and len(content) <= limit else None

    def find(self, path: str) -> Iterator[tuple[str, Known | None]]:
        """See `Source.find`."""
        base = self._path(path).rstrip("/")
        found = self._run(path, lambda fs: files_below(fs, base, with_folders=True))
        for full, info in found.items():
            name = full.rstrip("/")
            if name != base:
                inner = name[len(base) :].lstrip("/")
                yield inner, None if info.get("type") == "directory" else _known(info)

    def remove(self, path: str) -> None:
        """Remove an object if it is there."""
        with self._files.once(path) as fs, suppress(FileNotFoundError):
            fs.rm_file(self._path(path))

    def remove_folder(self, path: str) -> None:
        """Remove a directory if it is there and empty."""
        with self._files.once(path) as fs, suppress(OSError):
            fs.rmdir(self._path(path))

    def close(self) -> None:
        """See `Source.close`."""

    def _whole(self, path: str) -> Iterator[bytes]:
        with self._files.once(path) as fs, fs.open(self._path(path), "rb", block_size=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def _run(self, path: str, action: Callable[[AbstractFileSystem], Result]) -> Result:
        return self._files.run(path, action, self._stops)

    def _path(self, path: str) -> str:
        return self._files.path(path)

    def _at(self, path: str) -> Location:
        return self._location.at(path)


def _known(info: dict[str, Any]) -> Known:
    return Known(size_of(info), version_of(info))


def _gives_ranges(fs: AbstractFileSystem, path: str) -> bool:
    """Tell whether a web server answers a range request with a range. fsspec does not tell, and not all servers do."""

    async def ask() -> bool:
        session = await fs.set_session()
        async with session.get(fs.encode_url(path), headers={"Range": "bytes=0-0"}) as answer:
            return bool(answer.status == http.HTTPStatus.PARTIAL_CONTENT)

    return bool(sync(fs.loop, ask))


def _move(fs: AbstractFileSystem, place: str, final: str) -> None:
    if type(fs).mv is not AbstractFileSystem.mv:
        fs.mv(place, final)
        return
    # fsspec's own move takes a name with brackets or asterisks for a pattern.
    fs.cp_file(place, final)
    fs.rm_file(place)
