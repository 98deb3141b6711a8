"""S3, and servers that speak it, by `store.clients.s3`. An object is read in several ranges at a time. Once written, it
is compared with what was sent.

Threading: same as `Endpoint`. Requests run in the client's own thread. The number of requests for one object at once is
limited.
"""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from bentofs.store.archives.growing import Growing
from bentofs.store.clients.objects import ObjectInfo
from bentofs.store.clients.request_body import Body
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.clients.s3 import S3Objects
from bentofs.store.errors import RemoteDeniedError, RemoteError, RemoteNotFoundError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.base import CHUNK, Known, Progress, write_files
from bentofs.store.util.cancel import CancelTokens

_RANGE = 4 << 20  # bytes fetched by one request
_RANGES_AHEAD = 3
_MD5_LENGTH = 32


class S3Endpoint:
    """One bucket."""

    can_seek = True

    def __init__(self, location: Location, policy: RetryPolicy, stops: CancelTokens = ()) -> None:
        self._location = location
        self._stops = tuple(stops)
        self._objects = S3Objects(location.at(""), policy)

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """Do what `Target.write` does; in parts if the object is large."""
        etag = self._objects.upload(path, content, stops=self._stops, progress=progress)
        self._check(path, content, etag)

    def write_growing(self, path: str, growing: Growing, progress: Progress) -> None:
        """See `GrowingTarget.write_growing`."""
        with closing(growing.blocks()) as blocks:
            etag = self._objects.upload_stream(path, blocks, growing.most, stops=self._stops, progress=progress)
        self._check(path, growing.archive, etag)

    def look(self, path: str) -> Known:
        """See `Source.look`."""
        return _known(self._objects.look(path, stops=self._stops))

    def chunks(self, path: str, known: Known) -> Iterator[bytes]:
        """Do what `Source.chunks` does, some ranges ahead of the reader."""
        length = known.size or 0
        with ThreadPoolExecutor(_RANGES_AHEAD, thread_name_prefix="s3-read") as pool:
            ahead: deque[concurrent.futures.Future[bytes]] = deque()
            try:
                for start in range(0, length, _RANGE):
                    ahead.append(pool.submit(self.read_at, path, known, start, min(_RANGE, length - start)))
                    if len(ahead) > _RANGES_AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def read_at(self, path: str, known: Known, offset: int, size: int) -> bytes:
        """Do what `Source.read_at` does, in any number of threads at once."""
        wanted = ObjectInfo(path, known.size or 0, known.stamp or "", known.mtime_ns)
        return bytes(self._objects.read(wanted, offset, offset + size, stops=self._stops))

    def read_small(self, path: str, limit: int) -> bytes | None:
        """See `Source.read_small`."""
        try:
            known = self.look(path)
        except RemoteNotFoundError:
            return None
        if known.size is None or known.size > limit:
            return None
        return self.read_at(path, known, 0, known.size) if known.size else b""

    def find(self, path: str) -> Iterator[tuple[str, Known | None]]:
        """Do what `Source.find` does. An empty object whose key ends in a slash stands for a directory."""
        prefix = f"{path.rstrip('/')}/" if path.strip("/") else ""
        more = ""
        while True:
            page = self._objects.list_objects(prefix, more=more, stops=self._stops)
            for found in page.objects:
                name = found.key[len(prefix) :]
                if name.endswith("/"):
                    yield name.rstrip("/"), None
                elif name:
                    yield name, _known(found)
            more = page.more
            if not more:
                return

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """See `Target.write_folder`."""
        write_files(self, self._at(path), members, progress)

    def make_folder(self, path: str) -> None:
        """Do nothing: S3 has no directories."""

    def make_executable(self, path: str) -> None:
        """Do nothing: S3 has no modes."""

    def remove(self, path: str) -> None:
        """Remove an object if it is there."""
        self._objects.delete([path])

    def remove_folder(self, path: str) -> None:
        """Do nothing: S3 has no directories."""

    def close(self) -> None:
        """See `Source.close`."""
        self._objects.close()

    def _check(self, path: str, content: Piece, etag: str) -> None:
        """Compare the server's data of an object with the bytes that were sent."""
        try:
            known = self.look(path)
        except RemoteDeniedError:  # the user may only write: the upload's answer gave the ETag, and it is compared
            if not etag:
                raise
            return
        is_right = known.size == content.length and (not etag or not known.stamp or etag == known.stamp)
        if known.size == content.length and not is_right and known.stamp and len(known.stamp) == _MD5_LENGTH:
            # rclone gives the MD5 of the whole object, also if it came in parts.
            body = Body(content)
            while body.read(CHUNK):
                pass
            is_right = known.stamp == body.md5()
        if not is_right:
            raise RemoteError(
                f"{self._at(path).shown} is not what was sent: {known.size} bytes instead of {content.length}, or "
                "another checksum; someone else may have written it at the same time"
            )

    def _at(self, path: str) -> Location:
        """Return the location of an object, for a sentence."""
        return self._location.at(path)


def _known(found: ObjectInfo) -> Known:
    return Known(found.size, found.etag or None, mtime_ns=found.mtime_ns)
