"""Hide the secrets in this process's command line.

All users may read the command lines of all processes. A process that was given a secret restarts itself with the
secrets struck out. It passes the true arguments in its environment, which only its user may read.

Names of files are bytes. Python decodes them by the locale, so they would depend on it. A process in a locale other
than UTF-8 restarts itself in Python's UTF-8 mode.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from bentofs.store.util.urls import is_url
from bentofs.store.util.urls import without_secrets as url_without_secrets

_VARIABLE = "BENTOFS_ARGUMENTS"
_SECRET = ("--storage-option", "--passwd", "--param")  # options whose values other users must not see
_STRUCK_OUT = "***"
UTF8_MODE = ("-X", "utf8")  # Python's option: names of files are UTF-8 in any locale


def true_arguments() -> list[str]:
    """Return the true arguments of this process. Do not return if the process must restart itself first."""
    carried = os.environ.pop(_VARIABLE, None)
    if carried is not None:
        return [str(argument) for argument in json.loads(carried)]
    arguments = sys.argv[1:]
    mode = () if sys.getfilesystemencoding() == "utf-8" else UTF8_MODE
    given = _given() if mode else sys.orig_argv
    program, *others = given[: len(given) - len(arguments)]
    if mode:
        arguments = given[len(given) - len(arguments) :]
    shown = without_secrets(arguments)
    if shown != arguments or mode:
        # Without a secret the arguments need not be carried, and one variable holds less than a command line.
        carried_on = carrying(arguments) if shown != arguments else {}
        command = [part.encode("utf-8", "surrogateescape") for part in (program, *mode, *others, *shown)]
        os.execve(sys.executable, command, {**os.environ, **carried_on})
    return arguments


def carrying(arguments: Sequence[str]) -> dict[str, str]:
    """Return the environment variables that pass arguments to a process."""
    return {_VARIABLE: json.dumps(list(arguments))}


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with their secrets struck out."""
    shown = []
    before = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if before in _SECRET:
            shown.append(_STRUCK_OUT)
        elif name in _SECRET and equals:
            shown.append(f"{name}={_STRUCK_OUT}")
        elif name.startswith("--") and equals:
            shown.append(f"{name}={_shown(value)}")
        else:
            shown.append(_shown(argument))
        before = argument
    return shown


def _given() -> list[str]:
    """Return the command line as UTF-8. In some locales Python decodes it to text that it cannot encode again."""
    with open("/proc/self/cmdline", "rb") as file:
        return [part.decode("utf-8", "surrogateescape") for part in file.read().split(b"\0")[:-1]]


def _shown(text: str) -> str:
    return url_without_secrets(text) if is_url(text) else text
