"""Paths in a user's home: BentoML's models, and bentofs's own files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from bentofs.store.errors import NoHomeError, NotFoundError


def default_store() -> str:
    """Return $BENTOML_HOME/models, else ~/bentoml/models.

    Raises:
        NotFoundError: the user has no home.
    """
    home = os.environ.get("BENTOML_HOME") or os.path.join(os.path.expanduser("~"), "bentoml")
    if home == "~/bentoml":  # else it would be created in the working directory
        raise NotFoundError("you have no home directory: name a store with --store, or set BENTOML_HOME")
    return os.path.join(home, "models")


def cache_folder() -> Path:
    """Return the directory for data that can be rebuilt.

    Raises:
        NoHomeError: the user has none.
    """
    return _folder(platformdirs.user_cache_dir, "XDG_CACHE_HOME")


def state_folder() -> Path:
    """Return the directory for data that cannot be rebuilt.

    Raises:
        NoHomeError: the user has none.
    """
    return _folder(platformdirs.user_state_dir, "XDG_STATE_HOME")


def _folder(find: Callable[[str], str], variable: str) -> Path:
    try:
        folder = Path(find("bentofs"))
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():  # older releases of platformdirs leave the ~
        raise NoHomeError(f"you have no home directory: set {variable} to a directory of yours")
    return folder
