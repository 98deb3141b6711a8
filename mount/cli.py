"""The command line, `bentofs`. Errors are one sentence on standard error and exit status 1, never a traceback."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import NoReturn

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from mount import daemon
from mount.preflight import CannotMountError, check_mountpoint, check_store, check_system
from mount.status import RunningMount, log_path
from store.archive.formats import FORMATS, Format
from store.catalog import ModelStore
from store.errors import StoreError
from store.index import Index
from store.model import Model
from store.storage.local import LocalStorage
from store.text import printable
from store.verify import Outcome, verify_model

UNMOUNT_SECONDS = 20.0  # how long a daemon may take to end

store_option = click.option(
    "--store",
    metavar="DIR",
    help="The model store. Default: $BENTOML_HOME/models, else ~/bentoml/models.",
)


def default_store() -> str:
    """Where BentoML keeps its models."""
    home = os.environ.get("BENTOML_HOME") or os.path.join(os.path.expanduser("~"), "bentoml")
    return os.path.join(home, "models")


def main() -> NoReturn:
    """The entry point."""
    try:
        cli(standalone_mode=False)
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


@cli.command()
@click.argument("mountpoint")
@store_option
@click.option("--formats", type=_Formats(), default=",".join(FORMATS), show_default=True, help="Archives to show.")
@click.option("--foreground", is_flag=True, help="Stay in this terminal; log to standard error.")
@click.option("--allow-other", is_flag=True, help="Let other users read the mount, too.")
@click.option("--follow-links", is_flag=True, help="Follow links that lead out of a model or the store.")
@click.option("--ready-fd", type=int, hidden=True, help="Of the process that waits for this daemon.")
def mount(
    mountpoint: str,
    store: str | None,
    formats: list[Format],
    foreground: bool,
    allow_other: bool,
    follow_links: bool,
    ready_fd: int | None,
) -> None:
    """Mount a model store at MOUNTPOINT, an empty folder."""
    location = os.path.abspath(store or default_store())
    check_system()
    check_store(location)
    real = check_mountpoint(mountpoint, location)
    settings = daemon.Settings(real, location, formats, allow_other=allow_other, follow_links=follow_links)
    if foreground or ready_fd is not None:
        logging.basicConfig(level=logging.INFO, format=daemon.LOG_FORMAT, stream=sys.stderr)
        daemon.serve(settings, lambda: daemon.tell_ready(ready_fd) if ready_fd is not None else None)
        logging.shutdown()
        sys.stderr.flush()
        # Workers may still sit in libfuse, waiting for readers that hold files open: they end with the process.
        os._exit(0)
    names = ",".join(kind.name for kind in formats)
    arguments = ["mount", real, "--store", location, "--formats", names]
    arguments += ["--allow-other"] * allow_other + ["--follow-links"] * follow_links
    daemon.start(arguments, real)
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
@store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON array, sizes in bytes.")
def list_models(store: str | None, as_json: bool) -> None:
    """List the models of a store."""
    models = _open_store(store)
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
@store_option
@click.option("--accept", is_flag=True, help="Record what is there now as right, whatever was recorded before.")
def verify(tags: tuple[str, ...], store: str | None, accept: bool) -> None:
    """Read models whole and compare them with the SHA-256s recorded the first time. Without TAG: all of the store."""
    models = _open_store(store)
    wanted = [models.find(tag) for tag in tags] or models.tags()
    index = Index()
    damaged = 0
    try:
        for tag in wanted:
            report = verify_model(models, index, tag, accept=accept)
            click.echo(f"{tag}: {report.sentence()}")
            for path, outcome in report.problems:
                click.echo(f"  {outcome.value}: {printable(path)}")
            damaged += report.outcome is Outcome.DIFFERS
    finally:
        index.close()
    if damaged:
        raise StoreError(
            f"{damaged} of {len(wanted)} models differ from what was recorded; if that is meant, use --accept"
        )


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


def _open_store(store: str | None) -> ModelStore:
    logging.basicConfig(level=logging.WARNING, format="bentofs: %(message)s", stream=sys.stderr)
    location = os.path.abspath(store or default_store())
    check_store(location)
    return ModelStore(LocalStorage(location))


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
