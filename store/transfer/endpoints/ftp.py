"""FTP, plain or over TLS (RFC 959, 2228, 3659), by ftplib: written to a name beside, compared by size, and renamed.

Threading: same as `Endpoint`; one connection.
"""

from __future__ import annotations

import ftplib
import posixpath
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from bentofs.store.clients.request_body import Body
from bentofs.store.errors import BadLocationError, RemoteError, SourceChangedError, UnsafeMemberError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.base import CHUNK, Known, Progress, write_files
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

_PORT = 21

Result = TypeVar("Result")


class FtpEndpoint:
    """One FTP server, as one user."""

    can_seek = False  # each range would need a connection

    def __init__(self, location: Location, stops: CancelTokens = (), *, tls: bool) -> None:
        for text in (location.user or "", location.password or "", location.path):
            if "\r" in text or "\n" in text:
                raise BadLocationError(f"{location.shown}: FTP cannot take a line break in a name or password")
        location.refuse_parameters_except(["timeout"])
        self._location = location
        self._stops = stops
        self._host, self._port = location.host_and_port(_PORT)
        self._tls = tls
        self._silence_seconds = float(location.params.get("timeout", SILENCE_SECONDS))
        self._was_connected = False
        self._parts = RemoteParts(location, self._remove_now)
        self._connection: ftplib.FTP | None = None

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """See `Target.write`."""
        with self._parts.new(path) as part:
            self._send(path, self._path(part), content, progress)

    def _send(self, path: str, place: str, content: Piece, progress: Progress) -> None:
        begun = has_folder = False
        try:
            for number in range(1, TRIES + 1):
                sent = 0
                body = Body(content)

                def tell(block: bytes) -> None:
                    nonlocal sent
                    sent += len(block)
                    progress(len(block))

                try:
                    ftp = self._ftp()
                    begun = True
                    ftp.storbinary(f"STOR {place}", body, CHUNK, tell)
                    break
                except Exception as error:
                    progress(-sent)
                    self._drop()
                    if body.error is not None:
                        raise body.error from error
                    if begun and isinstance(error, ftplib.error_perm) and not has_folder and number < TRIES:
                        self._make_folders(posixpath.dirname(place))
                        has_folder = True
                        continue
                    if number == TRIES or not may_pass(error):
                        raise sentence_for(error, self._at(path)) from error
                    pause(number, error, self._at(path), self._stops)
            size = self._run(path, lambda ftp: ftp.size(place))
            if size != content.length:
                raise RemoteError(f"{self._at(path).shown}: {size} bytes arrived of {content.length}")
            self._rename(path, place, content.length)
        except BaseException:
            self._drop()  # ends the transfer that is running on it
            raise

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """See `Target.write_folder`."""
        self._make_folders(self._path(path).rstrip("/"))
        write_files(self, self._at(path), members, progress)

    def make_folder(self, path: str) -> None:
        """Make a folder."""
        self._make_folders(self._path(path))

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
        done = tries = 0
        while True:
            try:
                ftp = self._ftp()
                ftp.voidcmd("TYPE I")
                with ftp.transfercmd(f"RETR {self._path(path)}", rest=done or None) as stream:
                    while chunk := stream.recv(CHUNK):
                        done += len(chunk)
                        tries = 0
                        yield chunk
                ftp.voidresp()
                if known.size is not None and done < known.size:
                    raise EOFError(f"it ended after {done} of {known.size} bytes")
                break
            except Exception as error:
                self._drop()
                tries += 1
                if tries == TRIES or not may_pass(error):
                    raise sentence_for(error, self._at(path)) from error
                pause(tries, error, self._at(path), self._stops)
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

        def read(ftp: ftplib.FTP) -> None:
            taken.clear()
            ftp.retrbinary(f"RETR {self._path(path)}", take)

        try:
            self._run(path, read)
        except RemoteError as error:
            self._drop()
            if isinstance(error.__cause__, ftplib.error_perm):
                return None
            raise
        except _TooLongError:
            self._drop()
            return None
        return bytes(taken)

    def find(self, path: str) -> Iterator[tuple[str, Known | None]]:
        """See `Source.find`."""
        base = self._path(path).rstrip("/") or "/"
        waiting = [""]
        while waiting:
            below = waiting.pop()
            folder = posixpath.join(base, below)
            for name, kind, size, modified in self._list(path, folder):
                inner = posixpath.join(below, name)
                if kind == "dir":
                    waiting.append(inner)
                    yield inner, None
                elif kind == "file":
                    yield inner, Known(size, modified)
                elif kind not in ("cdir", "pdir"):
                    raise UnsafeMemberError(
                        f"{self._at(path).shown} holds {printable(inner)!r}, which by its server is no file or folder "
                        f"({printable(kind)})"
                    )

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""

        def delete(ftp: ftplib.FTP) -> None:
            with suppress(ftplib.error_perm):
                ftp.delete(self._path(path))

        self._run(path, delete)

    def _remove_now(self, path: str) -> None:
        """Remove a file if it is there, with one try. Its export has failed, or it belongs to another export."""
        if self._was_connected:
            with told(self._at(path)), suppress(ftplib.error_perm):
                self._ftp().delete(self._path(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it is there and empty."""

        def remove(ftp: ftplib.FTP) -> None:
            with suppress(ftplib.error_perm):
                ftp.rmd(self._path(path))

        self._run(path, remove)

    def close(self) -> None:
        """See `Source.close`."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.quit()
        self._drop()

    def _ftp(self) -> ftplib.FTP:
        """Return the connection. Make it if there is none."""
        if self._connection is None:
            kind = ftplib.FTP_TLS if self._tls else ftplib.FTP
            ftp = kind(timeout=CONNECT_SECONDS, encoding="utf-8")
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
            self._connection = ftp
            self._was_connected = True
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, path: str, action: Callable[[ftplib.FTP], Result]) -> Result:
        def once() -> Result:
            try:
                return action(self._ftp())
            except ftplib.error_perm:
                raise
            except Exception:
                self._drop()
                raise

        return retry(once, self._at(path), self._stops)

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
                    self._ftp().rename(aside, target)
            raise
        if is_aside:
            self.remove(aside.removeprefix("/"))

    def _make_folders(self, path: str) -> None:
        def make(ftp: ftplib.FTP) -> None:
            for end in [at for at, char in enumerate(path) if char == "/" and at] + [len(path)]:
                with suppress(ftplib.error_perm):  # the folder is there; if not, the first file fails
                    ftp.mkd(path[:end])

        self._run(path, make)

    def _list(self, path: str, folder: str) -> list[tuple[str, str, int | None, str | None]]:
        def read(ftp: ftplib.FTP) -> list[tuple[str, str, int | None, str | None]]:
            found = []
            for name, facts in ftp.mlsd(folder, ["type", "size", "modify"]):
                if name not in (".", ".."):
                    size = int(facts["size"]) if facts.get("size", "").isdigit() else None
                    found.append((name, facts.get("type", "").lower(), size, facts.get("modify")))
            return found

        return self._run(path, read)

    def _compare(self, path: str, known: Known) -> None:
        if self.look(path) != known:
            raise SourceChangedError(f"{self._at(path).shown} was replaced while it was read: start again")

    def _path(self, path: str) -> str:
        return f"/{path}"

    def _at(self, path: str) -> Location:
        return self._location.at(path)


def _is_file(ftp: ftplib.FTP, path: str) -> bool:
    try:
        return ftp.size(path) is not None
    except ftplib.error_perm:
        return False


class _TooLongError(Exception):
    """A file is longer than wanted."""
