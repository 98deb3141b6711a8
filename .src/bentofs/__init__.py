"""bentofs: move BentoML's models as archives. This is the public Python API; everything below is internal.

`mount/` and `store/` lie at the top of the repository. The links beside this file make them `bentofs.mount` and
`bentofs.store` for every tool that reads source: the interpreter, mypy, pytest, import-linter, editors.

Names are imported when they are first used: the commands import this package, and need little of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from bentofs.store.integrity.verify import VerifyOutcome, VerifyReport
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


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.endswith("Error"):
        module = "bentofs.store.errors"
    elif name.startswith("Verify"):
        module = "bentofs.store.integrity.verify"
    elif name == "Tag":
        module = "bentofs.store.model.tag"
    else:
        module = "bentofs.store.api"
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
