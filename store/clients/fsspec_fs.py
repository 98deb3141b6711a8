"""Any file system that fsspec knows: how it is made for a location, and what it says that tells one content of a file
from another.

Threading: functions without state. File systems must not be made before a fork.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import fsspec
from fsspec import AbstractFileSystem

from bentofs.store.location import Location

# What file systems call the things that change with a file's bytes.
_VERSIONS = (
    "etag",
    "md5",
    "md5hash",
    "generation",
    "version",
    "mtime",
    "lastmodified",
    "last_modified",
    "last-modified",
    "created",
)


def new_file_system(location: Location, *, connect_seconds: float, silence_seconds: float) -> AbstractFileSystem:
    """The file system of a location, with its credentials and parameters; one that nobody else has.

    The times are heeded by those that are known to take them: web servers, FTP, SFTP. Parameters go before.

    Raises:
        ImportError: a package for it is not installed.
        Exception: what its library raises, a TypeError for a parameter that it does not know.
    """
    if location.protocol in ("sftp", "ssh"):
        from bentofs.store.clients.ssh import KnownHostFileSystem

        return KnownHostFileSystem(
            location=location,
            connect_seconds=connect_seconds,
            silence_seconds=silence_seconds,
            skip_instance_cache=True,
            use_listings_cache=False,
        )
    is_ftp = location.protocol in ("ftp", "ftps")
    kind = fsspec.get_filesystem_class("ftp" if is_ftp else location.protocol)
    options: dict[str, Any] = dict(kind._get_kwargs_from_urls(_url(location)))
    if location.is_web:
        import aiohttp  # s3fs brings it

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=silence_seconds)
        # The bytes as they lie there, also where a server takes .gz for a way to send what is in it.
        identity = {"headers": {"Accept-Encoding": "identity"}, "auto_decompress": False}
        options["client_kwargs"] = {"timeout": timeout, **identity}
    else:
        if is_ftp:
            options |= {"timeout": silence_seconds, "tls": location.protocol == "ftps"}
        if location.user is not None:
            options["username"] = location.user
        if location.password is not None:
            options["password"] = location.password
    options |= location.params
    if is_ftp:
        options["timeout"] = float(options["timeout"])
    return kind(**options, skip_instance_cache=True, use_listings_cache=False)


def path_of(fs: AbstractFileSystem | type[AbstractFileSystem], location: Location) -> str:
    """A location's path, as its file system has it."""
    return str(fs._strip_protocol(_url(location)))


def size_of(info: Mapping[str, Any]) -> int | None:
    """Bytes of a file that a file system tells of; None if it does not know."""
    size = info.get("size")
    return None if size is None else int(size)


def version_of(info: Mapping[str, Any]) -> str:
    """What tells one content of a file from another, as far as its file system says anything of that."""
    versions = {name.lower(): _as_text(value) for name, value in info.items() if name.lower() in _VERSIONS and value}
    return json.dumps(versions, sort_keys=True)


def agree(first: str, second: str) -> bool:
    """Whether two looks at a file (`version_of`) saw the same; listings may tell less than a look at one file."""
    one, other = json.loads(first), json.loads(second)
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _as_text(value: object) -> str:
    """Times look different in listings and in looks at one file."""
    if isinstance(value, datetime):
        value = value.timestamp()
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _url(location: Location) -> str:
    host = location.host
    if location.is_web and location.user is not None:
        host = f"{quote(location.user, '')}:{quote(location.password or '', '')}@{host}"
    return f"{location.protocol}://{host}/{location.path}" if host else f"{location.protocol}://{location.path}"
