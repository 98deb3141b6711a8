"""SFTP by paramiko: written to a name beside, compared by size, and renamed over the old file.

Threading: same as `Endpoint`; one connection.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import paramiko

from bentofs.store.clients.error_classes import Failure, failure_of
from bentofs.store.clients.request_body import Body
from bentofs.store.clients.ssh import open_sftp
from bentofs.store.errors import RemoteError, SourceChangedError, UnsafeMemberError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.base import Known, Progress, write_files
from bentofs.store.transfer.endpoints.beside import beside
from bentofs.store.transfer.endpoints.remote_parts import RemoteParts
from bentofs.store.transfer.endpoints.retry import (
    CONNECT_SECONDS,
    SILENCE_SECONDS,
    TRIES,
    may_pass,
    pause,
    retry,
    sentence_for,
    told,
)
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.display import printable

_BLOCK = 32 << 10  # bytes that every server takes in one packet
_READ_AT_ONCE = 2 << 20  # bytes requested before the first answer is awaited

Result = TypeVar("Result")


class SftpEndpoint:
    """One SFTP server, as one user."""

    can_seek = True

    def __init__(self, location: Location, stops: CancelTokens = ()) -> None:
        location.refuse_parameters_except(["identity", "known_hosts", "timeout"])
        self._location = location
        self._stops = stops
        self._silence_seconds = float(location.params.get("timeout", SILENCE_SECONDS))
        self._was_connected = False
        self._parts = RemoteParts(location, self._remove_now)
        self._client: paramiko.SSHClient | None = None
        self._channel: paramiko.SFTPClient | None = None

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """See `Target.write`."""
        with self._parts.new(path) as part:
            place = self._path(part)
            for number in range(1, TRIES + 1):
                try:
                    self._send(place, content, progress)
                    break
                except Exception as error:
                    self._drop()
                    if number == TRIES or not may_pass(error):
                        raise sentence_for(error, self._at(path)) from error
                    pause(number, error, self._at(path), self._stops)
            size = self._run(path, lambda sftp: sftp.stat(place).st_size)
            if size != content.length:
                raise RemoteError(f"{self._at(path).shown}: {size} bytes arrived of {content.length}")
            self._run(path, lambda sftp: _rename(sftp, place, self._path(path)))

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """See `Target.write_folder`."""
        write_files(self, self._at(path), members, progress)

    def make_folder(self, path: str) -> None:
        """Make a folder and its parents."""
        full = self._path(path).rstrip("/")

        def make(sftp: paramiko.SFTPClient) -> None:
            for end in [at for at, char in enumerate(full) if char == "/" and at] + [len(full)]:
                try:
                    if not _is_there(sftp, full[:end]):
                        sftp.mkdir(full[:end])
                except OSError:
                    if not _is_there(sftp, full[:end]):  # else another transfer has just made it
                        raise

        self._run(path, make)

    def make_executable(self, path: str) -> None:
        """Let everyone who may read a file execute it."""

        def change(sftp: paramiko.SFTPClient) -> None:
            mode = stat.S_IMODE(sftp.stat(self._path(path)).st_mode or 0)
            sftp.chmod(self._path(path), mode | (mode & 0o444) >> 2)

        self._run(path, change)

    def look(self, path: str) -> Known:
        """See `Source.look`."""
        return _known(self._run(path, lambda sftp: sftp.stat(self._path(path))))

    def chunks(self, path: str, known: Known) -> Iterator[bytes]:
        """See `Source.chunks`."""
        done, length = 0, known.size or 0
        while done < length:
            chunk = self.read_at(path, known, done, min(_READ_AT_ONCE, length - done))
            done += len(chunk)
            yield chunk
        if self.look(path) != known:
            raise SourceChangedError(f"{self._at(path).shown} was replaced while it was read: start again")

    def read_at(self, path: str, known: Known, offset: int, size: int) -> bytes:  # noqa: ARG002 - compared at the end
        """See `Source.read_at`."""
        blocks = [(at, min(_BLOCK, offset + size - at)) for at in range(offset, offset + size, _BLOCK)]

        def read(sftp: paramiko.SFTPClient) -> bytes:
            with sftp.open(self._path(path), "rb") as file:
                content = b"".join(file.readv(blocks))
            if len(content) != size:
                raise EOFError(f"{len(content)} bytes came where {size} were asked for")
            return content

        return self._run(path, read)

    def read_small(self, path: str, limit: int) -> bytes | None:
        """See `Source.read_small`."""

        def read(sftp: paramiko.SFTPClient) -> bytes | None:
            try:
                with sftp.open(self._path(path), "rb") as file:
                    return file.read(limit + 1)
            except FileNotFoundError:
                return None

        content = self._run(path, read)
        return content if content is not None and len(content) <= limit else None

    def find(self, path: str) -> Iterator[tuple[str, Known | None]]:
        """See `Source.find`."""
        base = self._path(path).rstrip("/") or "/"
        waiting = [""]
        while waiting:
            below = waiting.pop()
            folder = posixpath.join(base, below)
            for found in self._run(path, lambda sftp, folder=folder: sftp.listdir_attr(folder)):  # type: ignore[misc]
                inner = posixpath.join(below, found.filename)
                mode = found.st_mode or 0
                if stat.S_ISDIR(mode):
                    waiting.append(inner)
                    yield inner, None
                    continue
                look = self._behind(path, base, inner) if stat.S_ISLNK(mode) else found
                if not stat.S_ISREG(look.st_mode or 0):
                    raise UnsafeMemberError(
                        f"{self._at(path).shown} holds {printable(inner)!r}, no file or folder, nor a link to a file"
                    )
                yield inner, _known(look)

    def _behind(self, path: str, base: str, inner: str) -> paramiko.SFTPAttributes:
        """Return the attributes of a link's target, for a link in a folder."""

        def read(sftp: paramiko.SFTPClient) -> paramiko.SFTPAttributes:
            real = sftp.normalize(posixpath.join(base, inner))
            if not real.startswith(f"{sftp.normalize(base).rstrip('/')}/"):
                raise UnsafeMemberError(
                    f"{self._at(path).shown} holds {printable(inner)!r}, a link that leads out of the model: replace "
                    "it by the file"
                )
            return sftp.stat(real)

        return self._run(path, read)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""

        def remove(sftp: paramiko.SFTPClient) -> None:
            with suppress(FileNotFoundError):
                sftp.remove(self._path(path))

        self._run(path, remove)

    def _remove_now(self, path: str) -> None:
        """Remove a file if it is there, with one try. Its export has failed, or it belongs to another export."""
        if self._was_connected:
            with told(self._at(path)), suppress(FileNotFoundError):
                self._sftp().remove(self._path(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it is there and empty."""

        def remove(sftp: paramiko.SFTPClient) -> None:
            with suppress(OSError):
                sftp.rmdir(self._path(path))

        self._run(path, remove)

    def close(self) -> None:
        """See `Source.close`."""
        self._drop()

    def _send(self, place: str, content: Piece, progress: Progress) -> None:
        sent = 0
        body = Body(content)
        try:
            with self._new_file(place) as file:
                while block := body.read(_BLOCK):
                    # After the last block, wait for all answers: paramiko asks for none of them when it closes the
                    # file.
                    file.set_pipelined(body.tell() < content.length)
                    file.write(block)
                    sent += len(block)
                    progress(len(block))
        except BaseException:
            progress(-sent)
            raise

    def _new_file(self, place: str) -> paramiko.SFTPFile:
        try:
            return self._sftp().open(place, "wb")
        except FileNotFoundError:  # its folder is missing too
            self.make_folder(posixpath.dirname(place).lstrip("/"))
            return self._sftp().open(place, "wb")

    def _sftp(self) -> paramiko.SFTPClient:
        """Return the connection. Make it if there is none."""
        if self._channel is None:
            self._client, self._channel = open_sftp(
                self._location, connect_seconds=CONNECT_SECONDS, silence_seconds=self._silence_seconds
            )
            self._was_connected = True
        return self._channel

    def _drop(self) -> None:
        client, self._client, self._channel = self._client, None, None
        if client is not None:
            client.close()

    def _run(self, path: str, action: Callable[[paramiko.SFTPClient], Result]) -> Result:
        def once() -> Result:
            try:
                return action(self._sftp())
            except (FileNotFoundError, PermissionError):
                raise
            except Exception:
                self._drop()
                raise

        return retry(once, self._at(path), self._stops)

    def _path(self, path: str) -> str:
        return f"/{path}"

    def _at(self, path: str) -> Location:
        return self._location.at(path)


def _rename(sftp: paramiko.SFTPClient, place: str, target: str) -> None:
    """Rename a file over the old one. Not all servers have the rename that does it at once."""
    try:
        sftp.posix_rename(place, target)
        return
    except OSError as error:
        if failure_of(error) is not Failure.REFUSED:
            raise
    try:
        sftp.rename(place, target)
    except OSError as error:
        if failure_of(error) is not Failure.REFUSED or not _is_file(sftp, target):
            raise
        aside = beside(target)
        sftp.rename(target, aside)
        try:
            sftp.rename(place, target)
        except BaseException:
            sftp.rename(aside, target)
            raise
        sftp.remove(aside)


def _is_file(sftp: paramiko.SFTPClient, path: str) -> bool:
    return _is_there(sftp, path) and stat.S_ISREG(sftp.stat(path).st_mode or 0)


def _known(look: paramiko.SFTPAttributes) -> Known:
    return Known(look.st_size, f"{look.st_size}/{look.st_mtime}", bool((look.st_mode or 0) & stat.S_IXUSR))


def _is_there(sftp: paramiko.SFTPClient, path: str) -> bool:
    try:
        sftp.stat(path)
    except FileNotFoundError:
        return False
    return True
