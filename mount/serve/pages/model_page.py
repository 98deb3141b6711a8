"""Model page: all about one model, and the lines with which to fetch it. No archive is measured for it.

Threading: functions that look at the store; they run in a thread.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from bentofs.mount.serve.pages.listing import Line, lines_of
from bentofs.mount.view.tree import Tree
from bentofs.store.archives.archives import Archives
from bentofs.store.errors import StoreError
from bentofs.store.formats.write.registry import Format
from bentofs.store.model.framework import Framework
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, Model
from bentofs.store.model.tag import Tag

_MOST_YAML = 256 << 10  # bytes that are shown
_MOST_FILES = 100  # that are listed on the page
_FOR_BENTOML = ("bentomodel", "tar.gz", "tar", "zip", "tar.xz", "tar.bz2")  # the best one first


class Archive(NamedTuple):
    """One archive of the model."""

    name: str
    format: str
    size: int | None  # None if it was not measured yet
    sha256: str | None  # None if nobody has asked for it yet


class Command(NamedTuple):
    """Lines to copy into a terminal."""

    title: str
    text: str
    hint: str = ""


class ModelView(NamedTuple):
    """The data of the page."""

    model: Model
    framework: Framework
    is_latest: bool
    versions: list[str]
    archives: list[Archive]
    commands: list[Command]
    yaml: str | None  # None if it cannot be read now
    yaml_is_cut: bool
    files: list[Line]
    more_files: int


def model_view(tree: Tree, tag: Tag, origin: str, *, asks_password: bool) -> ModelView:
    """Return what the page of a model shows; `origin`: the URL of the server, as its visitor writes it.

    Raises:
        NotFoundError: there is no such model.
        StoreError: it cannot be read now.
    """
    model = tree.store.model(tag)
    content = _yaml(tree, tag)
    shown = content[:_MOST_YAML].decode(errors="backslashreplace") if content is not None else None
    archives = [_archive(tree.archives, model, kind) for kind in tree.formats]
    files, count = lines_of(tree, ("models", *tag, "files"), most=_MOST_FILES)
    return ModelView(
        model,
        Framework.of(content or b""),
        tree.store.latest(tag.name) == tag.version,
        tree.store.versions(tag.name),
        archives,
        _commands(tree, tag, origin, asks_password=asks_password),
        shown,
        content is not None and len(content) > _MOST_YAML,
        files,
        count - len(files),
    )


def _yaml(tree: Tree, tag: Tag) -> bytes | None:
    try:
        return tree.store.storage.read_small(f"{tag.path}/{MODEL_YAML}", MAX_MODEL_YAML)
    except StoreError:  # gone, or out of reach for a moment
        return None


def _archive(archives: Archives, model: Model, kind: Format) -> Archive:
    name = model.tag.stem + kind.suffix
    try:
        size = archives.length(model, kind) if archives.is_length_known(model, kind) else None
        return Archive(name, kind.name, size, archives.known_sha256(model, kind))
    except StoreError:  # it was changed just now: the reader of the archive is told
        return Archive(name, kind.name, None, None)


def _commands(tree: Tree, tag: Tag, origin: str, *, asks_password: bool) -> list[Command]:
    kinds = {kind.name: kind for kind in tree.formats}
    best = next((kinds[name] for name in _FOR_BENTOML if name in kinds), None)
    if best is None:
        return []
    name = tag.stem + best.suffix
    url = f"{origin}/models/{tag.path}/{name}"
    user = "-u USER " if asks_password else ""
    hint = "Put your name in place of USER; curl asks for the password." if asks_password else ""
    commands = [
        Command("Download", f"curl -fO {user}{shlex.quote(url)}", hint),
        Command("Check it", f"curl -fsS {user}{shlex.quote(f'{url}.sha256')} | sha256sum -c"),
        Command("Import it into BentoML", f'bentoml models import "$PWD/{name}"', "It needs the whole path."),
    ]
    source = _rsync_source(tree, tag, origin)
    if source is not None:
        store = '"${BENTOML_HOME:-$HOME/bentoml}/models'
        commands.append(
            Command(
                "Straight into your store",
                f'mkdir -p {store}/{tag.name}" && rsync -a {source} {store}/{tag.name}/"',
                "For those who may log in to the server by SSH.",
            )
        )
    return commands


def _rsync_source(tree: Tree, tag: Tag, origin: str) -> str | None:
    """Return the model's directory for rsync; None if there is none, or if its name would need two shells' quotes."""
    if tree.store.storage.folder is None:
        return None
    path = f"{tree.store.storage.location}/{tag.path}"
    host = origin.partition("://")[2]
    host = host[: host.index("]") + 1] if host.startswith("[") else host.partition(":")[0]
    source = f"{host}:{path}"
    return shlex.quote(source) if shlex.quote(path) == path else None
