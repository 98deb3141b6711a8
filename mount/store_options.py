"""The command line's options that say which store is meant, and how to get to one that is not on this machine."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click

from mount.preflight import check_store
from store.catalog import ModelStore
from store.storage.place import Place
from store.storage.remote import DEFAULT_CACHE_SIZE, DEFAULT_PATIENCE, DEFAULT_TTL


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A number of bytes, perhaps with K, M, G or T."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([KMGT]?)i?B?", value, re.IGNORECASE)
        if match is None:
            self.fail(f"{value} is no size: a number of bytes, perhaps with K, M, G or T", param, ctx)
        return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options, and passes what they say as one argument, `store`: a `Place`."""

    @click.option(
        "--store",
        metavar="DIR|URL",
        help="The model store: a folder, or a URL as s3://bucket/prefix. Default: $BENTOML_HOME/models, else "
        "~/bentoml/models.",
    )
    @click.option(
        "--storage-option",
        "storage_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="For the file system of a URL, as fsspec knows it; the value may be JSON. S3 takes endpoint, region and "
        "credentials from AWS's environment variables and files.",
    )
    @click.option(
        "--ttl",
        type=click.FloatRange(min=1.0),
        default=DEFAULT_TTL,
        show_default=True,
        metavar="SECONDS",
        help="How long listings of a URL are believed.",
    )
    @click.option(
        "--cache-size",
        type=Size(),
        default=DEFAULT_CACHE_SIZE,
        metavar="SIZE",
        help=f"Memory for what is read of a URL, as 512M; else {DEFAULT_CACHE_SIZE >> 20}M.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=1.0),
        default=DEFAULT_PATIENCE,
        show_default=True,
        metavar="SECONDS",
        help="How long a URL's server may take to answer, retries included.",
    )
    @functools.wraps(command)
    def wrapped(
        *arguments: Any,
        store: str | None,
        storage_options: tuple[str, ...],
        ttl: float,
        cache_size: int,
        timeout: float,
        **others: Any,
    ) -> Any:
        options = dict(_option(text) for text in storage_options)
        place = Place.named(
            store or default_store(), options=options, ttl=ttl, cache_size=max(cache_size, 1 << 20), patience=timeout
        )
        if options and not place.is_remote:
            raise click.UsageError("--storage-option is for stores that are URLs")
        return command(*arguments, store=place, **others)

    return wrapped


def default_store() -> str:
    """Where BentoML keeps its models."""
    home = os.environ.get("BENTOML_HOME") or os.path.join(os.path.expanduser("~"), "bentoml")
    return os.path.join(home, "models")


def arguments_for(place: Place) -> list[str]:
    """The options that give the same place again."""
    arguments = ["--store", place.text]
    if place.is_remote:
        for key, value in place.options.items():
            arguments += ["--storage-option", f"{key}={json.dumps(value)}"]
        arguments += ["--ttl", str(place.ttl), "--cache-size", str(place.cache_size), "--timeout", str(place.patience)]
    return arguments


def open_store(place: Place, *, follow_links: bool = False) -> ModelStore:
    """The catalogue of a store, for a command that looks at it once and logs to standard error.

    Raises:
        CannotMountError, StoreError: there is no such store, or no getting to it.
    """
    logging.basicConfig(level=logging.WARNING, format="bentofs: %(message)s", stream=sys.stderr)
    if not place.is_remote:
        check_store(place.text)
    return ModelStore(place.open(follow_links=follow_links))


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError("--storage-option takes KEY=VALUE")  # the text may be a secret
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
