"""Locations: parse BentoML's arguments for the target of an export, or the source of an import.

The rules come from `bentoml/_internal/exportable.py`: a URL, or a path with `protocol`, `user`, `passwd`, `params` and
`subpath`, but not both. Differences: a relative path is relative to the working directory, user and password are
unquoted, a `#` belongs to the path, and an error lists the known protocols.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from bentofs.store.errors import BadLocationError
from bentofs.store.util.display import printable
from bentofs.store.util.names import portable_name
from bentofs.store.util.urls import is_url, without_secrets

_LOCAL = (
    "file",
    "local",
    "osfs",
    "tar",
    "zip",
)  # BentoML treats the last three like the first, since it used PyFilesystem once
_S3 = ("s3", "s3a")
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_HARMLESS = (
    "acl",
    "anon",
    "cache-control",
    "connect_timeout",
    "endpoint_url",
    "identity",
    "known_hosts",
    "profile",
    "read_timeout",
    "region",
    "region_name",
    "storage-class",
    "timeout",
)


@dataclass(frozen=True)
class Location:
    """A place to write bytes to or read bytes from. Its `repr` shows no secrets."""

    protocol: str  # "file" for this machine
    host: str  # host with port, or bucket; "" for this machine
    path: str  # on a server, without a leading slash; on this machine, absolute
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)  # mostly strings; else JSON values

    @property
    def is_local(self) -> bool:
        return self.protocol == "file"

    @property
    def is_web(self) -> bool:
        """True if the parameters of a URL are meant for the server, and stay in the path."""
        return self.protocol in ("http", "https")

    @property
    def is_folder(self) -> bool:
        """True if the path is empty or ends with a slash, or is a directory on this machine."""
        return not self.path or self.path.endswith("/") or (self.is_local and os.path.isdir(self.path))

    @property
    def name(self) -> str:
        """Return the last name of the path, as written in checksum files (`store.util.names`)."""
        name = self.path.rpartition("/")[2]
        return portable_name(name) if self.is_local else name

    @property
    def url(self) -> str:
        """Return the URL without user, password and parameters; on this machine, the path."""
        if self.is_local:
            return self.path
        return f"{self.protocol}://{self.host}/{self.path.partition('?')[0] if self.is_web else self.path}"

    @property
    def shown(self) -> str:
        """Return the URL as shown to users."""
        return printable(self.url)

    @property
    def secrets(self) -> list[str]:
        """Return the secrets: the password, all strings in parameters that are not known to be harmless, and for S3 the
        environment's."""
        texts = [self.password or ""]
        if self.is_web:
            query = self.path.partition("?")[2]
            texts += [query, *(value for _, value in parse_qsl(query))]
        for key, value in self.params.items():
            if key not in _HARMLESS:
                texts += _texts_in(value)
        if self.protocol in _S3:
            texts += [os.environ.get(name, "").strip() for name in _SECRET_VARIABLES]
        return [text for text in texts if text]

    def host_and_port(self, default: int) -> tuple[str, int]:
        """Return host and port, without brackets around an IPv6 address. `default`: the port if none is named.

        Raises:
            BadLocationError: the port is invalid.
        """
        host, colon, port = self.host.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = self.host, str(default)
        if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
            raise BadLocationError(f"{self.shown}: {printable(port)!r} is not a port number")
        return host.strip("[]"), int(port)

    def refuse_parameters_except(self, known: Sequence[str]) -> None:
        """Raise BadLocationError if there is an unknown parameter, for example a misspelt one."""
        unknown = sorted(self.params.keys() - set(known))
        if unknown:
            there_are = f"there {'are' if len(known) > 1 else 'is'} {', '.join(known)}"
            raise BadLocationError(f"{self.shown}: there is no parameter {printable(unknown[0])!r}; {there_are}")

    def at(self, path: str) -> Location:
        """Return the location of another path on the same host."""
        return replace(self, path=path)

    def below(self, name: str) -> Location:
        """Return the location of a name in this directory."""
        return self.at(f"{self.path.rstrip('/')}/{name}" if self.path.strip("/") else f"{self.path}{name}")

    @classmethod
    def parse(
        cls,
        path: str,
        *,
        protocol: str | None = None,
        user: str | None = None,
        passwd: str | None = None,
        params: Mapping[str, str] | None = None,
        subpath: str | None = None,
    ) -> Location:
        """Parse BentoML's arguments.

        Raises:
            BadLocationError: URL and parts are mixed, the protocol is not known, the URL is malformed, or the name is
                not UTF-8, as names on servers must be.
        """
        location = cls._parsed(path, protocol=protocol, user=user, passwd=passwd, params=params, subpath=subpath)
        if not location.is_local:
            try:
                f"{location.host}/{location.path}".encode()
            except UnicodeEncodeError:
                raise BadLocationError(f"{location.shown} is not UTF-8, as names on servers are") from None
        return location

    @classmethod
    def _parsed(
        cls,
        path: str,
        *,
        protocol: str | None,
        user: str | None,
        passwd: str | None,
        params: Mapping[str, str] | None,
        subpath: str | None,
    ) -> Location:
        if is_url(path):
            if any(part is not None for part in (protocol, user, passwd, params, subpath)):
                raise BadLocationError(
                    f"{without_secrets(path)} is a URL: protocol, user, password, parameters and subpath belong into "
                    "it, or else all apart from it"
                )
            return cls._of_url(path)
        protocol = _known(protocol or "file")
        if protocol == "file":
            if user is not None or passwd is not None:
                raise BadLocationError("a path on this machine takes no user and no password")
            local = os.path.join(path, subpath) if subpath else path
            if not local:
                raise BadLocationError("the path is empty")
            return cls("file", "", _absolute(local))
        if subpath is None:
            path, _, subpath = path.partition("/")
        host = path.strip("/")
        _refuse_no_host(protocol, host)
        return cls(protocol, host, subpath.lstrip("/"), user, passwd, dict(params or {}))

    @classmethod
    def _of_url(cls, url: str) -> Location:
        # No protocol gives `#` a meaning. So it belongs to the path, but urlsplit would cut it off.
        try:
            parts = urlsplit(url, allow_fragments=False)
        except ValueError:  # its text may hold a part of a password
            raise BadLocationError(
                f"{without_secrets(url)} is not a URL: its host is invalid, or special characters in its user or "
                "password are not percent-encoded"
            ) from None
        protocol = _known(url.partition("://")[0].lower())
        if protocol == "file":
            if parts.netloc not in ("", "localhost"):
                raise BadLocationError(
                    f"{without_secrets(url)} names a host: a file of this machine is file:///{parts.netloc}..."
                )
            return cls("file", "", _absolute(url.partition("://")[2].removeprefix("localhost")))
        if any(char in url for char in "\t\r\n"):  # urlsplit would drop them, and name another file
            raise BadLocationError(
                f"{without_secrets(url)} is not a URL: a tab or a line break can only be in a path that is given apart "
                "from the protocol"
            )
        credentials, _, host = parts.netloc.rpartition("@")
        user, colon, password = credentials.partition(":")
        _refuse_no_host(protocol, host)
        port = host.rpartition("]")[2].partition(":")[2]
        # The host is not shown: it may be the beginning of a password.
        if (port and not port.isdigit()) or url.partition("://")[2].startswith(f"{parts.netloc}#"):
            raise BadLocationError(
                f"{protocol}://... is not a URL: special characters in its user or password must be percent-encoded"
            )
        path, params = parts.path.removeprefix("/"), dict(parse_qsl(parts.query, keep_blank_values=True))
        if protocol in ("http", "https") and parts.query:
            path, params = f"{path}?{parts.query}", {}
        return cls(protocol, host, path, unquote(user) or None, unquote(password) if colon else None, params)


def _texts_in(value: object) -> Iterator[str]:
    """Yield all strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts_in(inner)


def _known(protocol: str) -> str:
    if protocol in _LOCAL:
        return "file"
    if protocol in _S3:
        return protocol
    from fsspec.registry import known_implementations  # slow to load, and most places are local or in S3

    known = {*known_implementations, "ftps"}
    if protocol not in known:
        names = ", ".join(sorted(known))
        raise BadLocationError(f"{printable(protocol)!r} is not a known protocol: choose from {names}")
    return protocol


def _refuse_no_host(protocol: str, host: str) -> None:
    if not host and protocol in ("s3", "s3a", "ftp", "ftps", "sftp", "ssh", "gs", "gcs", "http", "https"):
        raise BadLocationError(f"{protocol}:// needs a host or a bucket: {protocol}://HOST/PATH")


def _absolute(path: str) -> str:
    """Return an absolute path. A slash at the end marks a directory, and stays."""
    slash = "/" if path.endswith("/") else ""
    return os.path.abspath(path).rstrip("/") + slash or "/"
