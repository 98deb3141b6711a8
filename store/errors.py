"""What can go wrong in a store, as exceptions whose text is the sentence that a user reads.

`mount/errors.py` translates them to errno; the command line prints them as they are.
"""


class StoreError(Exception):
    """Base of everything that this library raises on purpose."""

    of_model = False  # whether it is about what is coming in, and a `model.yaml` was read from that before


class NotFoundError(StoreError):
    """No such model, version, or file in the store."""


class BadTagError(StoreError):
    """A text that is not a tag by BentoML's rules."""


class BadModelError(StoreError):
    """A folder that cannot be shown as a model: `model.yaml` is missing or malformed, or too much lies in it."""


class UnsafeMemberError(BadModelError):
    """A model holds something that no archive may carry: a link that leads out of it, a device, a cycle."""


class SourceChangedError(StoreError):
    """A file was changed, replaced or removed after the archive that shows it was laid out."""


class StoreUnreadableError(StoreError):
    """The store, or a file in it, could not be read: permissions, an I/O error, a store that is not there."""


class StoreDeniedError(StoreUnreadableError):
    """A folder or file of this machine may not be read: that is so for good, where other reasons say nothing of what is
    there. Credentials for a server may just have expired."""


class DamagedArchiveError(StoreError):
    """An archive that is cut short, or whose bytes do not agree with its own checksums and structure."""


class AlteredModelError(StoreError):
    """A model's files are not what was recorded of them."""


class NotAModelError(BadModelError):
    """What came in holds no model: no archive that is known, no `model.yaml` where one belongs, a tag no model has."""


class TooBigError(StoreError):
    """An archive holds more files, expands further, or takes more memory than a model may."""


class NoSpaceError(StoreError):
    """There is no room left where the model must be written."""


class ModelExistsError(StoreError):
    """The store has something else under this tag."""


class OtherContentError(ModelExistsError):
    """What is there under the tag is a whole model, and another one."""


class CancelledError(StoreError):
    """What was coming in was removed before its end, or the mount ends."""


class PostponedError(CancelledError):
    """What is coming in cannot be read while it comes, but when all of it is there."""


class InUseError(StoreError):
    """Another program is at work on what is to come in."""


class NoHomeError(StoreError, OSError):
    """There is no place for what bentofs itself keeps: the user has no home directory."""


class StagingError(StoreError):
    """There is no place to stage models in from which a rename leads into the store."""


class StoreUnwritableError(StoreError):
    """The store, or the staging area beside it, could not be written: permissions, an I/O error, a folder in the
    way."""


class BadLocationError(StoreError, ValueError):
    """The target of an export, or the source of an import, that means nothing: an unknown protocol or format, a URL
    together with its parts."""


class RemoteError(StoreUnreadableError):
    """A server, of a store or of a transfer, could not be reached, broke off, or answered an error, after all tries."""


class MissingStoreError(RemoteError):
    """There is no store where one was named: no bucket, no folder on a server. Nobody takes that for models that are
    gone: a server may be set up wrongly for a while."""


class RemoteDeniedError(RemoteError):
    """A server does not take the credentials, or does not allow what was asked."""


class RemoteNotFoundError(RemoteError, NotFoundError):
    """There is no such object, bucket or file on a server."""


class TargetExistsError(StoreError):
    """An export would have to mix with what stands at its target."""


def is_failure(error: StoreError) -> bool:
    """Whether it says nothing of what is there, only that this cannot be told now: an I/O error, a server that is
    away."""
    return isinstance(error, StoreUnreadableError) and not isinstance(error, StoreDeniedError)
