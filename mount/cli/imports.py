"""`bentofs imports`: the copies into `incoming/` and their outcomes, for people and for programs."""

from __future__ import annotations

import sys
import time

import click

from bentofs.mount.cli.options import log_to_stderr, staging_option, store_options
from bentofs.mount.cli.output import json_option, print_line, size_text
from bentofs.store.errors import StoreUnreadableError
from bentofs.store.staging.area import StagingArea, staging_area
from bentofs.store.storage.open import StoreSpec
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.receipt import Receipt
from bentofs.store.util.display import printable

_INTERVAL = 0.5  # seconds between two looks


@click.command(name="imports")
@store_options
@staging_option
@json_option
@click.option("--follow", is_flag=True, help="Print every change until interrupted.")
@click.option(
    "--limit",
    type=click.IntRange(0, sys.maxsize),
    default=100,
    show_default=True,
    help="How many imports to show, the newest ones.",
)
def imports_command(store: StoreSpec, staging: str | None, as_json: bool, follow: bool, limit: int) -> None:
    """List imports and their outcomes: copies into incoming/, and files of `bentofs import`."""
    log_to_stderr()
    store.check()
    area = staging_area(store.location, store.folder, staging)
    if follow:
        _follow_imports(area, as_json, limit)
    else:
        _show_imports(area, as_json, limit)


def _show_imports(area: StagingArea, as_json: bool, limit: int) -> None:
    """Print the newest imports, the newest last."""
    receipts = _open(area)
    found = list(reversed(receipts.recent(limit))) if receipts is not None else []
    if as_json:
        for receipt in found:
            _print_json(receipt)
        return
    from rich.console import Console  # slow to load, and --json needs none of it
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("Started", "File", "Outcome", "Model", "Received"):
        table.add_column(heading, justify="right" if heading == "Received" else "left")
    table.add_column("Reason", overflow="fold")
    for receipt in found:
        table.add_row(*_cells(receipt))
    # A pipe or a file gets whole lines without colours, whatever FORCE_COLOR says.
    is_terminal = sys.stdout.isatty()
    console = Console(
        highlight=False,
        markup=False,
        emoji=False,
        width=None if is_terminal else 1000,
        color_system="auto" if is_terminal else None,
    )
    console.print(table)


def _follow_imports(area: StagingArea, as_json: bool, limit: int) -> None:
    """Print the newest imports, then every change, until interrupted."""
    receipts = _open(area)
    change = -1
    while True:
        if receipts is None:
            receipts = _open(area)
        elif change < 0:
            found = list(reversed(receipts.recent(limit)))
            change = max((receipt.change for receipt in found), default=0)
            _print_all(found, as_json)
        else:
            found = receipts.since(change)
            change = max((receipt.change for receipt in found), default=change)
            _print_all(found, as_json)
        time.sleep(_INTERVAL)


def _open(area: StagingArea) -> ImportLog | None:
    """Open the record of imports. Return None if nothing was ever imported: looking must not make a record.

    Raises:
        StoreUnreadableError: the record cannot be read, for example because it is another user's; the log says why.
    """
    try:
        if not area.receipts.exists():
            return None
    except PermissionError:
        raise StoreUnreadableError(
            f"the record of imports {printable(str(area.receipts))} cannot be read by you: ask a user who imports"
        ) from None
    receipts = ImportLog(area.receipts)
    if not receipts.is_on_disk:
        raise StoreUnreadableError(f"the record of imports {printable(str(area.receipts))} cannot be read")
    return receipts


def _print_all(receipts: list[Receipt], as_json: bool) -> None:
    for receipt in receipts:
        if as_json:
            _print_json(receipt)
        else:
            click.echo("  ".join(cell for cell in _cells(receipt) if cell))
    sys.stdout.flush()


def _cells(receipt: Receipt) -> list[str]:
    return [
        f"{receipt.started.astimezone():%Y-%m-%d %H:%M:%S}",
        printable(receipt.path),
        receipt.state.value,
        receipt.tag or "",
        size_text(receipt.received),
        printable(receipt.error or receipt.note or ""),
    ]


def _print_json(receipt: Receipt) -> None:
    fields = {
        "id": receipt.id,
        "request": receipt.request,
        "file": receipt.path,
        "state": receipt.state.value,
        "tag": receipt.tag,
        "received": receipt.received,
        "size": receipt.size,
        "uid": receipt.uid,
        "started": receipt.started.isoformat(),
        "ended": receipt.ended and receipt.ended.isoformat(),
        "error": receipt.error,
        "errno": receipt.errno,
        "note": receipt.note,
    }
    print_line(fields)
