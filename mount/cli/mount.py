"""The command `bentofs mount`."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from bentofs.mount.cli.complete import complete_mount
from bentofs.mount.cli.config import named_mountpoint
from bentofs.mount.cli.engine_option import engine_option
from bentofs.mount.cli.format_options import checked_formats, compression_for, compression_option, formats_option
from bentofs.mount.cli.incoming_options import limits_options, settle_option
from bentofs.mount.cli.log_options import log_file_option, log_level_option
from bentofs.mount.cli.options import arguments_for, by_label_option, follow_links_option, staging_option, store_options
from bentofs.mount.cli.output import json_option, print_document, print_message
from bentofs.mount.daemon import serve as daemon
from bentofs.mount.daemon.checks.check import Plan
from bentofs.mount.daemon.logs import start_logging
from bentofs.mount.daemon.preflight import check_mountpoint, check_plan, is_trap
from bentofs.mount.daemon.running import log_path
from bentofs.mount.incoming.service import IncomingSettings
from bentofs.mount.kernel.engine import EngineName
from bentofs.mount.view.tree import INCOMING
from bentofs.store.formats.write.registry import Format
from bentofs.store.staging.limits import Limits
from bentofs.store.storage.open import StoreSpec
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)


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
            self.fail(f"{value} is not the mode of a directory: write octal digits, such as 1777", param, ctx)
        # If other users may write there, set the sticky bit: nobody may remove another user's files.
        return mode | 0o1000 if mode & 0o022 else mode


@click.command(name="mount")
@click.argument("mountpoint", callback=named_mountpoint, shell_complete=complete_mount)
@store_options
@formats_option
@compression_option
@click.option("--foreground", is_flag=True, help="Stay in this terminal; log to standard error.")
@click.option("--allow-other/--no-allow-other", help="Let other users read the mount, too.")
@follow_links_option
@by_label_option
@click.option("--read-only/--no-read-only", help="Mount without incoming/.")
@click.option(
    "--overwrite/--no-overwrite",
    help="Let copies into incoming/ replace models that have the same tag and other content.",
)
@staging_option
@settle_option
@click.option(
    "--incoming-mode", type=_Mode(), metavar="MODE", help="Permissions of incoming/, such as 1777. Default: 755."
)
@limits_options
@engine_option("How to speak to the kernel: directly, or through libfuse 2, for Linux before 5.4.")
@click.option(
    "--passthrough/--no-passthrough",
    default=True,
    show_default=True,
    help="Let the kernel read the files of a local store itself. It needs root and Linux 6.9.",
)
@log_level_option
@log_file_option
@click.option(
    "--auto-unmount/--no-auto-unmount",
    help="Unmount if the daemon is killed. By default the dead mountpoint stays and every access to it fails: a mirror "
    "must not take an empty directory for deletions.",
)
@json_option
@click.option("--noexec/--no-noexec", help="Let nobody run programs that lie in the mount.")
@click.option("--ready-fd", type=int, hidden=True, help="A descriptor of the process that waits for this daemon.")
def mount_command(
    mountpoint: str,
    store: StoreSpec,
    formats: list[Format],
    compression: str | None,
    foreground: bool,
    allow_other: bool,
    follow_links: bool,
    by_label: bool,
    read_only: bool,
    overwrite: bool,
    staging: str | None,
    settle: float | None,
    incoming_mode: int | None,
    limits: Limits,
    engine: str,
    passthrough: bool,
    log_level: str,
    log_file: str | None,
    auto_unmount: bool,
    noexec: bool,
    as_json: bool,
    ready_fd: int | None,
) -> None:
    """Mount a model store at MOUNTPOINT: an empty directory, or the name of a mount in the configuration file."""
    if incoming_mode is not None and not allow_other:
        raise click.UsageError("--incoming-mode is for other users: it needs --allow-other")
    location = store.location
    engine_name = EngineName(engine)
    in_background = not foreground
    warnings = []
    if ready_fd is None:  # else the process that waits has checked
        logs_to_state = in_background and log_file is None
        warnings = check_plan(Plan(store, engine_name, allow_other, staging, read_only, logs_to_state=logs_to_state))
    real = check_mountpoint(mountpoint, store.folder)
    incoming = IncomingSettings(
        staging=staging,
        overwrite=overwrite,
        settle_seconds=settle,
        mode=incoming_mode or IncomingSettings().mode,
        limits=limits,
    )
    chosen = compression_for(compression, store)
    may_write = store.may_be_written()
    settings = daemon.Settings(
        mountpoint=real,
        store=store,
        formats=checked_formats(formats, chosen),
        allow_other=allow_other,
        follow_links=follow_links,
        by_label=by_label,
        incoming=incoming if may_write and not read_only else None,
        compression=chosen,
        engine=engine_name,
        auto_unmount=auto_unmount,
        noexec=noexec,
        passthrough=passthrough,
        log_level=log_level,
        log_file=_checked_log_file(log_file, real),
    )
    if foreground or ready_fd is not None:
        if in_background and settings.log_file is None:
            settings = replace(settings, log_file=log_path(real))
        recent = start_logging(log_level, settings.log_file, takes_output=in_background)
        if ready_fd is not None:
            os.set_inheritable(ready_fd, False)
        for warning in warnings:
            log.info("%s", warning)
        daemon.serve(settings, lambda: daemon.tell_ready(ready_fd) if ready_fd is not None else None, recent)
        logging.shutdown()
        sys.stderr.flush()
        # Workers may still wait for readers with open files. They end with the process.
        os._exit(0)
    log_at = settings.log_file or log_path(real)
    daemon.start(_daemon_arguments(settings), log_at, in_trap=is_trap(real))
    for warning in warnings:
        print_message(warning)
    has_incoming = os.path.isdir(os.path.join(real, INCOMING))
    if settings.incoming is not None and not has_incoming:
        print_message("no incoming/ in this mount; the log says why")
    if as_json:
        print_document({"store": location, "mountpoint": real, "incoming": has_incoming, "log": str(log_at)})
    else:
        click.echo(f"{printable(location)} is mounted at {printable(real)}; log: {printable(str(log_at))}")


def _daemon_arguments(settings: daemon.Settings) -> list[str]:
    """Return the daemon's command line for these settings."""
    names = ",".join(kind.name for kind in settings.formats)
    arguments = ["mount", settings.mountpoint, *arguments_for(settings.store), "--formats", names]
    arguments += ["--compression", settings.compression.value]
    arguments += ["--engine", settings.engine.value, _flag("passthrough", settings.passthrough)]
    arguments += [_flag("allow-other", settings.allow_other), _flag("follow-links", settings.follow_links)]
    arguments += [_flag("by-label", settings.by_label), "--log-level", settings.log_level]
    arguments += ["--log-file", str(settings.log_file)] if settings.log_file is not None else []
    arguments += [_flag("auto-unmount", settings.auto_unmount), _flag("noexec", settings.noexec)]
    incoming = settings.incoming
    arguments += [_flag("read-only", incoming is None)]
    if incoming is None:
        return arguments
    arguments += [_flag("overwrite", incoming.overwrite)]
    if incoming.staging is not None:
        arguments += ["--staging", incoming.staging]
    if incoming.settle_seconds is not None:
        arguments += ["--settle", str(incoming.settle_seconds)]
    if settings.allow_other:
        arguments += ["--incoming-mode", f"{incoming.mode:o}"]
    limits = incoming.limits
    return [*arguments, "--max-members", str(limits.members), "--max-expanded", str(limits.expanded)]


def _flag(name: str, value: bool) -> str:
    """Return an option in either case: the daemon's environment must not decide."""
    return f"--{name}" if value else f"--no-{name}"


def _checked_log_file(file: str | None, mountpoint: str) -> Path | None:
    """Return the path of the log file.

    Raises:
        click.UsageError: it lies below the mountpoint: the daemon would wait for itself.
    """
    if file is None:
        return None
    real = os.path.realpath(file)
    if os.path.commonpath([real, mountpoint]) == mountpoint:
        raise click.UsageError(f"the log {file} lies below the mountpoint: choose a place outside of it")
    return Path(file)
