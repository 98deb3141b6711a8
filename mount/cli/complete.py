"""Complete arguments and options in a shell: tags, formats, mountpoints. A function returns nothing if it fails: a user
who presses Tab wants no error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from bentofs.mount.cli.config import load
from bentofs.mount.errors import ConfigError
from bentofs.mount.kernel.mount_table import our_mounts
from bentofs.store.errors import StoreError

if TYPE_CHECKING:
    from bentofs.store.catalog.catalog import ModelStore

_SECONDS = 3.0  # how long a store that is a URL may take to answer
_FEW = 50  # names; if more match, their versions are not looked up

Items = list[CompletionItem[str]]


def complete_tag(context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the tags of the command's store. If there are many, return names first, then the versions of a name."""
    with suppress(Exception):
        return [CompletionItem(tag) for tag in _tags(context, incomplete)]
    return []


def complete_name(context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the names of the command's store; the tags of a name that is written already."""
    with suppress(Exception):
        if ":" in incomplete:
            return [CompletionItem(tag) for tag in _tags(context, incomplete)]
        return [CompletionItem(name) for name in _models(context).names() if name.startswith(incomplete)]
    return []


def complete_tag_or_path(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Return tags; if none matches, let the shell complete a file name."""
    return complete_tag(context, parameter, incomplete) or [CompletionItem(incomplete, type="file")]


def complete_mountpoint(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Return the mounts of bentofs; if none matches, let the shell complete a directory."""
    with suppress(OSError):
        here = os.path.join(os.getcwd(), "")
        paths = [mount.path for mount in our_mounts()]
        paths += [path.removeprefix(here) for path in paths if path.startswith(here)]
        found = [CompletionItem(path) for path in sorted(paths) if path.startswith(incomplete)]
        if found:
            return found
    return complete_directory(context, parameter, incomplete)


def complete_mount(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Return the named mounts of the configuration file; if none matches, let the shell complete a directory."""
    with suppress(StoreError, ConfigError):
        found = [CompletionItem(name) for name in sorted(load().mounts) if name.startswith(incomplete)]
        if found:
            return found
    return complete_directory(context, parameter, incomplete)


def complete_directory(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Let the shell complete a directory."""
    return [CompletionItem(incomplete, type="dir")]


def complete_file(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Let the shell complete a file or directory."""
    return [CompletionItem(incomplete, type="file")]


def complete_word(words: Iterable[str]) -> Callable[[click.Context, click.Parameter, str], Items]:
    """Return a function that completes one of these words."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    return complete


def complete_list_of(words: Iterable[str], incomplete: str) -> Items:
    """Return a list, separated by commas, with its last word completed. No word comes twice."""
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [CompletionItem(f"{before}{comma}{word}") for word in words if word.startswith(last) and word not in given]


def _tags(context: click.Context, incomplete: str) -> list[str]:
    models = _models(context)
    name, colon, _ = incomplete.partition(":")
    if colon:
        names = [name]
    else:
        names = [known for known in models.names() if known.startswith(name)]
        if len(names) > _FEW:
            return names
    tags = [f"{known}:{version}" for known in names for version in models.versions(known)]
    return [tag for tag in tags if tag.startswith(incomplete)]


def _models(context: click.Context) -> ModelStore:
    """Open the store that the command line names so far."""
    from bentofs.store.catalog.catalog import ModelStore  # they take long to load, and most completions need no store
    from bentofs.store.storage.open import StoreSpec

    options = dict(context.params.get("storage_options") or ())
    store = context.params.get("store") or load().defaults.get("store")  # click asks for no defaults while it completes
    return ModelStore(StoreSpec.named(store and os.path.expanduser(store), options=options, patience=_SECONDS).open())
