"""The command `bentofs systemd`: units that mount at boot or at login."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import click

from bentofs.mount.cli.mount_helper import PROGRAM
from bentofs.mount.cli.output import json_option, print_document, print_message
from bentofs.mount.daemon.unit import MARK, NAME, SYSTEM_CONFIG, USER_CONFIG, unit_text
from bentofs.mount.errors import CannotMountError
from bentofs.store.util.display import printable

SYSTEM_FOLDER = "/etc/systemd/system"
HELPER = f"/sbin/{PROGRAM}"

_user_option = click.option(
    "--user", "of_user", is_flag=True, help="For your own service manager; else for the system's, as root."
)


@click.group(name="systemd")
def systemd_command() -> None:
    """Mount the named mounts of the configuration file at boot, or at login: install, uninstall or print the unit."""


@systemd_command.command(name="install")
@_user_option
@json_option
def install_command(of_user: bool, as_json: bool) -> None:
    """Install the unit bentofs@.service; as root without --user also the helper for fstab."""
    text = _text(of_user)
    path = _unit_path(of_user)
    if os.path.lexists(path) and not _is_ours(path):
        raise CannotMountError(f"{printable(path)} is there, and not ours: move it away first")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except PermissionError:
        raise CannotMountError(f"{path} may not be written by you: use `sudo`, or --user for your own unit") from None
    has_helper = not of_user and _install_helper()
    _reload(of_user)
    if as_json:
        print_document({"unit": path, "helper": HELPER if has_helper else None})
        return
    click.echo(f"{printable(path)} is installed")
    if has_helper:
        click.echo(f"{HELPER} is installed, for fstab and `mount -t fuse.bentofs`")
    option = "--user " if of_user else ""
    click.echo(f"Name a mount in {USER_CONFIG if of_user else SYSTEM_CONFIG}, as [mounts.NAME]. Then:")
    click.echo(f"  systemctl {option}enable --now bentofs@NAME")
    if of_user:
        click.echo("To have it mounted before you log in: loginctl enable-linger")


@systemd_command.command(name="uninstall")
@_user_option
@json_option
def uninstall_command(of_user: bool, as_json: bool) -> None:
    """Remove what `install` installed. Mounts that run go on until they are stopped."""
    path = _unit_path(of_user)
    if not os.path.lexists(path):
        raise CannotMountError(f"{printable(path)} is not there: no unit is installed", 3)
    if not _is_ours(path):
        raise CannotMountError(f"{printable(path)} is not ours: remove it yourself")
    try:
        os.unlink(path)
    except PermissionError:
        raise CannotMountError(f"{path} may not be removed by you: use `sudo`") from None
    removed = [path]
    if not of_user and _leads_to(_helper_program()):
        os.unlink(HELPER)
        removed.append(HELPER)
    _reload(of_user)
    if as_json:
        print_document({"unit": path, "helper": HELPER if HELPER in removed else None})
        return
    for each in removed:
        click.echo(f"{printable(each)} is removed")


@systemd_command.command(name="print")
@_user_option
def print_command(of_user: bool) -> None:
    """Print the unit."""
    click.echo(_text(of_user), nl=False)


def _text(of_user: bool) -> str:
    program = os.path.join(os.path.dirname(sys.executable), "bentofs")
    if not os.access(program, os.X_OK):
        raise CannotMountError(f"{printable(program)} is not there: install bentofs with pip first")
    try:
        return unit_text(program, of_user=of_user)
    except ValueError as error:
        raise CannotMountError(f"{printable(program)}: {error}: install bentofs elsewhere") from None


def _unit_path(of_user: bool) -> str:
    if not of_user:
        return os.path.join(SYSTEM_FOLDER, NAME)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    if not os.path.isabs(home):
        raise CannotMountError("you have no home directory: set XDG_CONFIG_HOME to a directory of yours")
    return os.path.join(home, "systemd", "user", NAME)


def _is_ours(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n") == MARK


def _helper_program() -> str:
    return os.path.join(os.path.dirname(sys.executable), PROGRAM)


def _leads_to(program: str) -> bool:
    return os.path.islink(HELPER) and os.readlink(HELPER) == program


def _install_helper() -> bool:
    """Link the helper of mount(8), which looks for it in /sbin. Return False if another one is there."""
    program = _helper_program()
    if _leads_to(program):
        return True
    if os.path.lexists(HELPER):
        print_message(f"{HELPER} is there already, and not ours: fstab and `mount -t fuse.bentofs` use it as it is")
        return False
    os.symlink(program, HELPER)
    return True


def _reload(of_user: bool) -> None:
    """Have the service manager read its units again, if one runs."""
    command = ["systemctl", *(["--user"] if of_user else []), "daemon-reload"]
    if not os.path.isdir("/run/systemd/system") or shutil.which(command[0]) is None:
        return
    if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode != 0:
        print_message(f"the service manager does not answer: run `{shlex.join(command)}` when it does")
