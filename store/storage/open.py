"""StoreSpec: the location of a store, a directory of this machine or a URL, and how to open it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bentofs.store.errors import BadLocationError, NotFoundError
from bentofs.store.location import Location
from bentofs.store.paths import default_store
from bentofs.store.storage.base import Storage
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.remote_defaults import DEFAULT_CACHE_SIZE, DEFAULT_PATIENCE, DEFAULT_TTL
from bentofs.store.util.display import printable

if TYPE_CHECKING:
    from bentofs.store.clients.objects import Objects
    from bentofs.store.storage.remote import RemoteStorage

_STORE_VARIABLE = "BENTOFS_STORE"
_CONNECT_SECONDS = 5.0
_LEAST_ATTEMPTS = 3  # that fit into the time a user grants, if the server is silent
_RESPITE = 2.0  # seconds


@dataclass(frozen=True)
class StoreSpec:
    """A store that a user named. Its `repr` and `location` hold no secrets."""

    text: str = field(repr=False)  # as the user wrote it
    where: Location
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # options that are not in the text
    ttl: float = DEFAULT_TTL  # seconds
    cache_size: int = DEFAULT_CACHE_SIZE  # bytes
    patience: float = DEFAULT_PATIENCE  # seconds

    @classmethod
    def named(cls, text: str | None = None, *, options: Mapping[str, Any] | None = None, **settings: Any) -> StoreSpec:
        """Parse the text of a user: a path, or a URL; None for $BENTOFS_STORE, else BentoML's own store.

        `options`: for the file system of a URL, like the parameters in the URL; `settings`: the other fields.

        Raises:
            BadLocationError: the protocol is not known, the URL is malformed, or there are options for a path.
        """
        text = os.environ.get(_STORE_VARIABLE) or default_store() if text is None else text
        where = Location.parse(text)
        if options and where.is_local:
            raise BadLocationError("options for a file system need a store that is a URL")
        where = replace(where, params={**where.params, **(options or {})})
        return cls(text, where, options or {}, **settings)

    @property
    def folder(self) -> str | None:
        """Return the store's directory on this machine; None for a URL."""
        return self.location if self.where.is_local else None

    @property
    def has_page_cache(self) -> bool:
        """Return `Storage.has_page_cache` of the storage that `open` returns."""
        return self.where.is_local and LocalStorage.has_page_cache

    @property
    def absolute_text(self) -> str:
        """Return the text that names the store again, in any working directory. It may hold secrets."""
        return self.text if self.folder is None else self.folder

    @property
    def location(self) -> str:
        """Return an absolute path or a URL, to show."""
        return self.where.url.rstrip("/") or "/"

    def check(self) -> None:
        """Check that a local store exists. Raises NotFoundError if not. A URL is checked when it is opened."""
        if self.folder is not None and not os.path.isdir(self.folder):
            raise NotFoundError(
                f"there is no model store at {printable(self.location)}: save a model with BentoML first, or name a "
                "store with --store"
            )

    def may_be_read(self) -> bool:
        """Return False if this user may not list the store's directory. A URL is checked when it is opened."""
        return self.folder is None or os.access(self.folder, os.R_OK | os.X_OK)

    def may_be_written(self) -> bool:
        """Return False if this user may not write the store's directory. A URL: see `Storage.check_writable`."""
        return self.folder is None or os.access(self.folder, os.W_OK)

    def open(self, *, follow_links: bool = False) -> Storage:
        """Open the storage. Do not call this before a fork.

        Raises:
            NotFoundError: there is no such directory.
            RemoteError, RemoteDeniedError: the server cannot be reached, or denies access.
            BadLocationError: it cannot be a store: a package is missing, or a parameter has no meaning.
        """
        if self.folder is None:
            return self.open_remote()
        self.check()
        return LocalStorage(self.folder, follow_links=follow_links)

    def open_remote(self) -> RemoteStorage:
        """Do what `open` does, for a URL."""
        from bentofs.store.storage.remote import RemoteStorage  # a local store needs none of it

        storage = RemoteStorage(self._objects(), ttl=self.ttl, cache_size=self.cache_size)
        storage.check()
        return storage

    def _objects(self) -> Objects:
        from bentofs.store.clients.error_classes import parameter_reason
        from bentofs.store.clients.retry import RetryPolicy

        attempt_seconds = max(1.0, self.patience / _LEAST_ATTEMPTS)
        policy = RetryPolicy(
            connect_seconds=min(_CONNECT_SECONDS, attempt_seconds),
            silence_seconds=attempt_seconds,
            seconds=self.patience,
            respite=_RESPITE,
        )
        # These modules take long to load, and start threads that do not survive a fork.
        try:
            if self.where.protocol in ("s3", "s3a"):
                from bentofs.store.clients.s3 import S3Objects

                return S3Objects(self.where, policy)
            from bentofs.store.clients.fsspec_files import FsspecFiles

            return FsspecFiles(self.where, policy)
        except ImportError as error:
            raise BadLocationError(f"{self.location} cannot be used as a store: {error}") from None
        except BadLocationError:
            raise
        except (ValueError, TypeError) as error:
            raise BadLocationError(f"{self.location} cannot be used as a store: {parameter_reason(error)}") from None
