"""Where a store is: a folder of this machine, or a URL; and how to get to it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from store.errors import StoreUnreadableError
from store.storage.base import Storage
from store.storage.local import LocalStorage
from store.storage.patience import Patience
from store.storage.remote import DEFAULT_CACHE_SIZE, DEFAULT_PATIENCE, DEFAULT_TTL, RemoteStorage

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LOCAL = ("file", "local")
_QUOTED = {"username", "password"}  # of what fsspec takes from a URL as it stands there


@dataclass(frozen=True)
class Place:
    """A store that was named by a user. Its text, as everything that is shown of it, holds no secrets."""

    text: str = field(repr=False)  # an absolute path, or a URL
    options: dict[str, Any] = field(default_factory=dict, repr=False)  # for fsspec
    ttl: float = DEFAULT_TTL  # seconds
    cache_size: int = DEFAULT_CACHE_SIZE  # bytes
    patience: float = DEFAULT_PATIENCE  # seconds

    @classmethod
    def named(cls, text: str, **settings: Any) -> Place:
        """What a user wrote: a path, or a URL; `settings`: the other fields."""
        if _URL.match(text):
            parts = urlsplit(text)
            if parts.scheme.lower() not in _LOCAL:
                return cls(text.rstrip("/"), **settings)
            text = parts.path or "/"
        return cls(os.path.abspath(text), **settings)

    @property
    def is_remote(self) -> bool:
        return _URL.match(self.text) is not None

    @property
    def location(self) -> str:
        """To show."""
        return without_secrets(self.text) if self.is_remote else self.text

    def open(self, *, follow_links: bool = False) -> Storage:
        """The storage there. Not before a fork.

        Raises:
            StoreUnreadableError: there is no getting to it. A local folder is looked at only later.
        """
        return self.open_remote() if self.is_remote else LocalStorage(self.text, follow_links=follow_links)

    def open_remote(self) -> RemoteStorage:
        """As `open`, of a URL."""
        patience = Patience(self.location, self.patience)
        storage = RemoteStorage(self._objects(patience), patience, ttl=self.ttl, cache_size=self.cache_size)
        storage.check()
        return storage

    def _objects(self, patience: Patience) -> Any:
        import fsspec  # takes long, and starts what does not survive a fork

        scheme = urlsplit(self.text).scheme.lower()
        try:
            kind = fsspec.get_filesystem_class(scheme)
            path = kind._strip_protocol(self.text)
            options = {**kind._get_kwargs_from_urls(self.text), **self.options}
            for name in _QUOTED & options.keys():
                if options[name] is not None:
                    options[name] = unquote(options[name])
            if scheme in ("s3", "s3a"):
                if "@" in urlsplit(self.text).netloc:
                    raise ValueError("credentials for S3 belong in the environment, or in ~/.aws/credentials")
                from store.storage.s3 import S3Objects

                return S3Objects(self.location, path, options, patience.attempt_seconds)
            from store.storage.anywhere import AnyObjects

            return AnyObjects(self.location, path, kind, options, patience.attempt_seconds)
        except (ValueError, ImportError, TypeError) as error:
            raise StoreUnreadableError(f"{self.location} cannot be used as a store: {error}") from None


def without_secrets(url: str) -> str:
    """A URL as it may be shown: without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
