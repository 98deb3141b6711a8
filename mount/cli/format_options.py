"""The command line's options that choose the formats of archives, and what they compress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from bentofs.mount.cli.complete import Items, complete_list_of
from bentofs.store.archives.compression import Compression
from bentofs.store.formats.write.registry import DEFAULT_FORMATS, FORMATS, Format
from bentofs.store.storage.open import StoreSpec


class _Formats(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A comma-separated list of format names."""

    name = "list"

    def convert(
        self, value: str | list[Format], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Format]:
        if isinstance(value, list):
            return value
        names = [name.strip().removeprefix(".") for name in value.split(",") if name.strip()]
        unknown = [name for name in names if name not in FORMATS]
        if unknown or not names:
            self.fail(
                f"{', '.join(unknown) or 'nothing'} is not a format: choose from {', '.join(FORMATS)}", param, ctx
            )
        return [FORMATS[name] for name in dict.fromkeys(names)]

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:  # noqa: ARG002
        return complete_list_of(FORMATS, incomplete)


formats_option = click.option(
    "--formats",
    type=_Formats(),
    default=",".join(kind.name for kind in DEFAULT_FORMATS),
    show_default=True,
    help=f"Formats of archives, separated by commas: {', '.join(FORMATS)}.",
)


def checked_formats(formats: list[Format], compression: Compression) -> list[Format]:
    """Return the formats, if all can be made with this compression.

    Raises:
        click.UsageError: one cannot.
    """
    for kind in formats:
        if kind.lay_out is None and compression is Compression.NEVER:
            raise click.UsageError(
                f"{kind.name} cannot be made without compression: leave it out of --formats, or use --compression auto"
            )
    return formats


def compression_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option to a command. The argument is None if the option is not used (`compression_for`)."""
    return click.option(
        "--compression",
        type=click.Choice([choice.value for choice in Compression]),
        help="Which files .tar.gz and .zip compress: those that are worth it, all (in a .bentomodel, too), or none. "
        "Default: auto; never for a store that is a URL, since measuring sizes would fetch all files.",
    )(command)


def compression_for(text: str | None, place: StoreSpec) -> Compression:
    """Return the user's choice, or the default for a store."""
    return Compression(text) if text else Compression.default(has_page_cache=place.has_page_cache)
