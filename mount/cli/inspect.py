"""The commands that look at a store: `bentofs list`, `verify`, `imports`, `measure`."""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from bentofs.mount.cli.format_options import checked_formats, formats_option
from bentofs.mount.cli.imports import follow_imports, show_imports
from bentofs.mount.cli.options import (
    compression_for,
    compression_option,
    follow_links_option,
    log_to_stderr,
    open_store,
    staging_option,
    store_options,
)
from bentofs.mount.cli.tables import in_columns
from bentofs.store.archives.archives import Archives
from bentofs.store.archives.index import Index
from bentofs.store.errors import AlteredModelError, StoreError
from bentofs.store.formats.write.registry import Format
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.verify import Outcome, verify_model
from bentofs.store.model.model import Model
from bentofs.store.staging.area import staging_area
from bentofs.store.storage.open import StoreSpec
from bentofs.store.util.display import printable


@click.command(name="list")
@store_options
@follow_links_option
@click.option("--json", "as_json", is_flag=True, help="One JSON array, sizes in bytes.")
def list_command(store: StoreSpec, follow_links: bool, as_json: bool) -> None:
    """List the models of a store."""
    models = open_store(store, follow_links=follow_links)
    if as_json:
        click.echo(json.dumps([_described(model) for model in models.models()], indent=2))
        return
    rows = [("Tag", "Size", "Files", "Module", "Created")]
    for model in models.models():
        created = f"{model.info.creation_time:%Y-%m-%d %H:%M:%S}"
        shown = printable(model.info.module)
        rows.append((str(model.tag), decimal(model.size), str(model.file_count), shown, created))
    click.echo("\n".join(in_columns(rows, right={1, 2})))


@click.command(name="verify")
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@store_options
@follow_links_option
@click.option("--accept", is_flag=True, help="Record what is there now as right, whatever was recorded before.")
def verify_command(tags: tuple[str, ...], store: StoreSpec, follow_links: bool, accept: bool) -> None:
    """Read models whole and compare them with the SHA-256s recorded the first time. Without TAG: all of the store."""
    models = open_store(store, follow_links=follow_links)
    wanted = [models.find(tag) for tag in tags] or models.tags()
    digests = Baseline()
    outcomes: Counter[Outcome] = Counter()
    try:
        for tag in wanted:
            try:
                report = verify_model(models, digests, tag, accept=accept)
            except StoreError as error:
                if tags:
                    raise
                # The model was deleted or replaced meanwhile. Go on with the others.
                click.echo(f"bentofs: {tag}: {error}", err=True)
                outcomes[Outcome.UNREADABLE] += 1
                continue
            click.echo(f"{tag}: {report.sentence()}")
            for path, outcome in report.problems:
                click.echo(f"  {outcome.value}: {printable(path)}")
            outcomes[report.outcome] += 1
    finally:
        digests.close()
    failures = []
    if outcomes[Outcome.DIFFERS]:
        failures.append(f"{outcomes[Outcome.DIFFERS]} differ from what was recorded; if that is meant, use --accept")
    if outcomes[Outcome.UNREADABLE]:
        failures.append(f"{outcomes[Outcome.UNREADABLE]} could not be read whole")
    if outcomes[Outcome.NOT_RECORDED]:
        failures.append(f"{outcomes[Outcome.NOT_RECORDED]} could not be recorded")
    if failures:
        kind = AlteredModelError if outcomes[Outcome.DIFFERS] else StoreError
        raise kind(f"of {len(wanted)} models, {'; '.join(failures)}")


@click.command(name="imports")
@store_options
@staging_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, sizes in bytes.")
@click.option("--follow", is_flag=True, help="Go on as imports begin, proceed and end, until interrupted.")
@click.option("--limit", type=click.IntRange(0, sys.maxsize), default=100, show_default=True, help="How many to show.")
def imports_command(store: StoreSpec, staging: str | None, as_json: bool, follow: bool, limit: int) -> None:
    """Show what was copied into incoming/, and what became of it."""
    log_to_stderr()
    store.check()
    area = staging_area(store.location, staging, is_remote=store.is_remote)
    if follow:
        follow_imports(area, as_json, limit)
    else:
        show_imports(area, as_json, limit)


@click.command(name="measure")
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@store_options
@follow_links_option
@formats_option
@compression_option
def measure_command(
    tags: tuple[str, ...], store: StoreSpec, follow_links: bool, formats: list[Format], compression: str | None
) -> None:
    """Compute sizes and checksums of archives ahead of time, so that the first look at them does not wait.

    Mounts of the same user find them. Formats and compression must be those of the mount. Without TAG: all of the
    store. Known sizes and checksums are not computed again, so an interrupted run goes on the next time.
    """
    chosen = compression_for(compression, store)
    checked_formats(formats, chosen)
    models = open_store(store, follow_links=follow_links)
    wanted = [models.find(tag) for tag in tags] or models.tags()
    index = Index()
    archives = Archives(models.storage, index, chosen, formats=formats)
    failed = 0
    try:
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
            transient=True,
        ) as bar:
            for tag in wanted:
                task = bar.add_task(str(tag), total=None)
                try:
                    model = models.model(tag)
                    bar.update(task, total=model.size)
                    archives.measure(model, formats, functools.partial(bar.advance, task))
                    bar.console.print(f"{tag}: measured ({decimal(model.size)})", soft_wrap=True)
                except StoreError as error:
                    failed += 1
                    click.echo(f"bentofs: {error}", err=True)
                finally:
                    bar.remove_task(task)  # every bar that is left is redrawn again and again
    finally:
        archives.close()
        index.close()
    if failed:
        raise StoreError(f"{failed} of {len(wanted)} models could not be measured")


def _described(model: Model) -> dict[str, str | int]:
    return {
        "tag": str(model.tag),
        "size": model.size,
        "files": model.file_count,
        "module": model.info.module,
        "creation_time": model.info.creation_time.isoformat(),
    }
