"""Check the mounts of bentofs that are there already."""

from __future__ import annotations

import os
import shlex

from bentofs.mount.daemon.checks.check import Check, CheckOutcome, Plan
from bentofs.mount.daemon.look import MountState, look_at
from bentofs.mount.kernel.mount_table import our_mounts
from bentofs.store.util.display import printable


def check_mounts(plan: Plan) -> Check:  # noqa: ARG001 - all checks take the plan
    """Check that the daemon of each of the user's mounts answers. Call it while this process has one thread."""
    name, user = "mounts", os.geteuid()
    reports = look_at([mount for mount in our_mounts() if user in (0, mount.user)])
    dead = [printable(report.mount.path) for report in reports if report.state is MountState.STALE]
    stuck = [printable(report.mount.path) for report in reports if report.state is MountState.STUCK]
    if dead:
        advice = "; ".join(f"`bentofs unmount {shlex.quote(path)}`" for path in dead)
        return Check(name, CheckOutcome.WARNING, f"the daemon of {', '.join(dead)} has died", advice)
    if stuck:
        return Check(
            name, CheckOutcome.WARNING, f"the daemon of {', '.join(stuck)} does not answer", "`bentofs status`"
        )
    return Check(name, CheckOutcome.OK, f"mounts of yours that serve: {len(reports)}")
