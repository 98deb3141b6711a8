"""Objects: the interface to a remote store. Objects have keys separated by `/`, below one prefix, and no directories.

Keys are relative to the prefix. Implementations try once and raise one of these exceptions on failure.
`store.storage.retry` retries. Everything here may be called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from bentofs.store.clients.error_classes import Failure, failure_of, reason_of
from bentofs.store.clients.request_body import Content
from bentofs.store.errors import StoreError
from bentofs.store.util.cancel import CancelTokens

_T = TypeVar("_T")


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


class MissingObjectError(Exception):
    """There is no object of this key."""


class ChangedObjectError(Exception):
    """A condition of the request failed: the object was changed, or exists already."""


class DeniedError(Exception):
    """The server denies access, or rejects the credentials. The text is the server's reason."""


class TransientError(Exception):
    """A retry may succeed: a timeout, a lost connection, a busy server. The text is the reason."""


class RefusedError(Exception):
    """A retry will fail, too. The text is the reason."""


class MissingBucketError(RefusedError):
    """There is no such bucket."""


def translated(error: Exception, secrets: Iterable[str]) -> Exception:
    """Translate a library's exception into one of these. Return these, and StoreErrors, unchanged."""
    if isinstance(
        error, (MissingObjectError, ChangedObjectError, DeniedError, TransientError, RefusedError, StoreError)
    ):
        return error
    kind = failure_of(error)
    if kind is Failure.MISSING:
        return MissingObjectError()
    if kind is Failure.CHANGED:
        return ChangedObjectError()
    reason = reason_of(error, secrets)
    if kind is Failure.DENIED:
        return DeniedError(reason)
    return TransientError(reason) if kind is Failure.PASSING else RefusedError(reason)


class Retry(Protocol):
    """Calls a function, with retries, and returns its result (`store.storage.retry.Patience.call`)."""

    def __call__(self, work: Callable[[], _T], /) -> _T: ...


class Objects(Protocol):
    """The objects of one store."""

    @property
    def location(self) -> str:
        """Return the location, to show to a user: without secrets."""

    @property
    def splits(self) -> bool:
        """True if the `prefix` of `list_objects` may end within a name."""

    def list_objects(self, prefix: str, *, more: str = "") -> Listing:
        """List all objects whose key begins with `prefix`, in any order, one page at a time."""

    def list_folder(self, prefix: str, *, more: str = "") -> Listing:
        """List the entries directly below `prefix`, which is empty or ends with a slash."""

    def read(self, wanted: ObjectInfo, start: int, end: int) -> bytes | bytearray:
        """Read the bytes [start, end) of an object, if it is unchanged since the listing.

        Raises:
            MissingObjectError, ChangedObjectError, DeniedError, TransientError, RefusedError
        """


@runtime_checkable
class WritableObjects(Objects, Protocol):
    """Objects that can be written. A write is atomic, and can be limited to new keys."""

    @property
    def prefix(self) -> str:
        """Return the prefix of every key in the bucket."""

    def put(self, key: str, content: bytes, *, only_new: bool = False, only_if: str = "") -> str:
        """Write a small object and return its ETag.

        `only_new`: raise ChangedObjectError if the object exists; `only_if`: raise it unless the object has this ETag.
        """

    def put_file(
        self, key: str, content: Content, retry: Retry, *, only_new: bool = False, stops: CancelTokens = ()
    ) -> str:
        """Write an object that may be large, and return its ETag. `retry` makes each request. Once one of `stops` is
        set, it raises CancelledError.

        Raises:
            ChangedObjectError, StoreError: raised by `put`, by `retry` or by the content.
        """

    def end_uploads(self, prefix: str) -> None:
        """Abort the unfinished uploads of objects below `prefix`, so that the server drops their parts."""

    def delete(self, keys: list[str]) -> None:
        """Delete objects. A missing object is no error."""

    def find(self, key: str) -> tuple[ObjectInfo, float]:
        """Return an object as it is now, and its age in seconds, both by the server's clock.

        Raises:
            MissingObjectError and the others.
        """
