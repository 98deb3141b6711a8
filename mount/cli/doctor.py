"""The command `bentofs doctor`: everything that a mount needs, and what to do about what is missing."""

from __future__ import annotations

import click

from bentofs.mount.cli.complete import complete_directory
from bentofs.mount.cli.config import optional_mountpoint
from bentofs.mount.cli.engine_option import engine_option
from bentofs.mount.cli.options import log_to_stderr, staging_option, store_options
from bentofs.mount.cli.output import json_option, print_document
from bentofs.mount.daemon.checks.check import Check, CheckOutcome, Plan
from bentofs.mount.daemon.checks.mounts import check_mounts
from bentofs.mount.daemon.preflight import check_mountpoint, run_checks
from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.engine import EngineName
from bentofs.store.storage.open import StoreSpec
from bentofs.store.util.display import printable

_WIDTHS = 8, 13  # of outcomes and names


@click.command(name="doctor")
@click.argument("mountpoint", required=False, callback=optional_mountpoint, shell_complete=complete_directory)
@store_options
@staging_option
@engine_option("The engine that is to mount.")
@click.option("--allow-other", is_flag=True, help="Check for a mount that other users may read.")
@json_option
def doctor_command(
    mountpoint: str | None, store: StoreSpec, staging: str | None, engine: str, allow_other: bool, as_json: bool
) -> int:
    """Check everything that a mount needs, at MOUNTPOINT if it is given, and say what to do.

    `bentofs mount` checks the same before it mounts, except for other mounts. The exit status is 1 if a mount would
    fail.
    """
    log_to_stderr()
    plan = Plan(store, EngineName(engine), allow_other, staging, opens_store=True)
    checks = [check_mounts(plan)]  # first: it forks, and a store that is a URL starts threads
    if mountpoint is not None:
        checks.append(_mountpoint(mountpoint, store))
    checks = [*run_checks(plan), *checks]
    if as_json:
        print_document([_described(check) for check in checks])
    else:
        for check in checks:
            click.echo(f"{check.outcome.value:{_WIDTHS[0]}}{check.name:{_WIDTHS[1]}}{check.detail}")
            if check.advice:
                click.echo(f"{'':{sum(_WIDTHS)}}-> {check.advice}")
    return int(any(check.outcome is CheckOutcome.FAILED for check in checks))


def _mountpoint(mountpoint: str, store: StoreSpec) -> Check:
    try:
        real = check_mountpoint(mountpoint, store.folder)
    except CannotMountError as error:
        return Check("mountpoint", CheckOutcome.FAILED, str(error))
    return Check("mountpoint", CheckOutcome.OK, f"{printable(real)} is free")


def _described(check: Check) -> dict[str, str | None]:
    return {
        "name": check.name,
        "outcome": check.outcome.value,
        "detail": check.detail,
        "advice": check.advice or None,
    }
