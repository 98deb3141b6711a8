"""`bentofs man`: the manual page, made of the same texts as `--help`."""

from __future__ import annotations

import datetime
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click

from bentofs.mount.cli.exit_statuses import EXIT_STATUSES
from bentofs.mount.daemon.status import installed_version
from bentofs.mount.serve.variables import TOKEN_VARIABLE

_DESCRIPTION = (
    "Mounts a BentoML model store as a file system in which every model stands ready as a .bentomodel, .tar.gz, .zip "
    "and .tar: exact size, seekable, made while it is read. What is copied into incoming/ is imported. The commands "
    "list, get, measure, verify, export, import and serve need no mount."
)
_ENVIRONMENT = {
    "BENTOML_HOME": "The home of BentoML. The default store is models/ in it. Default: ~/bentoml.",
    "BENTOFS_CONFIG": "Another configuration file.",
    "BENTOFS_DEBUG": "If set, an unexpected error shows its traceback.",
    TOKEN_VARIABLE: "A bearer token for the clients of bentofs serve.",
    "NO_COLOR": "If set, nothing is coloured.",
    "XDG_CACHE_HOME, XDG_STATE_HOME": "The parents of the directories bentofs/ under FILES. Default: ~/.cache and "
    "~/.local/state.",
}
_FILES = {
    "~/.config/bentofs/config.toml": "Options, and named mounts.",
    "~/.cache/bentofs/index.sqlite": "Checksums and sizes of archives. It may be deleted: they are computed again.",
    "~/.local/state/bentofs/digests.sqlite": "The SHA-256s that verify compares. They cannot be restored.",
    "~/.local/state/bentofs/*.log": "The logs of mounts in the background.",
    "<store's parent>/.<store's name>.bentofs/": "Uploads that are not finished, and the record of imports.",
}
_EXAMPLES = {
    "Mount the store, and copy a model out:": (
        "bentofs mount ~/bentofs",
        "cp ~/bentofs/models/iris/latest.zip /media/stick/",
    ),
    "Export to a bucket, and import from it:": (
        "bentofs export iris:v1 s3://bucket/backup/",
        "bentofs import s3://bucket/backup/iris-v1.bentomodel",
    ),
    "Serve the store by HTTP, and fetch a model:": (
        "bentofs serve",
        "curl -OJ http://127.0.0.1:8080/models/iris/latest.zip",
    ),
    "Pass a model on to another machine:": ("bentofs export iris - --format tar | ssh host bentofs import -",),
}
_ESCAPES = {
    "\\": "\\e",
    "-": "\\-",
    "'": "\\(aq",
    "`": "\\(ga",
    "~": "\\(ti",
    "^": "\\(ha",
}  # the backslash comes first


@click.command(name="man")
@click.pass_context
def man_command(context: click.Context) -> None:
    """Print the manual page. To read it: bentofs man | man -l -

    \b
    To keep it for `man bentofs`:
    bentofs man > ~/.local/share/man/man1/bentofs.1
    """
    root = context.find_root().command
    assert isinstance(root, click.Group)
    click.echo(page(root), nl=False)


def page(root: click.Group) -> str:
    """Return the manual page in the language of man(7)."""
    return "\n".join(_lines(root)) + "\n"


def _lines(root: click.Group) -> Iterator[str]:
    date = datetime.date.fromtimestamp(os.path.getmtime(__file__))
    yield f'.TH BENTOFS 1 "{date}" "bentofs {_escaped(installed_version())}" "User Commands"'
    yield from (".nh", ".ad l")
    yield from (".SH NAME", "bentofs \\-", _text(f"{_uncapitalized((root.help or '').rstrip('.'))}"))
    yield from (".SH SYNOPSIS", ".B bentofs", ".I COMMAND", "[OPTIONS] [ARGUMENTS]")
    yield from (".SH DESCRIPTION", _text(_DESCRIPTION))
    yield ".SH COMMANDS"
    commands = list(_commands(root))
    counts = Counter(option for command in commands for option in command.options)
    shared = [option for option, count in counts.items() if count > 2]
    for command in commands:
        yield from _command(command, shared)
    yield from (".SH OPTIONS OF SEVERAL COMMANDS", _text("Each command above names those that it has."))
    for option in shared:
        yield from option.lines()
    yield from _definitions("ENVIRONMENT", {**_ENVIRONMENT, **_variables(root)})
    yield from _definitions("FILES", _FILES)
    yield from _definitions("EXIT STATUS", {str(status): f"{text}." for status, text in EXIT_STATUSES.items()})
    yield from (".SH EXAMPLES", _text("Each command shows its options with --help."))
    for sentence, lines in _EXAMPLES.items():
        yield from (".PP", _text(sentence), ".RS 4", ".nf", *map(_escaped, lines), ".fi", ".RE")
    yield from (".SH SEE ALSO", ".BR fusermount3 (1),", ".BR mount.fuse3 (8)")


class _Option(NamedTuple):
    """An option as its help shows it."""

    term: str
    text: str

    @property
    def name(self) -> str:
        return self.term.split()[0].rstrip(",")

    def lines(self) -> Iterator[str]:
        yield from (".TP", f"\\fB{_escaped(self.term)}\\fR", _text(_sentence(self.text)))


class _Command(NamedTuple):
    """A command as its help shows it."""

    name: str
    usage: str
    help: str
    options: list[_Option]


def _commands(group: click.Group, before: str = "") -> Iterator[_Command]:
    """Yield all commands, those of groups included."""
    with click.Context(group) as top:
        for name in group.list_commands(top):
            command = group.get_command(top, name)
            if command is None or command.hidden:
                continue
            with click.Context(command, parent=top, info_name=name) as context:
                options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
                records = [record for option in options if (record := option.get_help_record(context)) is not None]
                usage = " ".join(command.collect_usage_pieces(context))
            yield _Command(before + name, usage, command.help or "", [_Option(*record) for record in records])
            if isinstance(command, click.Group):
                yield from _commands(command, f"{before}{name} ")


def _command(command: _Command, shared: Sequence[_Option]) -> Iterator[str]:
    yield f".SS bentofs {_escaped(command.name)}"
    yield from (f".B bentofs {_escaped(command.name)}", _escaped(command.usage))
    yield from _paragraphs(command.help)
    for option in command.options:
        if option not in shared:
            yield from option.lines()
    names = [option.name for option in command.options if option in shared]
    if names:
        yield from (".PP", _text(f"Also: {', '.join(names)}."))


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a command's help. click keeps the lines of one that begins with a backspace."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield ".PP"
        lines = [line.strip() for line in paragraph.splitlines()]
        if lines[0] == "\b":
            yield from (".nf", _escaped("\n".join(lines[1:])), ".fi")
        else:
            yield _text(" ".join(lines))


def _definitions(heading: str, items: dict[str, str]) -> Iterator[str]:
    yield f".SH {heading}"
    for term, text in items.items():
        yield from (".TP", f"\\fB{_escaped(term)}\\fR", _text(_sentence(text)))


def _variables(root: click.Group) -> dict[str, str]:
    """Return the environment variables that stand for options."""
    found: dict[str, str] = {}
    with click.Context(root, info_name="bentofs") as top:
        for name in root.list_commands(top):
            command = root.get_command(top, name)
            for parameter in command.params if command is not None else ():
                if isinstance(parameter, click.Option) and parameter.envvar and not parameter.hidden:
                    variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar
                    for variable in variables:
                        found.setdefault(variable, f"The same as {parameter.opts[0]}.")
    return found


def _sentence(text: str) -> str:
    """Return a help text that ends with a full stop."""
    return text if not text or text[-1] in ".]" else f"{text}."


def _uncapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]


def _text(text: str) -> str:
    """Return text as lines of roff, none of them long."""
    return "\n".join(_escaped(line) for line in textwrap.wrap(text, 70, break_long_words=False, break_on_hyphens=False))


def _escaped(text: str) -> str:
    """Escape text for roff. A line that begins like a request is marked as text."""
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())
