"""`mount.fuse.bentofs`, which mount(8) calls for `-t fuse.bentofs`, on its command line or in /etc/fstab.

Its options are those of `bentofs mount`, without dashes in front. Values never become options, paths or shell text of
their own: each is one argument of the form `--name=value`, and no shell runs.
"""

from __future__ import annotations

import difflib
import getopt
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import click

from bentofs.mount.cli.mount import mount_command
from bentofs.store.util.display import printable
from bentofs.store.util.urls import is_url

PROGRAM = "mount.fuse.bentofs"
_WRONG_USAGE, _MOUNT_FAILED = 1, 32  # mount(8)
_DEFAULT_STORE = "none"  # the word that fstab(5) has for no device

# Options of mount(8) that mean nothing here: for the programs that read fstab, or true of every mount of ours.
_IGNORED = re.compile(
    r"""rw|defaults|(no)?auto|(no)?users?|(no)?owner|(no)?group|nofail|_netdev|nosuid|nodev|exec|(no|rel|strict|lazy|nolazy)?atime
    |(no)?diratime|norelatime|nostrictatime|(no)?iversion|silent|loud|a?sync|dirsync|(no)?mand|comment=.*|[xX][-.].*""",
    re.VERBOSE,
)
_REFUSED = {
    "suid": "a model store has no setuid programs",
    "dev": "a model store has no devices",
    "remount": "the options of a mount cannot be changed: unmount it first",
    "storage-option": "everybody may read /etc/fstab and the arguments of mount: put it into the configuration file",
    "foreground": "mount waits until the mount answers, and then goes on",
}
_OTHER_NAMES = {"ro": "read-only"}
_WORD = re.compile(r"""(?:[^,"\\]|\\.|"[^"]*"?|\\$)+""", re.DOTALL)


class UsageError(Exception):
    """An option makes no sense. The text is a sentence."""


class Call(NamedTuple):
    """A call by mount(8)."""

    arguments: list[str]  # of `bentofs`
    user: str | None  # the user who is to run the daemon
    is_fake: bool  # -f: do everything but mount


def parse(words: Sequence[str]) -> Call:
    """Parse the arguments that mount(8) gives: STORE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE].

    Raises:
        UsageError
    """
    try:
        flags, places = getopt.gnu_getopt(list(words), "sfnvrwo:t:N:")
    except getopt.GetoptError as error:
        raise UsageError(f"{error.msg}: this program is called by mount(8)") from None
    if len(places) != 2:
        raise UsageError(f"it must be called as `{PROGRAM} STORE MOUNTPOINT -o OPTIONS`, as mount does")
    given = {flag for flag, _ in flags}
    if "-N" in given:
        raise UsageError("a mount in another namespace is not possible: use `nsenter --mount` to enter it first")
    store, mountpoint = places
    if store != _DEFAULT_STORE and not is_url(store):
        store = os.path.abspath(store)
    options = [word for flag, value in flags if flag == "-o" for word in split(value)] + ["ro"] * ("-r" in given)
    arguments, user = _translated(options, is_sloppy="-s" in given)
    named = [] if store == _DEFAULT_STORE else [f"--store={store}"]
    return Call(["mount", *named, *arguments, "--", os.path.abspath(mountpoint)], user, "-f" in given)


def split(text: str) -> list[str]:
    """Split mount options at their commas. A comma in quotation marks or behind a backslash belongs to its option."""
    words = []
    for match in _WORD.finditer(text):
        plain = re.sub(r'\\(.)|"', lambda found: found[1] or "", match[0], flags=re.DOTALL)
        words.append(plain)
    return [word for word in words if word]


def _translated(words: Sequence[str], *, is_sloppy: bool) -> tuple[list[str], str | None]:
    """Return the options of `bentofs mount`, and the user of `setuid=`."""
    known = _known_options()
    arguments = []
    user = None
    for word in words:
        name, equals, value = word.partition("=")
        name = _OTHER_NAMES.get(name, name).replace("_", "-").removeprefix("--")
        if name in _REFUSED:
            raise UsageError(f"the option `{printable(name)}` is not possible: {_REFUSED[name]}")
        if _IGNORED.fullmatch(word):
            continue
        if name == "setuid" and value:
            user = value
            continue
        option = known.get(name)
        if option is None:
            if is_sloppy:
                continue
            likely = difflib.get_close_matches(name, known, 1)
            there_are = f"did you mean `{likely[0]}`?" if likely else f"there are setuid, {', '.join(known)}"
            raise UsageError(f"there is no option `{printable(name)}`: {there_are}")
        if option.is_flag == bool(equals):
            raise UsageError(f"the option `{name}` {'takes no value' if option.is_flag else 'needs a value'}")
        arguments.append(f"--{name}={value}" if equals else f"--{name}")
    return arguments, user


def _known_options() -> dict[str, click.Option]:
    """Return the options of `bentofs mount` that fstab may have, by their names."""
    found: dict[str, click.Option] = {}
    for parameter in mount_command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            found |= {name[2:]: parameter for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name: option for name, option in found.items() if name not in (*_REFUSED, "json")}


def _as_user(name: str) -> dict[str, Any]:
    """Return the arguments for `subprocess` that make a program run as a user, with the user's home.

    Raises:
        UsageError
    """
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise UsageError(f"there is no user {printable(name)!r}, whom `setuid` names") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise UsageError("only root may use the option `setuid`")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    environment |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    if os.geteuid() != 0:
        return {"env": environment}
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return {"env": environment, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}


def main() -> NoReturn:
    """Mount, and return mount(8)'s exit status for the outcome."""
    try:
        call = parse(sys.argv[1:])
        how: Mapping[str, Any] = _as_user(call.user) if call.user is not None else {}
    except UsageError as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        sys.exit(_WRONG_USAGE)
    if call.is_fake:
        sys.exit(0)
    # -I: nothing in the working directory is loaded.
    command = [sys.executable, "-I", "-m", "bentofs.mount", *call.arguments]
    try:
        status = subprocess.run(command, cwd="/", check=False, **how).returncode
    except OSError as error:
        sys.stderr.write(f"{PROGRAM}: {command[0]} cannot be run: {error.strerror}\n")
        sys.exit(_MOUNT_FAILED)
    sys.exit({0: 0, 2: _WRONG_USAGE}.get(status, _MOUNT_FAILED))
