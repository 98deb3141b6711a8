"""Mount and get the descriptor of /dev/fuse: by mount(2) as root, otherwise by fusermount3 or fusermount.

The descriptor must never reach another process: while one has it, the kernel waits for answers after our end.

With `auto_unmount`, root too mounts by the helper. The helper then stays, and unmounts once its socket is closed
because this process has ended.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import subprocess
from collections.abc import Sequence

from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.mount_table import DEVICE, OUR_TYPE, SUBTYPE, find_helper

_HELPER_SECONDS = 20.0  # how long one may take
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


AUTO_UNMOUNT = "auto_unmount"  # the helper's option
_NOEXEC = "noexec"  # a flag of mount(2)


class Device:
    """The descriptor on which the kernel's requests come. If a helper stays, also the helper and the socket that it
    watches."""

    def __init__(
        self, descriptor: int, watched: socket.socket | None = None, helper: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.descriptor = descriptor
        self._watched = watched
        self._helper = helper  # kept, since Python warns of a running process that nobody refers to

    def close(self) -> None:
        """Close the descriptor first: the helper finds out then whether there is still something to unmount."""
        os.close(self.descriptor)
        if self._watched is not None:
            self._watched.close()


def open_mount(mountpoint: str, source: str, options: Sequence[str]) -> Device:
    """Mount.

    `source`: the device that /proc/mounts shows; `options`: as in `mount -o`.

    Raises:
        CannotMountError: the helper or the kernel refused.
    """
    helper = find_helper()
    if AUTO_UNMOUNT in options:
        if helper is None:
            raise CannotMountError("--auto-unmount needs fusermount: `apt install fuse3` first")
        return _mount_by_helper(helper, mountpoint, source, options)
    try:
        return Device(_mount_directly(mountpoint, source, options))
    except OSError as error:
        if error.errno != errno.EPERM or helper is None:
            raise CannotMountError(f"{mountpoint} could not be mounted: {error.strerror}") from None
    return _mount_by_helper(helper, mountpoint, source, options)


def _mount_by_helper(helper: str, mountpoint: str, source: str, options: Sequence[str]) -> Device:
    words = [f"fsname={_escaped(source)}", f"subtype={SUBTYPE}", *options]
    stays = AUTO_UNMOUNT in options
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:  # closed before we wait: else a failed helper would leave us waiting for its end
        process = subprocess.Popen(
            [helper, "-o", ",".join(words), "--", mountpoint],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
        )
    ours.settimeout(_HELPER_SECONDS)
    said = b""
    try:
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        if not (stays and descriptors):
            _, said = process.communicate(timeout=_HELPER_SECONDS)
    except (TimeoutError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
        ours.close()
        raise CannotMountError(f"{mountpoint} could not be mounted: {helper} does not end") from None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    if len(descriptors) == 1 and stays and process.poll() is None:
        return Device(descriptors[0], ours, process)
    ours.close()
    if len(descriptors) == 1 and process.returncode == 0:
        return Device(descriptors[0])
    for descriptor in descriptors:
        os.close(descriptor)
    reason = said.decode(errors="replace").strip() or f"{helper} exited with {process.returncode}"
    raise CannotMountError(f"{mountpoint} could not be mounted: {reason}")


def _mount_directly(mountpoint: str, source: str, options: Sequence[str]) -> int:
    """Mount by mount(2), which root may use.

    Raises:
        PermissionError: only the helper may mount.
        OSError: the kernel refused.
    """
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    data = [f"fd={descriptor}", f"rootmode={stat.S_IFDIR:o}", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"]
    data += [option for option in options if option != _NOEXEC]
    flags = _MS_NOSUID | _MS_NODEV | (_MS_NOEXEC if _NOEXEC in options else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.mount(
        os.fsencode(source),
        os.fsencode(mountpoint),
        os.fsencode(OUR_TYPE),
        ctypes.c_ulong(flags),
        os.fsencode(",".join(data)),
    )
    if not failed:
        return descriptor
    number = ctypes.get_errno()
    os.close(descriptor)
    raise OSError(number, os.strerror(number))


def _escaped(text: str) -> str:
    """Return a value for the helper's options with its commas escaped: a comma begins the next option."""
    return text.replace("\\", "\\\\").replace(",", "\\,")
