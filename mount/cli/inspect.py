"""The commands that read whole models: `bentofs verify` and `bentofs measure`."""

from __future__ import annotations

import json
import time
from collections import Counter

import click

from bentofs.mount.cli.complete import complete_tag
from bentofs.mount.cli.format_options import checked_formats, compression_for, compression_option, formats_option
from bentofs.mount.cli.opening import open_store
from bentofs.mount.cli.options import follow_links_option, log_to_stderr, store_options
from bentofs.mount.cli.output import error_fields, json_option, size_text
from bentofs.mount.cli.progress import Reporter
from bentofs.mount.errors import exit_status_of
from bentofs.store.errors import AlteredModelError, StoreError
from bentofs.store.formats.write.registry import Format
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.verify import VerifyOutcome, VerifyReport, verify_model
from bentofs.store.model.tag import Tag
from bentofs.store.storage.open import StoreSpec
from bentofs.store.util.display import printable
from bentofs.store.wiring.library import opened_library


@click.command(name="verify")
@click.argument("tags", nargs=-1, metavar="[TAG]...", shell_complete=complete_tag)
@store_options
@follow_links_option
@click.option("--accept", is_flag=True, help="Record the current SHA-256s, whatever was recorded before.")
@json_option
def verify_command(tags: tuple[str, ...], store: StoreSpec, follow_links: bool, accept: bool, as_json: bool) -> None:
    """Read models whole and compare them with the SHA-256s recorded the first time. Without TAG: all models."""
    models = open_store(store, follow_links=follow_links)
    wanted = [models.find(tag) for tag in tags] or models.tags()
    digests = Baseline()
    outcomes: Counter[VerifyOutcome] = Counter()
    try:
        with Reporter(quiet=False, as_json=as_json) as reporter:
            for tag in wanted:
                begun = time.monotonic()
                try:
                    with reporter.task(str(tag)) as task:
                        report = verify_model(
                            models, digests, tag, accept=accept, expect=task.expect, progress=task.advance
                        )
                except StoreError as error:
                    if tags:
                        raise
                    # The model was deleted or replaced meanwhile. Go on with the others.
                    _say_failure(reporter, tag, error, as_json=as_json)
                    outcomes[VerifyOutcome.UNREADABLE] += 1
                    continue
                outcomes[report.outcome] += 1
                if as_json:
                    reporter.say(json.dumps(_described(tag, report, time.monotonic() - begun)))
                    continue
                reporter.say(f"{tag}: {report.sentence()}")
                for path, outcome in report.problems:
                    reporter.say(f"  {outcome.value}: {printable(path)}")
    finally:
        digests.close()
    failures = []
    if outcomes[VerifyOutcome.DIFFERS]:
        failures.append(
            f"{outcomes[VerifyOutcome.DIFFERS]} differ from the record: use --accept to record them as they are"
        )
    if outcomes[VerifyOutcome.UNREADABLE]:
        failures.append(f"{outcomes[VerifyOutcome.UNREADABLE]} could not be read whole")
    if outcomes[VerifyOutcome.NOT_RECORDED]:
        failures.append(f"{outcomes[VerifyOutcome.NOT_RECORDED]} could not be recorded")
    if failures:
        kind = AlteredModelError if outcomes[VerifyOutcome.DIFFERS] else StoreError
        raise kind(f"of {len(wanted)} models, {'; '.join(failures)}")


@click.command(name="measure")
@click.argument("tags", nargs=-1, metavar="[TAG]...", shell_complete=complete_tag)
@store_options
@follow_links_option
@formats_option
@compression_option
@json_option
def measure_command(
    tags: tuple[str, ...],
    store: StoreSpec,
    follow_links: bool,
    formats: list[Format],
    compression: str | None,
    as_json: bool,
) -> None:
    """Compute sizes and checksums of archives ahead of time, so that the first look at them does not wait.

    Mounts of the same user find them. Formats and compression must be those of the mount. Without TAG: all
    models. Known sizes and checksums are not computed again, so an interrupted run goes on the next time.
    """
    chosen = compression_for(compression, store)
    checked_formats(formats, chosen)
    log_to_stderr()
    with opened_library(store, chosen, formats=formats, follow_links=follow_links) as library:
        models, archives = library.models, library.archives
        wanted = [models.find(tag) for tag in tags] or models.tags()
        failed = 0
        with Reporter(quiet=False, as_json=as_json) as reporter:
            for tag in wanted:
                begun = time.monotonic()
                try:
                    model = models.model(tag)
                    with reporter.task(str(tag), model.size) as task:
                        archives.measure(model, formats, task.advance)
                    if as_json:
                        sizes = [{"format": kind.name, "size": archives.length(model, kind)} for kind in formats]
                except StoreError as error:
                    failed += 1
                    _say_failure(reporter, tag, error, as_json=as_json)
                    continue
                if as_json:
                    seconds = round(time.monotonic() - begun, 3)
                    fields = {"tag": str(tag), "size": model.size, "archives": sizes, "seconds": seconds}
                    reporter.say(json.dumps(fields))
                else:
                    reporter.say(f"{tag}: measured ({size_text(model.size)})")
    if failed:
        raise StoreError(f"{failed} of {len(wanted)} models could not be measured")


def _say_failure(reporter: Reporter, tag: Tag, error: StoreError, *, as_json: bool) -> None:
    """Report one model's failure. The command goes on with the other models."""
    if as_json:
        reporter.say(json.dumps(error_fields(str(error), exit_status_of(error), name=str(tag))))
    reporter.say(f"bentofs: {tag}: {error}", err=True)


def _described(tag: Tag, report: VerifyReport, seconds: float) -> dict[str, object]:
    return {
        "tag": str(tag),
        "outcome": report.outcome.value,
        "files": report.file_count,
        "size": report.size,
        "problems": [{"path": path, "outcome": outcome.value} for path, outcome in report.problems],
        "seconds": round(seconds, 3),
    }
