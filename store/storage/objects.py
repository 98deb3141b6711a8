"""What a remote store is made of: objects below one prefix, under keys separated by `/`, which have no folders.

Keys are relative to the prefix. Implementations try once and tell by these exceptions what came of it; who retries is
`store.storage.retry`. Everything here may be called from several threads at once.
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
    """One object, as a listing tells of it."""

    key: str
    size: int  # bytes
    etag: str  # opaque: equal for one key only while its bytes are the same; may be empty
    mtime_ns: int


class Listing(NamedTuple):
    """A part of what lies below a prefix."""

    objects: list[ObjectInfo]
    folders: list[str]  # keys without the trailing slash, where the listing does not go into them
    more: str  # what to ask on with; empty at the end


class MissingObjectError(Exception):
    """There is no object of this key."""


class ChangedObjectError(Exception):
    """The object is no longer, or already, what a condition said."""


class DeniedError(Exception):
    """The server knows us and says no, or does not know us. The text is the reason, in its words."""


class TransientError(Exception):
    """It may go well the next time: a timeout, a lost connection, a server that is busy. The text is the reason."""


class RefusedError(Exception):
    """It will not go well the next time either. The text is the reason."""


class MissingBucketError(RefusedError):
    """There is no place for any object."""


def translated(error: Exception, secrets: Iterable[str]) -> Exception:
    """An exception of a library as one of these; those, and our own, as they are."""
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
    """Gives what some work gives, tried again as makes sense (`store.storage.retry.Patience.call`)."""

    def __call__(self, work: Callable[[], _T], /) -> _T: ...


class Objects(Protocol):
    """The objects of one store."""

    @property
    def location(self) -> str:
        """Where they are, to show to a user: without secrets."""

    @property
    def splits(self) -> bool:
        """Whether the `prefix` of `list_objects` may end within a name."""

    def list_objects(self, prefix: str, *, more: str = "") -> Listing:
        """All objects whose key begins with `prefix`, in any order, a page at a time."""

    def list_folder(self, prefix: str, *, more: str = "") -> Listing:
        """What lies directly below `prefix`, which is empty or ends with a slash."""

    def read(self, wanted: ObjectInfo, start: int, end: int) -> bytes | bytearray:
        """The bytes [start, end) of an object, if it still is what the listing told of.

        Raises:
            MissingObjectError, ChangedObjectError, DeniedError, TransientError, RefusedError
        """


@runtime_checkable
class WritableObjects(Objects, Protocol):
    """Objects that can be written, whole or not at all, and only if there are none yet."""

    @property
    def prefix(self) -> str:
        """What stands before each key in the bucket."""

    def put(self, key: str, content: bytes, *, only_new: bool = False, only_if: str = "") -> str:
        """Write a small object; its ETag.

        `only_new`: ChangedObjectError if there is one already; `only_if`: unless there is one with this ETag.
        """

    def put_file(
        self, key: str, content: Content, retry: Retry, *, only_new: bool = False, stops: CancelTokens = ()
    ) -> str:
        """Write an object that may be large; its ETag. Each request that this takes is tried by `retry`. Once one of
        `stops` is set it ends with a CancelledError.

        Raises:
            ChangedObjectError, StoreError: as `put`, `retry` and the content do.
        """

    def end_uploads(self, prefix: str) -> None:
        """Have the server forget what it has of objects below `prefix` whose writing was cut short."""

    def delete(self, keys: list[str]) -> None:
        """Remove objects; those that are not there are none the less gone."""

    def find(self, key: str) -> tuple[ObjectInfo, float]:
        """One object as it is now, and how many seconds ago it was written, both times by the server's clock.

        Raises:
            MissingObjectError and the others.
        """
