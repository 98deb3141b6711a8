"""The configuration file: options that one always types, and named mounts.

An option on the command line counts first, then its environment variable, then the file, then the default. In the file,
`[mounts.NAME]` counts for `bentofs mount NAME`, and `[defaults]` for all commands that have the option. The `store` of
`[mounts.NAME]` also counts before its environment variable.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import platformdirs

from bentofs.mount.errors import ConfigError
from bentofs.store.util.display import printable
from bentofs.store.util.urls import is_url

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATH_VARIABLE = "BENTOFS_CONFIG"
MOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

# Options that any command may have, and options of a mount alone.
_SHARED = (
    "store",
    "storage-option",
    "ttl",
    "cache-size",
    "timeout",
    "formats",
    "compression",
    "staging",
    "follow-links",
)
_OF_MOUNTS = (
    "allow-other",
    "read-only",
    "overwrite",
    "settle",
    "incoming-mode",
    "max-members",
    "max-expanded",
    "engine",
    "passthrough",
    "by-label",
    "auto-unmount",
    "noexec",
    "log-level",
    "log-file",
)
_PATHS = ("store", "staging", "log-file", "mountpoint")
_TEXTS = (*_PATHS, "incoming-mode", "compression", "engine", "log-level")  # never numbers


@dataclass(frozen=True)
class Config:
    """The content of a configuration file."""

    path: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    mounts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def config_path() -> str | None:
    """Return the path of the user's configuration file, there or not. None if the user has no home."""
    try:
        folder = platformdirs.user_config_dir("bentofs")
    except RuntimeError:
        return None
    return os.path.join(folder, "config.toml") if os.path.isabs(folder) else None


def load() -> Config:
    """Read the configuration file. Return an empty one if there is none.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong.
    """
    given = os.environ.get(PATH_VARIABLE)
    path = os.path.abspath(given) if given else config_path()
    if path is None:
        return Config()
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        if given:
            raise ConfigError(f"{printable(path)}, which {PATH_VARIABLE} names, is not there") from None
        return Config()
    except OSError as error:
        raise ConfigError(f"{printable(path)} cannot be read: {error.strerror}") from None
    except ValueError as error:  # bytes that are not UTF-8, too
        raise ConfigError(f"{printable(path)} is not TOML: {printable(str(error))}") from None
    return _checked(path, content)


def name_variables(command: click.Command) -> None:
    """Give the options of a command that can be configured their environment variables, such as BENTOFS_STORE."""
    for key, option in _options_of(command).items():
        option.envvar = f"BENTOFS_{key.replace('-', '_').upper()}"


def defaults_for(command: click.Command, arguments: Sequence[str]) -> dict[str, Any]:
    """Return what the file says for a command, as click's `default_map`.

    Raises:
        ConfigError
    """
    options = _options_of(command)
    if not options or {"--help", "-h"} & set(arguments):
        return {}
    if "--ready-fd" in arguments:  # a daemon has all options on its command line: no variable counts either
        for option in options.values():
            option.envvar = None
        return {}
    config = load()
    found = {key: ("[defaults]", value) for key, value in config.defaults.items()}
    name = _word(command, arguments)
    mount = config.mounts.get(name, {})
    if "store" in mount:
        found.pop("storage-option", None)  # they are for another store
        if os.environ.get(str(options["store"].envvar)):  # a named mount shows the store that its table names
            options["store"].envvar = options["storage-option"].envvar = None
    found |= {key: (f"[mounts.{name}]", value) for key, value in mount.items()}
    context = click.Context(command, info_name=command.name)
    return {
        str(options[key].name): _converted(config.path, where, key, value, options[key], context)
        for key, (where, value) in found.items()
        if key in options
    }


def optional_mountpoint(context: click.Context, parameter: click.Parameter, word: str | None) -> str | None:
    """Do what `named_mountpoint` does. Return None if there is no word."""
    return None if word is None else named_mountpoint(context, parameter, word)


def named_mountpoint(_context: click.Context, _parameter: click.Parameter, word: str) -> str:
    """Return the mountpoint of a named mount, or else the word itself. A word with a slash is always a path.

    Raises:
        ConfigError: something in the file is wrong, or the word is neither one of its names nor a path.
    """
    if "/" in word or not word:
        return word
    config = load()
    if word in config.mounts:
        return str(config.mounts[word]["mountpoint"])
    if config.mounts and word not in (".", "..") and not os.path.lexists(word):
        raise ConfigError(
            f"{printable(config.path)} has no mount {printable(word)!r}: there are {', '.join(config.mounts)}; a "
            f"directory is written ./{printable(word)}"
        )
    return word


def _options_of(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that can be configured."""
    wanted = (*_SHARED, *_OF_MOUNTS) if command.name == "mount" else _SHARED
    found: dict[str, click.Option] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            found |= {name[2:]: parameter for name in parameter.opts if name[2:] in wanted}
    return found


def _word(command: click.Command, arguments: Sequence[str]) -> str:
    """Return the MOUNTPOINT on a command line; "" if there is none."""
    if command.name != "mount":
        return ""
    context = click.Context(command, info_name=command.name, resilient_parsing=True)
    try:
        word = command.make_parser(context).parse_args(args=list(arguments))[0].get("mountpoint")
    except click.UsageError:  # click finds it again, and tells
        return ""
    return word if isinstance(word, str) else ""


def _checked(path: str, content: Mapping[str, Any]) -> Config:
    """Check tables and keys. Values are checked when a command uses them: each has its own type."""
    _check_keys(path, "", content, ("defaults", "mounts"))
    defaults = _table(path, "[defaults]", content.get("defaults", {}))
    _check_keys(path, "[defaults]", defaults, (*_SHARED, *_OF_MOUNTS))
    mounts = {}
    for name, value in _table(path, "[mounts]", content.get("mounts", {})).items():
        if not MOUNT_NAME.fullmatch(name):
            raise ConfigError(
                f"{printable(path)}: {printable(name)!r} cannot be the name of a mount: use letters, digits, `-`, `_` "
                "and `.`"
            )
        where = f"[mounts.{name}]"
        mount = dict(_table(path, where, value))
        _check_keys(path, where, mount, ("mountpoint", *_SHARED, *_OF_MOUNTS))
        if "mountpoint" not in mount:
            raise ConfigError(f'{printable(path)}: {where} has no mountpoint: add a line `mountpoint = "/a/directory"`')
        mount["mountpoint"] = _path(path, where, "mountpoint", mount["mountpoint"])
        mounts[name] = mount
    return Config(path, defaults, mounts)


def _table(path: str, where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{printable(path)}: {where} must be a table: lines below a line `{where}`")
    return value


def _check_keys(path: str, where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            likely = difflib.get_close_matches(key, known, 1)
            there_are = f"did you mean `{likely[0]}`?" if likely else f"there are {', '.join(known)}"
            place = f" in {where}" if where else ""
            raise ConfigError(f"{printable(path)}: there is no key `{printable(key)}`{place}: {there_are}")


def _converted(path: str, where: str, key: str, value: Any, option: click.Option, context: click.Context) -> Any:
    """Return a value of the file as the command gets it from its command line."""

    def wrong(reason: str) -> ConfigError:
        return ConfigError(f"{printable(path)}: `{key}` in {where} is wrong: {printable(reason)}")

    if key in _PATHS:
        return _path(path, where, key, value)
    if option.is_flag:
        if not isinstance(value, bool):
            raise wrong("it must be true or false")
        return value
    if key == "storage-option":
        if not isinstance(value, Mapping):
            raise wrong('it must be a table, such as { endpoint_url = "https://host" }')
        return list(value.items())
    if key == "formats" and isinstance(value, list):
        value = ",".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, str if key in _TEXTS else (str, int, float)):
        raise wrong("it must be a text in quotation marks" if key in _TEXTS else "it must be a text or a number")
    try:
        return option.type_cast_value(context, value)
    except click.BadParameter as error:
        raise wrong(error.message) from None


def _path(path: str, where: str, key: str, value: object) -> str:
    """Return a path without its ~. A relative path would depend on where a command runs."""
    text = os.path.expanduser(value) if isinstance(value, str) else ""
    if not os.path.isabs(text) and not (key == "store" and is_url(text)):
        kinds = "a path that begins with / or ~/" + (", or a URL" if key == "store" else "")
        raise ConfigError(f"{printable(path)}: `{key}` in {where} is wrong: it must be {kinds}, in quotation marks")
    return text
