"""Objects: the interface of a driver that reads a store. Objects have keys separated by `/`, below one prefix, and no
directories.

Keys are relative to the prefix. All methods retry (`store.clients.retry`), and raise the errors of
`store.clients.error_classes.error_for`. Everything here may be called from several threads at once.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from bentofs.store.clients.request_body import Content
from bentofs.store.util.cancel import CancelTokens


class ObjectInfo(NamedTuple):
    """One object, with the attributes from a listing."""

    key: str
    size: int  # bytes
    etag: str  # opaque: equal for one key only while its bytes are the same; may be empty
    mtime_ns: int


class Listing(NamedTuple):
    """One page of a listing."""

    objects: list[ObjectInfo]
    folders: list[str]  # common prefixes, without the trailing slash, if the listing is not recursive
    more: str  # token for the next page; empty at the end


class Objects(Protocol):
    """The objects of one store."""

    @property
    def location(self) -> str:
        """Return the location, to show to a user: without secrets."""

    @property
    def splits(self) -> bool:
        """True if the `prefix` of `list_objects` may end within a name."""

    @property
    def has_etags(self) -> bool:
        """True if an `etag` that is not empty was given by the server for the content. Otherwise it may be only the
        time of the last change."""

    def list_objects(self, prefix: str, *, more: str = "") -> Listing:
        """List all objects whose key begins with `prefix`, in any order, one page at a time."""

    def list_folder(self, prefix: str, *, more: str = "") -> Listing:
        """List the entries directly below `prefix`, which is empty or ends with a slash."""

    def read(self, wanted: ObjectInfo, start: int, end: int, *, into: bytearray | None = None) -> bytes | bytearray:
        """Read the bytes [start, end) of an object. `into`: a buffer of that size, which may be filled and returned.

        Raises:
            ConditionFailedError: the object has changed since the listing.
            RemoteNotFoundError: it is gone.
        """


@runtime_checkable
class WritableObjects(Objects, Protocol):
    """Objects that can be written. A write is atomic, and can be limited to new keys."""

    @property
    def prefix(self) -> str:
        """Return the prefix of every key in the bucket."""

    def put(self, key: str, content: bytes, *, only_new: bool = False, only_if: str = "") -> str:
        """Write a small object and return its ETag.

        `only_new`: raise ConditionFailedError if the object exists; `only_if`: raise it unless the object has this
        ETag.
        """

    def upload(self, key: str, content: Content, *, only_new: bool = False, stops: CancelTokens = ()) -> str:
        """Write an object that may be large, and return its ETag.

        Raises:
            ConditionFailedError: see `put`.
            CancelledError: one of `stops` is set.
            StoreError: raised by the content.
        """

    def end_uploads(self, prefix: str) -> None:
        """Abort the unfinished uploads of objects below `prefix`, so that the server drops their parts."""

    def delete(self, keys: list[str]) -> None:
        """Delete objects. A missing object is no error."""

    def find(self, key: str) -> tuple[ObjectInfo, float]:
        """Return an object as it is now, and its age in seconds, both by the server's clock.

        Raises:
            RemoteNotFoundError: there is none.
        """
