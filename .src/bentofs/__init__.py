"""bentofs: move BentoML's models as archives. This is the public Python API; everything below is internal.

`mount/` and `store/` lie at the top of the repository. The links beside this file make them `bentofs.mount` and
`bentofs.store` for every tool that reads source: the interpreter, mypy, pytest, import-linter, editors.
"""

from bentofs.store.api import Store, StoredModel, export_model, import_model
from bentofs.store.errors import (
    AlteredModelError,
    BadLocationError,
    BadModelError,
    BadTagError,
    CancelledError,
    DamagedArchiveError,
    ModelExistsError,
    NoSpaceError,
    NotAModelError,
    NotFoundError,
    RemoteDeniedError,
    RemoteError,
    SourceChangedError,
    StagingError,
    StoreError,
    StoreUnreadableError,
    StoreUnwritableError,
    TargetExistsError,
    TooBigError,
    UnsafeMemberError,
)
from bentofs.store.integrity.verify import Outcome as VerifyOutcome
from bentofs.store.integrity.verify import Report as VerifyReport
from bentofs.store.model.tag import Tag

__all__ = [
    "AlteredModelError",
    "BadLocationError",
    "BadModelError",
    "BadTagError",
    "CancelledError",
    "DamagedArchiveError",
    "ModelExistsError",
    "NoSpaceError",
    "NotAModelError",
    "NotFoundError",
    "RemoteDeniedError",
    "RemoteError",
    "SourceChangedError",
    "StagingError",
    "Store",
    "StoreError",
    "StoreUnreadableError",
    "StoreUnwritableError",
    "StoredModel",
    "Tag",
    "TargetExistsError",
    "TooBigError",
    "UnsafeMemberError",
    "VerifyOutcome",
    "VerifyReport",
    "export_model",
    "import_model",
]
