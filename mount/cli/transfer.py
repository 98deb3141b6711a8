"""The commands `bentofs export` and `bentofs import`. If several transfers fail, the exit status is the first
failure's."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import click

from bentofs.mount.cli.complete import complete_file, complete_tag_or_path, complete_word
from bentofs.mount.cli.format_options import compression_for, compression_option
from bentofs.mount.cli.jobs import Job, JobReport, run_jobs
from bentofs.mount.cli.options import KeyValue, log_to_stderr, staging_option, store_options
from bentofs.mount.cli.output import json_option
from bentofs.mount.cli.progress import Task
from bentofs.mount.daemon.malloc import share_memory
from bentofs.mount.daemon.stdio import INPUT, OUTPUT
from bentofs.store.errors import BadTagError, StoreUnwritableError
from bentofs.store.formats.write.registry import FOLDER
from bentofs.store.location import Location
from bentofs.store.model.tag import Tag
from bentofs.store.storage.open import StoreSpec
from bentofs.store.transfer.endpoints.special import is_special, own_descriptor
from bentofs.store.transfer.exporter import Export, Exported, known_formats
from bentofs.store.transfer.fetcher import Imported
from bentofs.store.util.display import printable
from bentofs.store.wiring.transfers import opened_exporter, opened_fetcher


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both commands have."""
    options: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        click.option(
            "--format",
            "format_name",
            metavar="FORMAT",
            shell_complete=complete_word(known_formats()),
            help=f"One of {', '.join(known_formats())}.",
        ),
        click.option("--protocol", help="The protocol, if PATH is not a URL: ftp, s3, sftp, ..."),
        click.option("--subpath", metavar="PATH", help="With --protocol: the path below the host or bucket."),
        click.option("--user", envvar="BENTOFS_USER", help="The user name. $BENTOFS_USER does the same."),
        click.option(
            "--passwd",
            envvar="BENTOFS_PASSWD",
            help="The password. Prefer $BENTOFS_PASSWD: other users see arguments for a moment.",
        ),
        click.option(
            "--param",
            "params",
            type=KeyValue(as_json=False),
            multiple=True,
            metavar="KEY=VALUE",
            help="With --protocol: a parameter, as in the query of a URL.",
        ),
        click.option(
            "--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="How many transfers run at once."
        ),
        click.option("--quiet", is_flag=True, help="Print errors only."),
        json_option,
    ]
    command = store_options(command)
    for option in reversed(options):
        command = option(command)
    return command


@click.command(name="export")
@click.argument("arguments", nargs=-1, metavar="[TAG]... [PATH|URL|-]", shell_complete=complete_tag_or_path)
@click.option("--all", "everything", is_flag=True, help="Export all models. Give no TAG then.")
@click.option("--sha256", is_flag=True, help="Write <file>.sha256 beside each archive.")
@compression_option
@_common
def export_command(
    arguments: tuple[str, ...],
    everything: bool,
    sha256: bool,
    compression: str | None,
    format_name: str | None,
    store: StoreSpec,
    quiet: bool,
    as_json: bool,
    jobs: int,
    **parts: Any,
) -> None:
    """Export models to a PATH, a URL, or - for standard output. Without one: to the working directory.

    The extension or --format selects the format. In a directory, the file is <name>-<version>.<extension>.
    """
    log_to_stderr()
    share_memory()
    tags, path = _tags_and_path(arguments, everything, is_host=parts["protocol"] is not None)
    target = _location("/dev/stdout" if path == "-" else path, parts)
    is_stream = target.is_local and is_special(target.path)
    shown = "standard output" if path == "-" else target.shown
    descriptor = own_descriptor(target.path) if is_stream else None
    to_stdout = descriptor == OUTPUT
    if descriptor is not None:
        _refuse_unusable(descriptor, shown)
    is_with_reports = descriptor is not None and _is_output(descriptor)
    stop = threading.Event()
    with opened_exporter(store, compression_for(compression, store)) as (models, exporter):
        wanted = [models.find(text) for text in tags] if not everything else models.tags()
        if is_stream and (len(wanted) != 1 or sha256 or format_name == FOLDER):
            raise click.UsageError(f"{shown} takes one archive, and no --sha256")
        several = (everything or len(wanted) > 1) and not is_stream
        if several and not target.is_folder:
            if format_name != FOLDER and not everything:
                raise click.UsageError(f"{target.shown} must be a directory for several models: end it with a slash")
            target = target.at(f"{target.path}/")
        exports = [exporter.plan(tag, target, format_name) for tag in wanted]
        if several:
            exports = _spread(exports, target)

        def give_up() -> None:
            stop.set()
            exporter.give_up()

        def job(export: Export) -> Job:
            def run(task: Task) -> JobReport:
                if to_stdout and export.format is not None:
                    done = exporter.write_out(export.tag, export.format, OUTPUT, shown, task.advance, task.expect)
                else:
                    done = exporter.run(export, task.advance, sha256=sha256, stops=[stop], expect=task.expect)
                return _described_export(done, export.suffix_for_bentoml)

            return Job(str(export.tag), run)

        run_jobs(map(job, exports), give_up, jobs, quiet=quiet, as_json=as_json, to_stderr=is_with_reports)


@click.command(name="import")
@click.argument("sources", nargs=-1, required=True, metavar="PATH|URL|-...", shell_complete=complete_file)
@click.option("--overwrite", is_flag=True, help="Replace a model of the same tag with other content.")
@staging_option
@_common
def import_command(
    sources: tuple[str, ...],
    overwrite: bool,
    staging: str | None,
    format_name: str | None,
    store: StoreSpec,
    quiet: bool,
    as_json: bool,
    jobs: int,
    **parts: Any,
) -> None:
    """Import models from a PATH, a URL, or - for standard input: archives of any kind, or directories.

    An archive is compared with <file>.sha256, if that lies beside it.
    """
    log_to_stderr()
    share_memory()
    if sources.count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    stop = threading.Event()
    places = [None if path == "-" else _location(path, parts) for path in sources]
    with opened_fetcher(
        store,
        overwrite=overwrite,
        staging=staging,
        stops=[stop],
    ) as fetcher:

        def job(place: Location | None) -> Job:
            def run(task: Task) -> JobReport:
                if place is None:
                    done = fetcher.fetch_stream(INPUT, "standard input", task.advance, format_name)
                else:
                    done = fetcher.fetch(place, task.advance, format_name, task.expect)
                return _described_import(done, "-" if place is None else place.shown)

            return Job("standard input" if place is None else place.shown, run)

        run_jobs(map(job, places), stop.set, jobs, quiet=quiet, as_json=as_json, to_stderr=False)


def _tags_and_path(arguments: Sequence[str], everything: bool, *, is_host: bool) -> tuple[Sequence[str], str]:
    """Return the tags to export, and the target. `is_host`: the target is HOST or HOST:PORT."""
    if everything:
        if len(arguments) > 1:
            raise click.UsageError("--all takes a target, and no TAG")
        return (), arguments[0] if arguments else "./"
    if not arguments:
        raise click.UsageError("name a TAG, or use --all")
    if len(arguments) == 1:
        return arguments, "./"
    path = arguments[-1]
    with suppress(BadTagError):
        # It is most likely one of several tags: the model before it would get a file of this name.
        if not is_host and Tag.parse(path.lower()):
            raise click.UsageError(f"{path} is a tag where a PATH belongs: end with ./, or write ./{path}")
    return arguments[:-1], path


def _refuse_unusable(descriptor: int, shown: str) -> None:
    """Refuse a terminal, and a descriptor that this process was not given."""
    try:
        is_given = os.get_inheritable(descriptor) or descriptor == OUTPUT  # Python's own are not inheritable
    except OSError:
        is_given = False
    if not is_given:
        raise StoreUnwritableError(f"{shown} cannot be written: it is not open")
    if os.isatty(descriptor):
        raise click.UsageError(f"an archive cannot be written to a terminal: redirect {shown}")


def _is_output(descriptor: int) -> bool:
    """Tell whether a descriptor leads to standard output, so that reports would mix with the data."""
    return os.path.sameopenfile(descriptor, OUTPUT)


def _spread(exports: list[Export], target: Location) -> list[Export]:
    """Return the exports to one directory such that none replaces another. a-b:c and a:b-c make the same
    <name>-<version>, so a directory with the name comes before it."""
    named = []
    for export in exports:
        if export.format is None and export.location == target:
            export = replace(export, location=target.below(export.tag.stem))
        named.append(export)
    places = Counter(export.location.path for export in named)
    spread = []
    for export in named:
        if places[export.location.path] > 1:
            name = os.path.basename(export.location.path)
            export = replace(export, location=target.below(export.tag.name).below(name))
        spread.append(export)
    return spread


def _location(path: str, parts: Mapping[str, Any]) -> Location:
    """Return the location that the user wrote. It gets the credentials of the environment if it has none of its own."""
    context = click.get_current_context()
    given = {
        name: parts[name]
        for name in ("protocol", "subpath", "user", "passwd")
        if parts[name] is not None and context.get_parameter_source(name) is not click.core.ParameterSource.ENVIRONMENT
    }
    location = Location.parse(path, params=dict(parts["params"]) or None, **given)
    if not location.is_local:
        location = replace(
            location,
            user=location.user if location.user is not None else parts["user"],
            password=location.password if location.password is not None else parts["passwd"],
        )
    return location


def _described_export(done: Exported, suffix: str | None) -> JobReport:
    """Return the report. `suffix`: the extension that BentoML needs to open the file, if the file has another one."""
    fields = {"tag": str(done.tag), "url": done.url, "size": done.size, "sha256": done.sha256}
    text = f"{done.tag} -> {printable(done.url)}"
    return text if suffix is None else f"{text}, which BentoML opens only if it is renamed to end in {suffix}", fields


def _described_import(done: Imported, source: str) -> JobReport:
    fields = {
        "tag": str(done.tag),
        "source": source,
        "outcome": done.outcome.value,
        "size": done.size,
        "sha256": done.sha256,
        "note": done.left_out,
    }
    note = f"; {done.left_out}" if done.left_out else ""
    return f"{source} -> {done.tag}: {done.outcome.value}{note}", fields
