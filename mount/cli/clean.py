"""The command `bentofs clean`."""

from __future__ import annotations

import logging

import click

from bentofs.mount.cli.options import log_to_stderr, staging_option, store_options
from bentofs.mount.cli.output import json_option, print_document, size_text
from bentofs.mount.cli.tables import in_columns
from bentofs.mount.daemon.running import log_path
from bentofs.mount.kernel.mount_table import our_mounts
from bentofs.store.storage.open import StoreSpec
from bentofs.store.upkeep.clean import Upkeep
from bentofs.store.upkeep.report import Line
from bentofs.store.util.display import printable


@click.command(name="clean")
@store_options
@staging_option
@click.option("--dry-run", is_flag=True, help="Only tell what is kept, and what would be removed.")
@click.option(
    "--gone-stores", is_flag=True, help="Also forget stores that are not there. Else their disk may not be mounted."
)
@json_option
def clean_command(store: StoreSpec, staging: str | None, dry_run: bool, gone_stores: bool, as_json: bool) -> None:
    """Show what bentofs keeps on disk for you, and remove what is stale.

    Stale are measurements and SHA-256s of models that are gone, logs of mounts that have been gone for 30 days, and
    what dead processes staged. Interrupted uploads stay. All local stores that bentofs knows are looked at; --store
    names one more.
    """
    log_to_stderr()
    logging.getLogger("bentofs.store.catalog").setLevel(logging.ERROR)  # models that are left out are no news here
    used = {log_path(mount.path) for mount in our_mounts()}
    lines = list(Upkeep([store], staging, used, dry_run=dry_run, gone=gone_stores).run())
    if as_json:
        print_document([_fields(line) for line in lines])
        return
    rows = [("Kept", "Size", "Stale" if dry_run else "Freed", "Where", "")]
    for line in lines:
        freed = line.stale if dry_run else line.size - line.left
        rows.append(
            (line.kept.value, size_text(line.left), size_text(freed), printable(line.path), printable(line.note))
        )
    click.echo("\n".join(in_columns(rows, right={1, 2})))


def _fields(line: Line) -> dict[str, object]:
    return {
        "kept": line.kept.name.lower(),
        "path": line.path,
        "size": line.size,
        "stale": line.stale,
        "left": line.left,
        "note": line.note,
    }
