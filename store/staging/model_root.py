"""The place of the model in a staged tree: at the top, or in its only top directory."""

from __future__ import annotations

import itertools
import os

from bentofs.store.errors import BadModelError, NotAModelError
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML
from bentofs.store.staging.tree import READ_FILE, StagedTree
from bentofs.store.util.display import printable
from bentofs.store.util.fs import writing

_BENTO_YAML = "bento.yaml"
_MACS_OWN = ("__MACOSX", "._")  # prefixes of names that a Mac packs beside the chosen directory: in zips, and in tars


def find_top(tree: StagedTree) -> str:
    """Return the model's directory: "" or the only top directory."""
    if tree.has_file(MODEL_YAML):
        return ""
    if tree.has_file(_BENTO_YAML):
        raise NotAModelError("this is a Bento, not a model: import it with `bentoml import`")
    with os.scandir(tree.root) as entries:
        names = list(itertools.islice((each.name for each in entries if not each.name.startswith(_MACS_OWN)), 2))
    if len(names) == 1 and tree.has_file(f"{names[0]}/{MODEL_YAML}"):
        return names[0]
    if len(names) == 1 and tree.has_file(f"{names[0]}/{_BENTO_YAML}"):
        raise NotAModelError("this is a Bento, not a model: import it with `bentoml import`")
    raise NotAModelError("the archive holds no model: model.yaml must lie at its top, or in its only top directory")


def read_model_yaml(tree: StagedTree, path: str) -> bytes:
    """Return the content of a `model.yaml` in the tree.

    Raises:
        BadModelError: it is too large.
    """
    with writing(path), os.fdopen(os.open(path, READ_FILE, dir_fd=tree.root), "rb") as file:
        content = file.read(MAX_MODEL_YAML + 1)
    if len(content) > MAX_MODEL_YAML:
        raise BadModelError(f"{printable(path)!r} is larger than {MAX_MODEL_YAML:,} bytes: make it smaller")
    return content
