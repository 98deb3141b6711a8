"""Checks of libfuse, of the helper that mounts for ordinary users, and of its configuration."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shlex
import stat

from bentofs.mount.daemon.checks.check import Check, CheckOutcome, Plan
from bentofs.mount.daemon.checks.system import has_no_new_privileges, may_mount
from bentofs.mount.kernel.engine import EngineName
from bentofs.mount.kernel.mount_table import HELPERS, count_fuse_mounts, find_helper

_CONFIGURATION = "/etc/fuse.conf"
_DEFAULT_MOST = 1000  # mounts of ordinary users
_NEARLY = 0.9
_DISTRIBUTIONS = ("/usr/bin/", "/bin/")  # helpers there read the configuration above


def check_libfuse(plan: Plan) -> Check:
    """Check that libfuse 2 can be loaded, if the engine needs it."""
    name = "libfuse"
    if plan.engine is not EngineName.LIBFUSE2:
        return Check(name, CheckOutcome.OK, "not needed: the engine kernel speaks to the kernel itself")
    library = os.environ.get("FUSE_LIBRARY_PATH") or ctypes.util.find_library("fuse")  # fusepy finds it the same way
    try:
        version = ctypes.CDLL(library or "libfuse.so.2").fuse_version()
    except (OSError, AttributeError):
        advice = "`apt install libfuse2` (libfuse2t64 on Ubuntu 24.04) first, or use --engine kernel"
        return Check(name, CheckOutcome.FAILED, "libfuse 2 is not installed", advice)
    if version // 10 != 2:
        detail = f"{library} is version {version / 10:.1f}, and the engine needs version 2"
        return Check(name, CheckOutcome.FAILED, detail, "unset FUSE_LIBRARY_PATH, or use --engine kernel")
    return Check(name, CheckOutcome.OK, f"libfuse {version / 10:.1f}")


def check_helper(plan: Plan) -> Check:
    """Check that the mount helper for ordinary users is installed and may mount."""
    name, helper = "helper", find_helper()
    if plan.is_root:
        return Check(name, CheckOutcome.OK, "not needed: root mounts itself")
    if helper is None:
        detail = f"neither {' nor '.join(HELPERS)} is installed, and only root mounts without"
        return Check(name, CheckOutcome.FAILED, detail, "`apt install fuse3` first")
    if _has_capabilities(helper):
        return Check(name, CheckOutcome.OK, f"{helper} may mount, by its capabilities")
    if not os.stat(helper).st_mode & stat.S_ISUID:
        detail = f"{helper} may not mount, since its setuid bit is missing"
        return Check(name, CheckOutcome.FAILED, detail, f"`sudo chmod u+s {shlex.quote(helper)}` first")
    if os.statvfs(helper).f_flag & os.ST_NOSUID:
        detail = f"{helper} may not mount, since its file system is mounted with nosuid"
        return Check(name, CheckOutcome.FAILED, detail, "install fuse3 on another file system, or mount as root")
    if has_no_new_privileges():
        detail = f"{helper} may not mount, since this process gets no new privileges"
        advice = "do without NoNewPrivileges= of the unit, or allow privilege escalation in the container"
        return Check(name, CheckOutcome.FAILED, detail, advice)
    return Check(name, CheckOutcome.OK, f"{helper} may mount")


def check_allow_other(plan: Plan) -> Check:
    """Check whether this user may show a mount to others."""
    name = "allow_other"
    if plan.is_root or may_mount():
        return Check(name, CheckOutcome.OK, "root may use --allow-other")
    if "user_allow_other" in _configuration():
        return Check(name, CheckOutcome.OK, f"{_CONFIGURATION} lets ordinary users use --allow-other")
    if not plan.allow_other:
        return Check(name, CheckOutcome.OK, f"only root may use --allow-other, by {_CONFIGURATION}")
    helper = os.path.realpath(find_helper() or "")
    outcome = CheckOutcome.FAILED if helper.startswith(_DISTRIBUTIONS) else CheckOutcome.WARNING
    detail = "only root may use --allow-other here"
    return Check(name, outcome, detail, f"add the line user_allow_other to {_CONFIGURATION}")


def check_mount_max(plan: Plan) -> Check:
    """Check how many mounts ordinary users may still make."""
    name = "mount_max"
    if plan.is_root or may_mount():
        return Check(name, CheckOutcome.OK, "root may make any number of mounts")
    most = _DEFAULT_MOST
    for line in _configuration():
        word, _, number = line.partition("=")
        if word.strip() == "mount_max" and number.strip().lstrip("-").isdigit():
            most = int(number)
    there = count_fuse_mounts()
    detail = f"there are {there} of {most} mounts of FUSE"
    if most < 0:
        return Check(name, CheckOutcome.OK, "ordinary users may make any number of mounts")
    advice = f"unmount some, or raise mount_max in {_CONFIGURATION}"
    if there >= most:
        return Check(name, CheckOutcome.FAILED, detail, advice)
    if there >= most * _NEARLY:
        return Check(name, CheckOutcome.WARNING, detail, advice)
    return Check(name, CheckOutcome.OK, detail)


def _configuration() -> list[str]:
    """Return the lines of the helper's configuration. Some systems let only root read it; then return nothing."""
    try:
        with open(_CONFIGURATION, encoding="utf-8", errors="replace") as file:
            return [line.partition("#")[0].strip() for line in file]
    except OSError:
        return []


def _has_capabilities(program: str) -> bool:
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False
