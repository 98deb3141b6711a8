"""File systems of fsspec: creating one for a location, and detecting changes of a file by its attributes.

Threading: functions without state. Create file systems only after a fork.
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

# Names of attributes that change with a file's bytes.
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
    """Create the file system of a location, with its credentials and parameters. The instance is not shared.

    The timeouts apply to HTTP, FTP and SFTP. The location's parameters override them.

    Raises:
        ImportError: a package for it is not installed.
        Exception: raised by its library; a TypeError for an unknown parameter.
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
        # Fetch the stored bytes, even from a server that declares a .gz file as Content-Encoding.
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
    """Return a location's path in the notation of its file system."""
    return str(fs._strip_protocol(_url(location)))


def size_of(info: Mapping[str, Any]) -> int | None:
    """Return a file's size in bytes from its attributes; None if unknown."""
    size = info.get("size")
    return None if size is None else int(size)


def version_of(info: Mapping[str, Any]) -> str:
    """Return the attributes that change with a file's content, as far as its file system has any."""
    versions = {name.lower(): _as_text(value) for name, value in info.items() if name.lower() in _VERSIONS and value}
    return json.dumps(versions, sort_keys=True)


def agree(first: str, second: str) -> bool:
    """True if two results of `version_of` agree. A listing may have fewer attributes than a stat."""
    one, other = json.loads(first), json.loads(second)
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _as_text(value: object) -> str:
    """Return an attribute as text. Listings and stats give times in different types."""
    if isinstance(value, datetime):
        value = value.timestamp()
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _url(location: Location) -> str:
    host = location.host
    if location.is_web and location.user is not None:
        host = f"{quote(location.user, '')}:{quote(location.password or '', '')}@{host}"
    return f"{location.protocol}://{host}/{location.path}" if host else f"{location.protocol}://{location.path}"
