"""SFTP, the files of SSH, by paramiko: written to a name beside, compared by size, and renamed.

Threading: same as `Endpoint`; one connection.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator
from contextlib import suppress

import paramiko

from bentofs.store.clients.error_classes import class_of
from bentofs.store.clients.request_body import Body
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.clients.ssh import open_sftp
from bentofs.store.errors import RemoteError, UnsafeMemberError
from bentofs.store.formats.pieces import Piece
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.base import Known, Progress
from bentofs.store.transfer.endpoints.beside import beside
from bentofs.store.transfer.endpoints.connected import ConnectedEndpoint
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.display import printable

_BLOCK = 32 << 10  # bytes that every server takes in one packet
_READ_AT_ONCE = 2 << 20  # bytes requested before the first answer is awaited


class SftpEndpoint(ConnectedEndpoint[paramiko.SFTPClient]):
    """One SFTP server, as one user."""

    can_seek = True

    def __init__(self, location: Location, policy: RetryPolicy, stops: CancelTokens = ()) -> None:
        parameters = ["identity", "known_hosts", "timeout"]
        answers = (FileNotFoundError, PermissionError)
        super().__init__(location, policy, stops, parameters=parameters, answers=answers)
        self._client: paramiko.SSHClient | None = None

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """See `Target.write`."""
        with self._parts.new(path) as part:
            place = self._path(part)
            self._run(path, lambda sftp: self._send(sftp, place, content, progress))
            self._check_size(path, self._run(path, lambda sftp: sftp.stat(place).st_size), content)
            self._run(path, lambda sftp: _rename(sftp, place, self._path(path)))

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
        self._compare(path, known)

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

    def remove_folder(self, path: str) -> None:
        """Remove a directory if it is there and empty."""

        def remove(sftp: paramiko.SFTPClient) -> None:
            with suppress(OSError):
                sftp.rmdir(self._path(path))

        self._run(path, remove)

    def _send(self, sftp: paramiko.SFTPClient, place: str, content: Piece, progress: Progress) -> None:
        sent = 0
        body = Body(content)
        try:
            with self._new_file(sftp, place) as file:
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

    def _new_file(self, sftp: paramiko.SFTPClient, place: str) -> paramiko.SFTPFile:
        try:
            return sftp.open(place, "wb")
        except FileNotFoundError:  # its directory is missing too
            self.make_folder(posixpath.dirname(place).lstrip("/"))
            return self._connected().open(place, "wb")

    def _connect(self) -> paramiko.SFTPClient:
        connect_seconds = self._retries.policy.connect_seconds
        self._client, sftp = open_sftp(
            self._location, connect_seconds=connect_seconds, silence_seconds=self._silence_seconds
        )
        return sftp

    def _disconnect(self, connection: paramiko.SFTPClient) -> None:  # noqa: ARG002 - its client holds it
        if self._client is not None:
            self._client.close()

    def _delete(self, connection: paramiko.SFTPClient, path: str) -> None:
        with suppress(FileNotFoundError):
            connection.remove(path)

    def _make_folder(self, connection: paramiko.SFTPClient, path: str) -> None:
        try:
            if not _is_there(connection, path):
                connection.mkdir(path)
        except OSError:
            if not _is_there(connection, path):  # else another transfer has just made it
                raise

    def _list(self, path: str, folder: str, below: str) -> list[tuple[str, Known | None]]:
        found: list[tuple[str, Known | None]] = []
        for each in self._run(path, lambda sftp: sftp.listdir_attr(folder)):
            name, mode = each.filename, each.st_mode or 0
            if stat.S_ISDIR(mode):
                found.append((name, None))
                continue
            look = self._behind(path, folder, posixpath.join(below, name)) if stat.S_ISLNK(mode) else each
            if not stat.S_ISREG(look.st_mode or 0):
                raise UnsafeMemberError(
                    f"{self._at(path).shown} holds {printable(posixpath.join(below, name))!r}, which is neither a "
                    "file, a directory, nor a link to a file"
                )
            found.append((name, _known(look)))
        return found

    def _behind(self, path: str, folder: str, inner: str) -> paramiko.SFTPAttributes:
        """Return the attributes of the target of a link in a directory. `inner`: the link's path below `path`."""

        def read(sftp: paramiko.SFTPClient) -> paramiko.SFTPAttributes:
            real = sftp.normalize(posixpath.join(folder, posixpath.basename(inner)))
            if not real.startswith(f"{sftp.normalize(self._path(path)).rstrip('/')}/"):
                raise UnsafeMemberError(
                    f"{self._at(path).shown} holds {printable(inner)!r}, a link that leads out of the model: replace "
                    "it by the file"
                )
            return sftp.stat(real)

        return self._run(path, read)


def _rename(sftp: paramiko.SFTPClient, place: str, target: str) -> None:
    """Rename a file over the old one. Not all servers have the rename that does it at once."""
    try:
        sftp.posix_rename(place, target)
        return
    except OSError as error:
        if class_of(error) is not RemoteError:
            raise
    try:
        sftp.rename(place, target)
    except OSError as error:
        if class_of(error) is not RemoteError or not _is_file(sftp, target):
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
