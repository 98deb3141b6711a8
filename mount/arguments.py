"""Command lines that hold secrets: everybody may read those of all processes, so a process that was given one starts
itself anew with the secrets struck out, and passes the true arguments in its environment, which is its user's own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from store import location

_VARIABLE = "BENTOFS_ARGUMENTS"
_SECRET = ("--storage-option", "--passwd", "--param")  # options whose values nobody else is to see
_STRUCK_OUT = "***"


def true_arguments() -> list[str]:
    """What this process was asked to do. Does not return when that must be hidden first."""
    carried = os.environ.pop(_VARIABLE, None)
    if carried is not None:
        return [str(argument) for argument in json.loads(carried)]
    arguments = sys.argv[1:]
    shown = without_secrets(arguments)
    if shown != arguments:
        command = [*sys.orig_argv[: len(sys.orig_argv) - len(arguments)], *shown]
        os.execve(sys.executable, command, {**os.environ, **carrying(arguments)})
    return arguments


def carrying(arguments: Sequence[str]) -> dict[str, str]:
    """The environment that passes arguments to a process."""
    return {_VARIABLE: json.dumps(list(arguments))}


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """The arguments as anybody may see them."""
    shown = []
    before = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if before in _SECRET:
            shown.append(_STRUCK_OUT)
        elif name in _SECRET and equals:
            shown.append(f"{name}={_STRUCK_OUT}")
        elif name.startswith("--") and equals:
            shown.append(f"{name}={_url_without_secrets(value)}")
        else:
            shown.append(_url_without_secrets(argument))
        before = argument
    return shown


def _url_without_secrets(text: str) -> str:
    return location.without_secrets(text) if location.is_url(text) else text
