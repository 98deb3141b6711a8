"""FTP, plain or over TLS (RFC 959, 2228, 3659), by ftplib: written to a name beside, compared by size, and renamed.

Threading: same as `Endpoint`; one connection.
"""

from __future__ import annotations

import ftplib
import posixpath
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress

from bentofs.store.clients.request_body import Body
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.errors import BadLocationError, RemoteError, UnsafeMemberError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.base import CHUNK, Known, Progress
from bentofs.store.transfer.endpoints.beside import beside
from bentofs.store.transfer.endpoints.connected import ConnectedEndpoint
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.display import printable

_PORT = 21


class FtpEndpoint(ConnectedEndpoint[ftplib.FTP]):
    """One FTP server, as one user."""

    can_seek = False  # each range would need a connection

    def __init__(self, location: Location, policy: RetryPolicy, stops: CancelTokens = (), *, tls: bool) -> None:
        for text in (location.user or "", location.password or "", location.path):
            if "\r" in text or "\n" in text:
                raise BadLocationError(f"{location.shown}: FTP cannot take a line break in a name or password")
        super().__init__(location, policy, stops, parameters=["timeout"], answers=(ftplib.error_perm,))
        self._host, self._port = location.host_and_port(_PORT)
        self._tls = tls

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """See `Target.write`."""
        with self._parts.new(path) as part:
            place = self._path(part)
            try:
                self._retries.call(self._at(path), lambda: self._send(place, content, progress), self._stops)
                self._check_size(path, self._run(path, lambda ftp: ftp.size(place)), content)
                self._rename(path, place, content.length)
            except BaseException:
                self._drop()  # ends the transfer that is running on it
                raise

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """See `Target.write_folder`."""
        self.make_folder(path)
        super().write_folder(path, members, progress)

    def make_executable(self, path: str) -> None:
        """Do nothing: FTP has no modes."""

    def look(self, path: str) -> Known:
        """See `Source.look`."""

        def ask(ftp: ftplib.FTP) -> Known:
            ftp.voidcmd("TYPE I")
            size = ftp.size(self._path(path))
            stamp = None
            with suppress(ftplib.error_perm):  # the server does not know the command
                stamp = ftp.sendcmd(f"MDTM {self._path(path)}").partition(" ")[2]  # same form as `modify` in a listing
            return Known(size, stamp)

        return self._run(path, ask)

    def chunks(self, path: str, known: Known) -> Iterator[bytes]:
        """Do what `Source.chunks` does, and resume where a transfer broke off."""
        done = 0
        attempts = self._retries.attempts(self._at(path), self._stops)
        while True:
            try:
                ftp = self._connected()
                ftp.voidcmd("TYPE I")
                with ftp.transfercmd(f"RETR {self._path(path)}", rest=done or None) as stream:
                    while chunk := stream.recv(CHUNK):
                        done += len(chunk)
                        attempts.proceeded()
                        yield chunk
                ftp.voidresp()
                if known.size is not None and done < known.size:
                    raise EOFError(f"it ended after {done} of {known.size} bytes")
                break
            except Exception as error:
                self._drop()
                attempts.failed(error)
                self._compare(path, known)
            except BaseException:
                self._drop()
                raise
        self._compare(path, known)

    def read_at(self, path: str, known: Known, offset: int, size: int) -> bytes:
        """Not supported."""
        raise NotImplementedError

    def read_small(self, path: str, limit: int) -> bytes | None:
        """See `Source.read_small`."""
        taken = bytearray()

        def take(chunk: bytes) -> None:
            taken.extend(chunk)
            if len(taken) > limit:
                raise _TooLongError

        def read(ftp: ftplib.FTP) -> bytes | None:
            taken.clear()
            try:
                ftp.retrbinary(f"RETR {self._path(path)}", take)
            except _TooLongError:
                self._drop()
                return None
            return bytes(taken)

        try:
            return self._run(path, read)
        except RemoteError as error:
            self._drop()
            if isinstance(error.__cause__, ftplib.error_perm):
                return None
            raise

    def remove_folder(self, path: str) -> None:
        """Remove a directory if it is there and empty."""

        def remove(ftp: ftplib.FTP) -> None:
            with suppress(ftplib.error_perm):
                ftp.rmd(self._path(path))

        self._run(path, remove)

    def close(self) -> None:
        """See `Source.close`."""
        if self._open is not None:
            with suppress(Exception):
                self._open.quit()
        super().close()

    def _send(self, place: str, content: Piece, progress: Progress) -> None:
        """Send a file in one attempt. If the server refuses, make the missing directory and send again."""
        ftp = self._connected()
        try:
            self._store(ftp, place, content, progress)
        except ftplib.error_perm:
            self.make_folder(posixpath.dirname(place).lstrip("/"))
            self._store(self._connected(), place, content, progress)

    def _store(self, ftp: ftplib.FTP, place: str, content: Piece, progress: Progress) -> None:
        sent = 0
        body = Body(content)

        def advance(block: bytes) -> None:
            nonlocal sent
            sent += len(block)
            progress(len(block))

        try:
            ftp.storbinary(f"STOR {place}", body, CHUNK, advance)
        except Exception as error:
            self._drop()
            progress(-sent)
            if body.error is not None:
                raise body.error from error
            raise

    def _connect(self) -> ftplib.FTP:
        kind = ftplib.FTP_TLS if self._tls else ftplib.FTP
        ftp = kind(timeout=self._retries.policy.connect_seconds, encoding="utf-8")
        try:
            ftp.connect(self._host, self._port)
            ftp.login(self._location.user or "", self._location.password or "")
            if isinstance(ftp, ftplib.FTP_TLS):
                ftp.prot_p()
            ftp.timeout = self._silence_seconds
            if isinstance(ftp.sock, socket.socket):
                ftp.sock.settimeout(self._silence_seconds)
        except BaseException:
            ftp.close()
            raise
        return ftp

    def _disconnect(self, connection: ftplib.FTP) -> None:
        connection.close()

    def _delete(self, connection: ftplib.FTP, path: str) -> None:
        with suppress(ftplib.error_perm):
            connection.delete(path)

    def _make_folder(self, connection: ftplib.FTP, path: str) -> None:
        with suppress(ftplib.error_perm):  # the directory is there; if not, the first file fails
            connection.mkd(path)

    def _list(self, path: str, folder: str, below: str) -> list[tuple[str, Known | None]]:
        found: list[tuple[str, Known | None]] = []
        for name, facts in self._run(path, lambda ftp: list(ftp.mlsd(folder, ["type", "size", "modify"]))):
            kind = facts.get("type", "").lower()
            if name in (".", "..") or kind in ("cdir", "pdir"):
                continue
            if kind == "dir":
                found.append((name, None))
            elif kind == "file":
                size = int(facts["size"]) if facts.get("size", "").isdigit() else None
                found.append((name, Known(size, facts.get("modify"))))
            else:
                raise UnsafeMemberError(
                    f"{self._at(path).shown} holds {printable(posixpath.join(below, name))!r}, which by its server is "
                    f"neither a file nor a directory ({printable(kind)})"
                )
        return found

    def _rename(self, path: str, place: str, length: int) -> None:
        target, aside = self._path(path), beside(self._path(path))
        is_aside = False

        def rename(ftp: ftplib.FTP) -> None:
            nonlocal is_aside
            try:
                ftp.rename(place, target)
            except ftplib.error_perm:
                if is_aside or ftp.size(place) != length or not _is_file(ftp, target):
                    raise
                # Some servers do not rename over a file, others cannot rename at all. Then the old file must stay.
                ftp.rename(target, aside)
                is_aside = True
                ftp.rename(place, target)

        try:
            self._run(path, rename)
        except BaseException:
            if is_aside:
                with suppress(Exception):
                    self._connected().rename(aside, target)
            raise
        if is_aside:
            self.remove(aside.removeprefix("/"))


def _is_file(ftp: ftplib.FTP, path: str) -> bool:
    try:
        return ftp.size(path) is not None
    except ftplib.error_perm:
        return False


class _TooLongError(Exception):
    """A file is longer than wanted."""
