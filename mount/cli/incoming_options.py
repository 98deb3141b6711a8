"""The command line's options for `incoming/`, of mounts and of servers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from bentofs.mount.cli.options import Size
from bentofs.store.staging.limits import Limits

settle_option = click.option(
    "--settle",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Import a directory in incoming/ once nothing in it has changed for SECONDS.",
)


def limits_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the limits on an imported model to a command. The command gets them as one argument, `limits`."""

    @click.option(
        "--max-members",
        type=click.IntRange(min=1),
        default=Limits().members,
        show_default=True,
        help="The most files and directories in one imported model.",
    )
    @click.option(
        "--max-expanded",
        type=Size(),
        metavar="SIZE",
        help="The most bytes of one imported model, such as 50G. Default: 1T.",
    )
    @functools.wraps(command)
    def wrapped(*arguments: Any, max_members: int, max_expanded: int | None, **others: Any) -> Any:
        limits = Limits(max_members, max_expanded or Limits().expanded)
        return command(*arguments, limits=limits, **others)

    return wrapped
