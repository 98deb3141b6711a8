"""Check the versions of Python and of the libraries."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading

from bentofs.mount.daemon.checks.check import Check, CheckOutcome, Plan

_US = "bentofs"


def check_libraries(plan: Plan) -> Check:  # noqa: ARG001 - all checks take the plan
    """Check that all libraries are there, in versions that bentofs was made for."""
    # The modules that know versions take 4 MB. A mount in the foreground would keep them for its whole life.
    return _checked_in_child() or _checked_here()


def _checked_in_child() -> Check | None:
    """Check in a child process, which takes its memory with it. Return None where that fails."""
    if threading.active_count() > 1:  # the child would have their locks, and nobody to release them
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        receiving, sending = os.pipe()
    except OSError:
        return None
    try:
        child = os.fork()
    except OSError:
        os.close(receiving)
        os.close(sending)
        return None
    if child == 0:
        try:
            name, outcome, *others = _checked_here()
            os.write(sending, json.dumps([name, outcome.value, *others]).encode())
        finally:
            os._exit(0)
    os.close(sending)
    with open(receiving, "rb") as answer:
        told = answer.read()
    os.waitpid(child, 0)
    if not told:
        return None
    name, outcome, *others = json.loads(told)
    return Check(name, CheckOutcome(outcome), *others)


def _checked_here() -> Check:
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    name = "libraries"
    try:
        needed = [Requirement(text) for text in requires(_US) or ()]
    except PackageNotFoundError:
        return Check(name, CheckOutcome.WARNING, "bentofs runs from its source, so versions are unknown")
    found, wrong = [], []
    for each in needed:
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(each.name)
        except PackageNotFoundError:
            wrong.append(f"{each.name} is missing")
            continue
        found.append(f"{each.name} {there}")
        if not each.specifier.contains(there, prereleases=True):
            wrong.append(f"{each.name} {there} is not {each.specifier}")
    if wrong:
        return Check(name, CheckOutcome.WARNING, "; ".join(wrong), "install bentofs again with pip")
    return Check(
        name, CheckOutcome.OK, ", ".join([f"bentofs {version(_US)}", f"Python {platform.python_version()}", *found])
    )
