"""Exceptions of the library. Their text is a sentence for users.

`mount/errors.py` translates them to errno. The command line prints them unchanged.
"""

from __future__ import annotations

import errno


class StoreError(Exception):
    """Base class of all errors that this library raises on purpose."""


class NotFoundError(StoreError):
    """The store has no such model, version or file."""


class BadTagError(StoreError):
    """A text that is not a tag by BentoML's rules."""


class BadModelError(StoreError):
    """A directory cannot be shown as a model: `model.yaml` is missing or malformed, or there are too many entries."""


class UnsafeMemberError(BadModelError):
    """A model holds an entry that no archive may contain: a link that leads out of the model, a device, a cycle."""

    @classmethod
    def in_archive(cls, member: str, why: str) -> UnsafeMemberError:
        """Return the error of an archive with such a member. `why`: a clause that follows the member's name."""
        return cls(f"the archive holds {member!r}, {why}; make the archive without it")


class SourceChangedError(StoreError):
    """A file was changed, replaced or removed after the archive that shows it was laid out."""


class ConditionFailedError(SourceChangedError):
    """A condition of a request to a server failed: the object was changed, or exists already."""


class StoreUnreadableError(StoreError):
    """The store, or a file in it, could not be read: permissions, an I/O error, a missing store."""


class StoreDeniedError(StoreUnreadableError):
    """A directory or file of this machine may not be read. This is permanent, while other StoreUnreadableErrors may be
    temporary: credentials for a server, for example, may just have expired."""


class DamagedArchiveError(StoreError):
    """An archive is truncated, or does not match its own checksums or structure."""

    @classmethod
    def damaged(cls, why: str) -> DamagedArchiveError:
        """Return the error of an archive that cannot be right."""
        return cls(f"the archive is damaged: {why}; copy it again, or make it anew")

    @classmethod
    def cut_short(cls, why: str) -> DamagedArchiveError:
        """Return the error of an archive whose end is missing."""
        return cls(f"the archive is cut short: {why}; copy it again")


class UnwrittenBytesError(DamagedArchiveError):
    """An upload has a length, but some of its bytes never came."""


class AlteredModelError(StoreError):
    """A model's files differ from the recorded SHA-256s."""


class NotAModelError(BadModelError):
    """An import is no model: it is no known archive, has no `model.yaml` in the right place, or has an invalid tag."""


class NotAnArchiveError(NotAModelError):
    """An import is a file of another kind than the archives that bentofs reads."""


class TooBigError(StoreError):
    """An archive has more files, expands to more bytes, or takes more memory than allowed for a model."""


class NoSpaceError(StoreError):
    """There is no space left where the model must be written."""


class ModelExistsError(StoreError):
    """The store has other content under this tag."""


class OtherContentError(ModelExistsError):
    """The store has another complete model under this tag."""


class CancelledError(StoreError):
    """An import was removed before its end, or the mount ends."""


class PostponedError(CancelledError):
    """An import cannot be read while it arrives, only when it is complete."""


class InUseError(StoreError):
    """Another program is still using the files of an import."""


class NoHomeError(StoreError, OSError):
    """There is no place for bentofs's own files: the user has no home directory."""


class StagingError(StoreError):
    """There is no usable staging area from which models can be renamed into the store."""


class StoreUnwritableError(StoreError):
    """The store, or the staging area beside it, could not be written: permissions, an I/O error, a directory in the
    way."""


class MissingFileError(NotFoundError, FileNotFoundError):
    """A path of a `bentofs://` URL does not exist."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.errno = errno.ENOENT


class ReadOnlyError(StoreError, OSError):
    """A program wrote to a `bentofs://` URL."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.errno = errno.EROFS


class BadLocationError(StoreError, ValueError):
    """The target of an export, or the source of an import, is invalid: an unknown protocol or format, or a URL together
    with its parts."""


class RemoteError(StoreUnreadableError):
    """A server, of a store or a transfer, was unreachable, broke off, or answered with an error, after all retries."""


class UnreachableError(RemoteError):
    """A server could not be reached, or broke off, at every attempt."""


class MissingStoreError(RemoteError):
    """There is no store at a location: no bucket, or no directory on a server. It does not mean that models are gone: a
    server may be misconfigured for a while."""


class RemoteDeniedError(RemoteError):
    """A server rejects the credentials, or denies the request."""


class RemoteNotFoundError(RemoteError, NotFoundError):
    """A server has no such object, bucket or file."""


class TargetExistsError(StoreError):
    """An export would have to merge with the files at its target."""


def is_failure(error: StoreError) -> bool:
    """True if the error is no statement about the store's content, only about the access to it: an I/O error, an
    unreachable server."""
    return isinstance(error, StoreUnreadableError) and not isinstance(error, StoreDeniedError)
