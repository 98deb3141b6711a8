"""Checks of the store, its staging area, and the directories for state and cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bentofs.mount.daemon.checks.check import Check, CheckOutcome, Plan
from bentofs.mount.errors import exit_status_of
from bentofs.store.errors import StoreError
from bentofs.store.paths import cache_folder, state_folder
from bentofs.store.staging.area import staging_area
from bentofs.store.util.display import printable
from bentofs.store.util.fs import nearest_existing

_LITTLE = 1 << 30  # bytes
_FEW_FILES = 1000


def check_store(plan: Plan) -> Check:
    """Check that the store is there, and may be read and written."""
    name, shown = "store", printable(plan.store.location)
    try:
        plan.store.check()
        if plan.store.folder is None and plan.opens_store:
            plan.store.open()
    except StoreError as error:
        return Check(name, CheckOutcome.FAILED, str(error), status=exit_status_of(error))
    if plan.store.folder is None:
        return Check(name, CheckOutcome.OK, f"{shown} answers" if plan.opens_store else shown)
    if not plan.store.may_be_read():
        return Check(name, CheckOutcome.FAILED, f"the model store {shown} may not be read by you")
    if not plan.store.may_be_written():
        detail = f"{shown} may not be written by you: no incoming/ in this mount"
        return Check(name, CheckOutcome.OK if plan.read_only else CheckOutcome.WARNING, detail)
    return Check(name, CheckOutcome.OK, f"{shown} may be read and written")


def check_space(plan: Plan) -> Check:
    """Check that there is room for imports."""
    name = "space"
    if plan.store.folder is None:
        return Check(name, CheckOutcome.OK, "a store that is a URL says nothing of its space")
    try:
        found = os.statvfs(plan.store.folder)
    except OSError as error:
        return Check(name, CheckOutcome.WARNING, f"the free space of the store is unknown: {error.strerror}")
    free = found.f_bavail * found.f_frsize
    detail = f"{free / 1e9:.1f} GB are free for the store"
    if free < _LITTLE:
        return Check(name, CheckOutcome.WARNING, detail, "imports will soon fail: free some space")
    if found.f_files and found.f_favail < _FEW_FILES:
        advice = "imports will soon fail: delete some files"
        return Check(name, CheckOutcome.WARNING, f"{found.f_favail} more files fit on the store's file system", advice)
    return Check(name, CheckOutcome.OK, detail)


def check_staging(plan: Plan) -> Check:
    """Check that models can be staged for imports: on the store's file system, by this user."""
    name = "staging"
    if not plan.has_incoming:
        return Check(name, CheckOutcome.OK, "not needed without incoming/")
    try:
        area = staging_area(plan.store.location, plan.store.folder, plan.staging)
        area.check()
    except StoreError as error:
        return Check(name, CheckOutcome.FAILED, str(error), status=exit_status_of(error))
    return Check(name, CheckOutcome.OK, f"models can be staged in {printable(area.path)}")


def check_state(plan: Plan) -> Check:
    """Check the directory for logs and recorded SHA-256s."""
    outcome = CheckOutcome.FAILED if plan.logs_to_state else CheckOutcome.WARNING
    return _own_folder("state", state_folder, "XDG_STATE_HOME", outcome)


def check_cache(plan: Plan) -> Check:  # noqa: ARG001 - all checks take the plan
    """Check the directory for measured sizes. Without it, each mount measures anew."""
    return _own_folder("cache", cache_folder, "XDG_CACHE_HOME", CheckOutcome.WARNING)


def _own_folder(name: str, find: Callable[[], Path], variable: str, outcome: CheckOutcome) -> Check:
    """Check that a directory of the user's own can be made, or be used."""
    advice = f"set {variable} to a directory of yours"
    try:
        folder = find()
    except StoreError as error:
        return Check(name, outcome, str(error))
    shown = printable(str(folder))
    there = nearest_existing(str(folder))
    if there == str(folder):
        owner = os.stat(there).st_uid
        if owner != os.geteuid():
            return Check(name, outcome, f"{shown} belongs to user {owner}, not to you", advice)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        return Check(name, outcome, f"{shown} may not be written by you", advice)
    return Check(name, CheckOutcome.OK, f"{shown} may be written")
