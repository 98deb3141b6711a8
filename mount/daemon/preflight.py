"""Check that a mount can come up, before FUSE is asked. Each error is one sentence."""

from __future__ import annotations

import os
import shlex

from bentofs.mount.daemon.checks.check import Check, CheckOutcome, Plan
from bentofs.mount.daemon.checks.fuse import check_allow_other, check_helper, check_libfuse, check_mount_max
from bentofs.mount.daemon.checks.places import check_cache, check_space, check_staging, check_state, check_store
from bentofs.mount.daemon.checks.software import check_libraries
from bentofs.mount.daemon.checks.system import check_capabilities, check_device, check_kernel, check_open_files
from bentofs.mount.daemon.running import RunningDaemon
from bentofs.mount.daemon.stale import is_dead
from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.mount_table import AUTOFS, OUR_TYPE, mount_at, real_path

# In this order: the first one that fails is what a user reads.
_CHECKS = (
    check_libfuse,
    check_device,
    check_helper,
    check_capabilities,
    check_kernel,
    check_allow_other,
    check_mount_max,
    check_store,
    check_space,
    check_staging,
    check_state,
    check_cache,
    check_open_files,
    check_libraries,
)


def run_checks(plan: Plan) -> list[Check]:
    """Check all that a mount needs, except for its mountpoint."""
    return [check(plan) for check in _CHECKS]


def check_plan(plan: Plan) -> list[str]:
    """Do what `run_checks` does. Return the sentences of the warnings.

    Raises:
        CannotMountError: the first check that failed.
    """
    checks = run_checks(plan)
    for check in checks:
        if check.outcome is CheckOutcome.FAILED:
            raise CannotMountError(check.sentence(), check.status)
    return [check.sentence() for check in checks if check.outcome is CheckOutcome.WARNING]


def check_mountpoint(mountpoint: str, store: str | None) -> str:
    """Check that something can be mounted there. Return its real path. A dead mount of ours may be there: the daemon
    replaces it (`mount.daemon.stale`).

    `store`: the store's directory, which must not contain the mountpoint or lie in it; None for a URL.

    Raises:
        CannotMountError
    """
    real = real_path(mountpoint)
    if not _is_replaceable(mountpoint, real):
        _check_empty(mountpoint)
        real = os.path.realpath(mountpoint)
    if store is None:
        return real
    real_store = os.path.realpath(store)
    for inner, outer, sentence in (
        (real, real_store, f"{mountpoint} lies inside the store {store}"),
        (real_store, real, f"the store {store} lies inside {mountpoint}"),
    ):
        if os.path.commonpath([inner, outer]) == outer:
            raise CannotMountError(f"{sentence}: choose a mountpoint outside of it")
    return real


def is_trap(real: str) -> bool:
    """Tell whether an automounter waits at a real path for somebody to look at it (systemd's `x-systemd.automount`)."""
    mounted = mount_at(real)
    return mounted is not None and mounted.type == AUTOFS


def _is_replaceable(mountpoint: str, real: str) -> bool:
    """Tell whether there is nothing to look at: a dead mount of ours, or an automounter's trap, on which this program
    would wait for itself. Return False if nothing is mounted there.

    Raises:
        CannotMountError: another mount is there.
    """
    mounted = mount_at(real)
    if mounted is None:
        return False
    if mounted.type == AUTOFS:
        return True
    quoted = shlex.quote(mountpoint)
    if RunningDaemon.at(real) is not None or not is_dead(real, mounted):
        raise CannotMountError(
            f"something is mounted at {mountpoint} already: if it is a mount of bentofs, use `bentofs unmount {quoted}`"
        )
    if mounted.type != OUR_TYPE:
        raise CannotMountError(
            f"{mountpoint} is a mount of type {mounted.type} whose daemon has died: clean it up with "
            f"`fusermount -u -z {quoted}`"
        )
    return True


def _check_empty(mountpoint: str) -> None:
    try:
        names = os.listdir(mountpoint)
    except FileNotFoundError:
        quoted = shlex.quote(mountpoint)
        raise CannotMountError(f"{mountpoint} is not there: make it with `mkdir -p {quoted}` first") from None
    except NotADirectoryError:
        raise CannotMountError(f"{mountpoint} is not a directory: choose an empty one") from None
    except OSError as error:
        raise CannotMountError(f"{mountpoint} cannot be read: {error.strerror}") from None
    if names:
        raise CannotMountError(f"{mountpoint} is not empty: a mount would hide its files; choose an empty directory")
