"""Checks of the kernel and of this process's rights."""

from __future__ import annotations

import os
import platform
import re
import resource
import stat
from pathlib import Path

from bentofs.mount.daemon.checks.check import Check, CheckOutcome, Plan, in_container
from bentofs.mount.kernel.engine import EngineName
from bentofs.mount.kernel.mount_table import DEVICE

_NUMBER = os.makedev(10, 229)  # of /dev/fuse
_SYS_ADMIN = 21  # capabilities(7)
_OLDEST, _PASSTHROUGH = (5, 4), (6, 9)  # releases of Linux
_DESCRIPTORS = 1024  # open in a busy mount
_CONTAINER = "start the container with --device /dev/fuse --cap-add SYS_ADMIN"


def check_device(plan: Plan) -> Check:  # noqa: ARG001 - all checks take the plan
    """Check that /dev/fuse is there, is the kernel's, and may be opened."""
    name = "device"
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        advice = f"load the kernel's fuse module (`modprobe fuse`), or {_CONTAINER}"
        return Check(name, CheckOutcome.FAILED, f"{DEVICE} is not there", advice)
    except PermissionError as error:
        advice = _CONTAINER if in_container() else f"`sudo chmod 666 {DEVICE}`, which is its usual mode"
        return Check(name, CheckOutcome.FAILED, f"{DEVICE} cannot be opened: {error.strerror}", advice)
    except OSError as error:
        advice = "load the kernel's fuse module (`modprobe fuse`)"
        return Check(name, CheckOutcome.FAILED, f"{DEVICE} cannot be opened: {error.strerror}", advice)
    look = os.fstat(descriptor)
    os.close(descriptor)
    if not stat.S_ISCHR(look.st_mode) or look.st_rdev != _NUMBER:
        advice = f"make it with `mknod -m 666 {DEVICE} c 10 229`"
        return Check(name, CheckOutcome.FAILED, f"{DEVICE} is not the kernel's device", advice)
    return Check(name, CheckOutcome.OK, f"{DEVICE} can be opened (mode {stat.S_IMODE(look.st_mode):o})")


def check_kernel(plan: Plan) -> Check:
    """Check the kernel's release, and which newer features it allows."""
    name, release = "kernel", platform.release()
    match = re.match(r"(\d+)\.(\d+)", release)
    number = (int(match[1]), int(match[2])) if match else _OLDEST
    if plan.engine is EngineName.KERNEL and number < _OLDEST:
        # Distributions add newer versions of FUSE to older kernels. Only the mount itself learns the version.
        detail = f"Linux {release} is older than 5.4, and a mount fails unless its FUSE is newer (7.31)"
        return Check(name, CheckOutcome.WARNING, detail, "if it fails, mount with --engine libfuse2")
    missing = []
    if number < _PASSTHROUGH:
        missing.append("Linux 6.9")
    if not plan.is_root:
        missing.append("root")
    if plan.engine is not EngineName.KERNEL:
        missing.append("--engine kernel")
    used = "is not used: it needs " + ", ".join(missing) if missing else "is used, where the store's files allow it"
    return Check(name, CheckOutcome.OK, f"Linux {release}; passthrough of reads {used}")


def check_capabilities(plan: Plan) -> Check:  # noqa: ARG001
    """Check that nothing takes the right to mount from this process and its helper."""
    name = "capabilities"
    bounding = int(_of_process("CapBnd") or "f" * 16, 16)
    if not bounding >> _SYS_ADMIN & 1:
        detail = "neither this process nor a helper may mount, since the capability SYS_ADMIN was taken away"
        return Check(name, CheckOutcome.FAILED, detail, _CONTAINER)
    profile = _apparmor()
    if profile.endswith("(enforce)") and profile.startswith(("docker-", "cri-containerd", "containers-")):
        detail = f"the AppArmor profile {profile} may forbid to mount"
        return Check(name, CheckOutcome.WARNING, detail, "start the container with --security-opt apparmor=unconfined")
    return Check(name, CheckOutcome.OK, "the capability SYS_ADMIN is within reach")


def check_open_files(plan: Plan) -> Check:  # noqa: ARG001
    """Check how many files a daemon may have open."""
    name, (_, hard) = "open files", resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _DESCRIPTORS:
        detail = f"a daemon may have {hard} files open, and many readers need {_DESCRIPTORS}"
        return Check(name, CheckOutcome.WARNING, detail, "raise the limit (`ulimit -Hn`, or LimitNOFILE= of the unit)")
    return Check(name, CheckOutcome.OK, f"a daemon may have {'any number of' if hard < 0 else hard} files open")


def may_mount() -> bool:
    """Tell whether this process may mount without a helper: it is root's, or has the capability."""
    return bool(int(_of_process("CapEff") or "0", 16) >> _SYS_ADMIN & 1)


def has_no_new_privileges() -> bool:
    """Tell whether setuid programs give this process no rights."""
    return _of_process("NoNewPrivs") == "1"


def _of_process(field: str) -> str:
    """Return a field of /proc/self/status; empty if the kernel does not tell it."""
    match = re.search(rf"^{field}:\s*(\S+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return match[1] if match else ""


def _apparmor() -> str:
    try:
        return Path("/proc/self/attr/current").read_text().strip("\0\n ")
    except OSError:
        return ""
