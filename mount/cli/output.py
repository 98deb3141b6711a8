"""Output that all commands share: results on standard output, as text or as JSON (`mount/JSON.md`); messages and
progress on standard error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click


class Output:
    """The form of a command's results. It is the object of click's context."""

    def __init__(self) -> None:
        self.as_json = False

    def print_error(self, sentence: str, status: int) -> None:
        """Print the error of a command as JSON, if its results are JSON."""
        if self.as_json:
            with suppress(OSError):  # nobody reads it
                print_line(error_fields(sentence, status))


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json` to a command. The command gets it as `as_json`. If the command fails, its error is JSON, too."""

    def remember(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
        context.ensure_object(Output).as_json = value
        return value

    return click.option(
        "--json", "as_json", is_flag=True, is_eager=True, callback=remember, help="Print JSON, for programs."
    )(command)


def print_document(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Print the whole result of a command as one JSON document."""
    click.echo(json.dumps(value, indent=2))


def print_line(fields: Mapping[str, Any]) -> None:
    """Print one of a command's results as a line of JSON."""
    click.echo(json.dumps(fields))


def error_fields(sentence: str, status: int, *, name: str | None = None) -> dict[str, Any]:
    """Return the fields of an error. `name`: the model, file or URL that it is about, if there are several."""
    return {**({} if name is None else {"name": name}), "error": sentence, "status": status}


def print_message(sentence: str) -> None:
    """Print a message on standard error."""
    click.echo(f"bentofs: {sentence}", err=True)


def size_text(size: int) -> str:
    """Return a number of bytes for people, such as `1.1 kB`."""
    from rich.filesize import decimal  # not before it is needed: the daemon must not load rich

    return decimal(size)
