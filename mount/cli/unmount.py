"""The command `bentofs unmount`."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from bentofs.mount.cli.complete import complete_mountpoint
from bentofs.mount.cli.config import named_mountpoint
from bentofs.mount.cli.output import json_option, print_document, print_message
from bentofs.mount.daemon.holders import describe, holders_of
from bentofs.mount.daemon.running import END_SECONDS, FINISH_SECONDS, RunningDaemon
from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.mount_table import OUR_TYPE, MountBusyError, UnmountError, mount_at, real_path, unmount

_GRACE_SECONDS = 10.0  # on a busy machine, beyond the daemon's own limit
_POLL_SECONDS = 0.02
_PATIENT_POLL_SECONDS = 0.2  # while imports run: each try starts a program
_TELL_SECONDS = 1.0  # tell what is waited for only if it takes longer
_TELL_OF_END_SECONDS = 5.0  # the same for the daemon's end, which takes a second or two on a busy machine


@click.command(name="unmount")
@click.argument("mountpoint", callback=named_mountpoint, shell_complete=complete_mountpoint)
@click.option("--lazy", is_flag=True, help="Unmount even while files are open for reading. Their readers get errors.")
@click.option(
    "--force", is_flag=True, help="Unmount even while files are open and imports run. The next mount keeps uploads."
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=FINISH_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for running imports.",
)
@json_option
def unmount_command(mountpoint: str, lazy: bool, force: bool, wait_seconds: float, as_json: bool) -> None:
    """Unmount MOUNTPOINT. Wait for running imports; return when the daemon has ended."""
    real = real_path(mountpoint)
    mounted = mount_at(real)
    if mounted is None:
        raise CannotMountError(f"nothing is mounted at {mountpoint}: `bentofs status` lists your mounts")
    if mounted.type != OUR_TYPE:
        raise CannotMountError(f"the mount at {mountpoint} is not of bentofs, but of type {mounted.type}: use `umount`")
    running = RunningDaemon.at(real)
    with _elsewhere():
        if lazy and not force:
            _await_uploads(mountpoint, real, wait_seconds)
        if (lazy or force) and running is not None:
            _terminate(running)  # it unmounts lazily, and does not wait for open files
        else:
            _unmount(mountpoint, real, lazy or force, wait_seconds)
        if running is not None:
            _await_daemon(mountpoint, running, wait_seconds)
    if as_json:
        print_document({"mountpoint": real})


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Leave the working directory for a while: it may lie in the mount, and keep it busy."""
    before = None
    with suppress(OSError):  # it is gone
        before = os.getcwd()
    os.chdir("/")
    try:
        yield
    finally:
        if before is not None:
            with suppress(OSError):
                os.chdir(before)


def _unmount(mountpoint: str, real: str, lazy: bool, wait_seconds: float) -> None:
    """Unmount. While a program writes an upload, try again."""
    waiting = _Waiting(mountpoint, wait_seconds)
    while True:
        try:
            return unmount(real, lazy=lazy)
        except MountBusyError:
            pass  # the programs that hold it decide below
        except UnmountError as error:
            raise CannotMountError(f"{mountpoint} could not be unmounted: {error}") from None
        holders = holders_of(real)
        readers = [holder for holder in holders if not holder.writes]
        if readers:
            quoted = shlex.quote(mountpoint)
            raise CannotMountError(
                f"{mountpoint} is in use: {describe(real, readers)}: end that first, or use "
                f"`bentofs unmount --lazy {quoted}`"
            )
        # A program that waits in close for the outcome of its import has no open file any more.
        waiting.go_on(describe(real, holders))


def _await_uploads(mountpoint: str, real: str, wait_seconds: float) -> None:
    """Wait until no program writes an upload."""
    waiting = _Waiting(mountpoint, wait_seconds)
    while writers := [holder for holder in holders_of(real) if holder.writes]:
        waiting.go_on(describe(real, writers))


def _await_daemon(mountpoint: str, running: RunningDaemon, wait_seconds: float) -> None:
    """Wait until the daemon has gone. Do not let it finish imports for longer than `wait_seconds`."""
    begun = time.monotonic()
    told = hurried = False
    while running.is_alive():
        waited = time.monotonic() - begun
        if waited > wait_seconds + END_SECONDS + _GRACE_SECONDS:
            raise CannotMountError(
                f"{mountpoint} is unmounted, but its daemon {running.pid} has not ended: read its log, "
                f"or use `kill -9 {running.pid}`"
            )
        if waited > wait_seconds and not hurried:
            hurried = True
            _terminate(running)
        if waited > _TELL_OF_END_SECONDS and not told:
            told = True
            print_message(f"{mountpoint} is unmounted; waiting for its daemon {running.pid} to end")
        time.sleep(_POLL_SECONDS)


def _terminate(running: RunningDaemon) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(running.pid, signal.SIGTERM)


class _Waiting:
    """A bounded wait for running imports, of which the user is told once."""

    def __init__(self, mountpoint: str, seconds: float) -> None:
        self._mountpoint = mountpoint
        self._seconds = seconds
        self._begun = time.monotonic()
        self._told = False

    def go_on(self, reason: str) -> None:
        """Wait a moment.

        Raises:
            CannotMountError: the time is over.
        """
        waited = time.monotonic() - self._begun
        if waited >= self._seconds:
            raise CannotMountError(
                f"{self._mountpoint} is in use: {reason}: end that first, or use "
                f"`bentofs unmount --force {shlex.quote(self._mountpoint)}`"
            )
        if waited >= _TELL_SECONDS and not self._told:
            self._told = True
            print_message(f"waiting for running imports: {reason}")
        time.sleep(_PATIENT_POLL_SECONDS)
