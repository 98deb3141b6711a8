"""Check that a mount can come up, before FUSE is asked. Each error is one sentence."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shlex
import stat

from bentofs.mount.daemon.running import RunningDaemon
from bentofs.mount.daemon.stale import is_dead
from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.engine import EngineName
from bentofs.mount.kernel.mount_table import DEVICE, HELPERS, OUR_TYPE, find_helper, mount_at, real_path
from bentofs.store.storage.open import StoreSpec


def check_system(engine: EngineName) -> None:
    """Check the parts of the system that an engine needs.

    Raises:
        CannotMountError
    """
    if engine is EngineName.LIBFUSE2:
        _check_libfuse()
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise CannotMountError(
            f"{DEVICE} is not there: load the kernel's fuse module (`modprobe fuse`), "
            "or start the container with --device /dev/fuse --cap-add SYS_ADMIN"
        ) from None
    except OSError as error:
        raise CannotMountError(f"{DEVICE} cannot be opened: {error.strerror}") from None
    if os.geteuid() != 0:
        _check_helper()


def _check_helper() -> None:
    """Check that the mount helper for ordinary users is installed and may mount."""
    helper = find_helper()
    if helper is None:
        raise CannotMountError(
            f"neither {' nor '.join(HELPERS)} is installed, and only root mounts without: `apt install fuse3` first"
        )
    if not os.stat(helper).st_mode & stat.S_ISUID and not _has_capabilities(helper):
        quoted = shlex.quote(helper)
        raise CannotMountError(
            f"{helper} may not mount, since its setuid bit is missing: `sudo chmod u+s {quoted}` first"
        )


def _has_capabilities(program: str) -> bool:
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def _check_libfuse() -> None:
    library = os.environ.get("FUSE_LIBRARY_PATH") or ctypes.util.find_library("fuse")  # fusepy finds it the same way
    try:
        ctypes.CDLL(library or "libfuse.so.2")
    except OSError:
        raise CannotMountError(
            "libfuse 2 is not installed: `apt install libfuse2` (libfuse2t64 on Ubuntu 24.04) first"
        ) from None


def check_readable(store: StoreSpec) -> None:
    """Check that the user may read a store.

    Raises:
        CannotMountError
    """
    if not store.may_be_read():
        raise CannotMountError(f"the model store {store.location} may not be read by you")


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


def _is_replaceable(mountpoint: str, real: str) -> bool:
    """Tell whether a dead mount of ours is there. Return False if nothing is mounted there.

    Raises:
        CannotMountError: another mount is there.
    """
    mounted = mount_at(real)
    if mounted is None:
        return False
    quoted = shlex.quote(mountpoint)
    if RunningDaemon.at(real) is not None or not is_dead(real, mounted):
        raise CannotMountError(
            f"something is mounted at {mountpoint} already: `bentofs unmount {quoted}` takes it away if it is ours"
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
        raise CannotMountError(f"{mountpoint} is not a folder") from None
    except OSError as error:
        raise CannotMountError(f"{mountpoint} cannot be read: {error.strerror}") from None
    if names:
        raise CannotMountError(f"{mountpoint} is not empty: a mount would hide what is in it")
