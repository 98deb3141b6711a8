"""Check the versions of Python and of the libraries."""

from __future__ import annotations

import platform

from bentofs.mount.daemon.checks.check import Check, CheckOutcome, Plan

_US = "bentofs"


def check_libraries(plan: Plan) -> Check:  # noqa: ARG001 - all checks take the plan
    """Check that all libraries are there, in versions that bentofs was made for."""
    # A daemon in the background makes no checks, and needs none of these modules.
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
