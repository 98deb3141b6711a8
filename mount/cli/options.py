"""The command line's options that name a store, and those for access to a remote store."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click
from click.core import ParameterSource

from bentofs.mount.cli.complete import complete_directory
from bentofs.store.storage.open import StoreSpec
from bentofs.store.storage.remote_defaults import DEFAULT_CACHE_SIZE, DEFAULT_PATIENCE, DEFAULT_TTL

_MOUNT_CACHE_SIZE = 256 << 20  # bytes; a mount has many readers at once, a command has one
_LEAST_CACHE_SIZE = 1 << 20
_FILES = ("identity", "known_hosts")  # parameters of SFTP


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A number of bytes, optionally with K, M, G or T."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([KMGT]?)i?B?", value, re.IGNORECASE)
        if match is None:
            self.fail(f"{value} is not a size: write a number of bytes, such as 1000 or 50G", param, ctx)
        return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")


class KeyValue(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """KEY=VALUE. `as_json`: the value may be JSON."""

    name = "key=value"

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def convert(
        self, value: str | tuple[str, Any], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key:
            self.fail("write it as KEY=VALUE", param, ctx)  # the text may be a secret
        if self._as_json:
            with suppress(ValueError):
                return key, json.loads(text)
        return key, text


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command. The command gets their values as one argument, `store`: a `StoreSpec`."""

    @click.option(
        "--store",
        metavar="DIR|URL",
        shell_complete=complete_directory,
        help="The model store: a directory, or a URL such as s3://bucket/prefix. Default: $BENTOML_HOME/models, else "
        "~/bentoml/models.",
    )
    @click.option(
        "--storage-option",
        "storage_options",
        type=KeyValue(as_json=True),
        multiple=True,
        metavar="KEY=VALUE",
        help="An option for the file system of a URL (fsspec). The value may be JSON. S3 reads endpoint, region and "
        "credentials from AWS's environment variables and files.",
    )
    @click.option(
        "--ttl",
        type=click.FloatRange(min=1.0),
        default=DEFAULT_TTL,
        show_default=True,
        metavar="SECONDS",
        help="How long listings of a URL are cached.",
    )
    @click.option(
        "--cache-size",
        type=Size(),
        metavar="SIZE",
        help=f"Memory for the cache of a URL, such as 512M. Default: {_MOUNT_CACHE_SIZE >> 20}M for a mount, "
        f"{DEFAULT_CACHE_SIZE >> 20}M for other commands.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=1.0),
        default=DEFAULT_PATIENCE,
        show_default=True,
        metavar="SECONDS",
        help="How long a URL's server may take to answer, with retries.",
    )
    @functools.wraps(command)
    def wrapped(
        *arguments: Any,
        store: str | None,
        storage_options: tuple[tuple[str, Any], ...],
        ttl: float,
        cache_size: int | None,
        timeout: float,
        **others: Any,
    ) -> Any:
        if cache_size is None:
            is_mount = click.get_current_context().info_name in ("mount", "serve")
            cache_size = _MOUNT_CACHE_SIZE if is_mount else DEFAULT_CACHE_SIZE
        source = click.get_current_context().get_parameter_source
        if source("storage_options") is ParameterSource.DEFAULT_MAP is not source("store"):
            storage_options = ()  # the configuration file means them for its own store only
        size = max(cache_size, _LEAST_CACHE_SIZE)
        place = StoreSpec.named(store, options=dict(storage_options), ttl=ttl, cache_size=size, patience=timeout)
        return command(*arguments, store=place, **others)

    return wrapped


def arguments_for(place: StoreSpec) -> list[str]:
    """Return the options that name the same store again."""
    arguments = ["--store", place.absolute_text]
    for key, value in {**place.options, **_files_of(place)}.items():
        arguments += ["--storage-option", f"{key}={json.dumps(value)}"]
    settings = {"--ttl": place.ttl, "--cache-size": place.cache_size, "--timeout": place.patience}
    return [*arguments, *(text for name, value in settings.items() for text in (name, str(value)))]


def _files_of(place: StoreSpec) -> dict[str, str]:
    """Return the parameters that name files as absolute paths, for a process in another working directory."""
    params = place.where.params
    return {key: os.path.abspath(os.path.expanduser(params[key])) for key in _FILES if params.get(key)}


def log_to_stderr() -> None:
    """Print warnings and errors of the log on standard error, like the command's own messages."""
    logging.basicConfig(level=logging.WARNING, format="bentofs: %(message)s", stream=sys.stderr)


staging_option = click.option(
    "--staging",
    metavar="DIR",
    shell_complete=complete_directory,
    callback=lambda _context, _parameter, folder: folder and os.path.abspath(folder),
    help="Where models are staged, on the store's file system. Default: a hidden directory beside the store; for a "
    "store that is a URL, in your state directory.",
)

by_label_option = click.option("--by-label/--no-by-label", help="Also list models by label. It reads each model.yaml.")
follow_links_option = click.option(
    "--follow-links/--no-follow-links", help="Follow links that lead out of a model or the store."
)
