"""The command line, `bentofs`. Errors are one sentence on standard error and exit status 1, never a traceback."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import NoReturn

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mount import daemon
from mount.arguments import true_arguments
from mount.imports import follow_imports, show_imports
from mount.incoming import IncomingSettings, staging_area
from mount.logfile import LogFile
from mount.preflight import CannotMountError, check_mountpoint, check_store, check_system
from mount.status import RunningMount, log_path
from mount.store_options import Size, arguments_for, open_store, store_options
from mount.transfer_commands import export_command, import_command
from mount.tree import INCOMING
from store.archive.formats import DEFAULT_FORMATS, FORMATS, Format
from store.archives import Archives
from store.compression import Compression
from store.digests import Digests
from store.errors import StoreError
from store.index import Index
from store.model import Model
from store.staged_model import Limits
from store.storage.place import Place
from store.text import printable
from store.verify import Outcome, verify_model

UNMOUNT_SECONDS = 20.0  # how long a daemon may take to end

staging_option = click.option(
    "--staging",
    metavar="DIR",
    help="Where models are made ready, on the store's file system. Default: a hidden folder beside the store.",
)

follow_links_option = click.option(
    "--follow-links", is_flag=True, help="Follow links that lead out of a model or the store."
)


def main() -> NoReturn:
    """The entry point."""
    try:
        cli(true_arguments(), standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (CannotMountError, StoreError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except Exception as error:
        if os.environ.get("BENTOFS_DEBUG"):
            raise
        _fail(f"this should not happen, please report it (BENTOFS_DEBUG=1 shows where): {error!r}")
    sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bentofs")
def cli() -> None:
    """A BentoML model store as a file system: every model as .bentomodel, .zip, .tar.gz, ready to copy."""


class _Mode(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """Permissions, in octal digits."""

    name = "mode"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            mode = int(value, 8)
        except ValueError:
            mode = -1
        if not 0 < mode <= 0o1777:
            self.fail(f"{value} is no mode of a folder: octal digits, as 1777", param, ctx)
        # Where others may write, nobody may remove what is another's.
        return mode | 0o1000 if mode & 0o022 else mode


class _Formats(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A comma-separated list of format names."""

    name = "list"

    def convert(
        self, value: str | list[Format], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Format]:
        if isinstance(value, list):
            return value
        names = [name.strip().removeprefix(".") for name in value.split(",") if name.strip()]
        unknown = [name for name in names if name not in FORMATS]
        if unknown or not names:
            self.fail(f"{', '.join(unknown) or 'nothing'} is no format; there are {', '.join(FORMATS)}", param, ctx)
        return [FORMATS[name] for name in dict.fromkeys(names)]


formats_option = click.option(
    "--formats",
    type=_Formats(),
    default=",".join(kind.name for kind in DEFAULT_FORMATS),
    show_default=True,
    help=f"Archives to show, of {', '.join(FORMATS)}.",
)
compression_option = click.option(
    "--compression",
    type=click.Choice([choice.value for choice in Compression]),
    help="What .tar.gz and .zip compress: what is worth it, everything (.bentomodel, too), or nothing. Default: auto; "
    "never for a store that is a URL, whose files would have to be fetched for the sizes of archives.",
)


@cli.command()
@click.argument("mountpoint")
@store_options
@formats_option
@compression_option
@click.option("--foreground", is_flag=True, help="Stay in this terminal; log to standard error.")
@click.option("--allow-other", is_flag=True, help="Let other users read the mount, too.")
@follow_links_option
@click.option("--read-only", is_flag=True, help="Without incoming/.")
@click.option("--overwrite", is_flag=True, help="What is copied into incoming/ replaces a model of the same tag.")
@staging_option
@click.option("--settle", type=float, metavar="SECONDS", help="Import a folder in incoming/ after so long a quiet.")
@click.option("--incoming-mode", type=_Mode(), metavar="MODE", help="Permissions of incoming/, as 1777; else 755.")
@click.option("--max-members", type=int, default=Limits().members, show_default=True, help="Of one imported model.")
@click.option("--max-expanded", type=Size(), metavar="SIZE", help="Bytes of one imported model, as 50G; else 1T.")
@click.option("--ready-fd", type=int, hidden=True, help="Of the process that waits for this daemon.")
def mount(
    mountpoint: str,
    store: Place,
    formats: list[Format],
    compression: str | None,
    foreground: bool,
    allow_other: bool,
    follow_links: bool,
    read_only: bool,
    overwrite: bool,
    staging: str | None,
    settle: float | None,
    incoming_mode: int | None,
    max_members: int,
    max_expanded: int | None,
    ready_fd: int | None,
) -> None:
    """Mount a model store at MOUNTPOINT, an empty folder."""
    if incoming_mode is not None and not allow_other:
        raise click.UsageError("--incoming-mode is for other users: it needs --allow-other")
    location = store.location
    check_system()
    if not store.is_remote:
        check_store(store.text)
    real = check_mountpoint(mountpoint, None if store.is_remote else store.text)
    limits = Limits(max_members, max_expanded or Limits().expanded)
    incoming = IncomingSettings(
        staging=os.path.abspath(staging) if staging else None,
        overwrite=overwrite,
        settle_seconds=settle,
        mode=incoming_mode or IncomingSettings().mode,
        limits=limits,
    )
    chosen = _chosen_compression(compression, store)
    may_write = store.is_remote or os.access(store.text, os.W_OK)
    settings = daemon.Settings(
        real,
        store,
        _checked_formats(formats, chosen),
        allow_other=allow_other,
        follow_links=follow_links,
        incoming=incoming if may_write and not read_only else None,
        compression=chosen,
    )
    if foreground or ready_fd is not None:
        handler = logging.StreamHandler() if ready_fd is None else LogFile(log_path(real))
        logging.basicConfig(level=logging.INFO, format=daemon.LOG_FORMAT, handlers=[handler])
        if not may_write and not read_only:
            logging.info("%s may not be written by you: no incoming/ in this mount", printable(location))
        daemon.serve(settings, lambda: daemon.tell_ready(ready_fd) if ready_fd is not None else None)
        logging.shutdown()
        sys.stderr.flush()
        # Workers may still sit in libfuse, waiting for readers that hold files open: they end with the process.
        os._exit(0)
    daemon.start(_daemon_arguments(settings), real)
    if not may_write and not read_only:
        click.echo(f"{printable(location)} may not be written by you: no incoming/ in this mount")
    if settings.incoming is not None and not os.path.isdir(os.path.join(real, INCOMING)):
        click.echo("no incoming/ in this mount; the log says why")
    click.echo(f"{printable(location)} is mounted at {printable(real)}; log: {log_path(real)}")


@cli.command()
@click.argument("mountpoint")
@click.option("--lazy", is_flag=True, help="Even while files are open: they answer errors from then on.")
def unmount(mountpoint: str, lazy: bool) -> None:
    """Unmount MOUNTPOINT; returns when its daemon has gone."""
    real = _real_without_looking(mountpoint)
    running = RunningMount.at(real)
    if lazy and running is not None:
        os.kill(running.pid, signal.SIGTERM)  # it unmounts lazily, and does not wait for those who hold files open
    else:
        _fusermount(mountpoint, real, lazy)
    deadline = time.monotonic() + UNMOUNT_SECONDS
    while running is not None and running.is_alive():
        if time.monotonic() > deadline:
            raise CannotMountError(f"{mountpoint} is unmounted, but its daemon {running.pid} has not ended")
        time.sleep(0.02)


@cli.command(name="list")
@store_options
@follow_links_option
@click.option("--json", "as_json", is_flag=True, help="One JSON array, sizes in bytes.")
def list_models(store: Place, follow_links: bool, as_json: bool) -> None:
    """List the models of a store."""
    models = open_store(store, follow_links=follow_links)
    found = []
    for tag in models.tags():
        with suppress(StoreError):  # deleted just now, or named in the log
            found.append(models.model(tag))
    if as_json:
        click.echo(json.dumps([_described(model) for model in found], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("Tag", no_wrap=True)
    table.add_column("Size", justify="right")
    table.add_column("Files", justify="right")
    table.add_column("Module")
    table.add_column("Created")
    for model in found:
        created = f"{model.info.creation_time:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(model.tag), decimal(model.size), str(model.file_count), printable(model.info.module), created)
    # Whole lines for whoever reads them from a pipe.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1000).print(table)


@cli.command()
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@store_options
@follow_links_option
@click.option("--accept", is_flag=True, help="Record what is there now as right, whatever was recorded before.")
def verify(tags: tuple[str, ...], store: Place, follow_links: bool, accept: bool) -> None:
    """Read models whole and compare them with the SHA-256s recorded the first time. Without TAG: all of the store."""
    models = open_store(store, follow_links=follow_links)
    wanted = [models.find(tag) for tag in tags] or models.tags()
    digests = Digests()
    outcomes: Counter[Outcome] = Counter()
    try:
        for tag in wanted:
            report = verify_model(models, digests, tag, accept=accept)
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
        raise StoreError(f"of {len(wanted)} models, {'; '.join(failures)}")


@cli.command()
@store_options
@staging_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, sizes in bytes.")
@click.option("--follow", is_flag=True, help="Go on as imports begin, proceed and end, until interrupted.")
@click.option("--limit", type=int, default=100, show_default=True, help="How many to show.")
def imports(store: Place, staging: str | None, as_json: bool, follow: bool, limit: int) -> None:
    """Show what was copied into incoming/, and what became of it."""
    if not store.is_remote:
        check_store(store.text)
    area = staging_area(store.location, os.path.abspath(staging) if staging else None, is_remote=store.is_remote)
    if follow:
        follow_imports(area, as_json, limit)
    else:
        show_imports(area, as_json, limit)


@cli.command()
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@store_options
@follow_links_option
@formats_option
@compression_option
def measure(
    tags: tuple[str, ...], store: Place, follow_links: bool, formats: list[Format], compression: str | None
) -> None:
    """Learn ahead of time what the first look at a model's archives would wait for: sizes and checksums.

    Mounts of the same user find them. Formats and compression must be those of the mount. Without TAG: all of the
    store. What is known already is not measured again; it may be interrupted, and goes on there the next time.
    """
    chosen = _chosen_compression(compression, store)
    _checked_formats(formats, chosen)
    models = open_store(store, follow_links=follow_links)
    wanted = [models.find(tag) for tag in tags] or models.tags()
    index = Index()
    archives = Archives(models.storage, index, chosen)
    failed = 0
    try:
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as bar:
            for tag in wanted:
                try:
                    model = models.model(tag)
                    task = bar.add_task(str(tag), total=model.size)
                    archives.measure(model, formats, functools.partial(bar.advance, task))
                except StoreError as error:
                    failed += 1
                    click.echo(f"bentofs: {error}", err=True)
    finally:
        archives.close()
        index.close()
    if failed:
        raise StoreError(f"{failed} of {len(wanted)} models could not be measured")


cli.add_command(export_command)
cli.add_command(import_command)


def _daemon_arguments(settings: daemon.Settings) -> list[str]:
    """The command line for a mount with these settings."""
    names = ",".join(kind.name for kind in settings.formats)
    arguments = ["mount", settings.mountpoint, *arguments_for(settings.store), "--formats", names]
    arguments += ["--compression", settings.compression.value]
    arguments += ["--allow-other"] * settings.allow_other + ["--follow-links"] * settings.follow_links
    incoming = settings.incoming
    if incoming is None:
        return [*arguments, "--read-only"]
    arguments += ["--overwrite"] * incoming.overwrite
    if incoming.staging is not None:
        arguments += ["--staging", incoming.staging]
    if incoming.settle_seconds is not None:
        arguments += ["--settle", str(incoming.settle_seconds)]
    if settings.allow_other:
        arguments += ["--incoming-mode", f"{incoming.mode:o}"]
    limits = incoming.limits
    return [*arguments, "--max-members", str(limits.members), "--max-expanded", str(limits.expanded)]


def _chosen_compression(text: str | None, store: Place) -> Compression:
    """What a user chose, or what is right for a store."""
    return Compression(text) if text else Compression.NEVER if store.is_remote else Compression.AUTO


def _checked_formats(formats: list[Format], compression: Compression) -> list[Format]:
    """The formats, if they can be had with this compression."""
    for kind in formats:
        if kind.lay_out is None and compression is Compression.NEVER:
            raise click.UsageError(
                f"{kind.name} cannot be made without compression: leave it out of --formats, or use --compression auto"
            )
    return formats


def _real_without_looking(mountpoint: str) -> str:
    """The real path of a mountpoint. Not by realpath, which looks at the mount itself, and that may be dead."""
    path = os.path.abspath(mountpoint)
    for _ in range(40):
        parent, name = os.path.split(path)
        path = os.path.join(os.path.realpath(parent), name)
        if not os.path.islink(path):
            break
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return path


def _fusermount(mountpoint: str, real: str, lazy: bool) -> None:
    command = ["fusermount", "-u", *(["-z"] if lazy else []), real]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotMountError("fusermount is not installed: `apt install fuse3` first") from None
    if done.returncode:
        reason = done.stderr.strip()
        if "busy" in reason:
            raise CannotMountError(
                f"{mountpoint} is in use: close what is open there, or use `bentofs unmount --lazy {mountpoint}`"
            )
        raise CannotMountError(f"{mountpoint} could not be unmounted: {reason}")


def _described(model: Model) -> dict[str, str | int]:
    return {
        "tag": str(model.tag),
        "size": model.size,
        "files": model.file_count,
        "module": model.info.module,
        "creation_time": model.info.creation_time.isoformat(),
    }


def _fail(sentence: str) -> NoReturn:
    click.echo(f"bentofs: {sentence}", err=True)
    sys.exit(1)
