"""The command line's option that chooses the engine of a mount."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from bentofs.mount.kernel.engine import DEFAULT_ENGINE, EngineName


def engine_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option, with its help text. The command gets the engine's name as a text."""
    return click.option(
        "--engine",
        type=click.Choice([name.value for name in EngineName]),
        default=DEFAULT_ENGINE.value,
        show_default=True,
        envvar="BENTOFS_ENGINE",
        help=text,
    )
