"""The command line's options for the log of a process that serves."""

from __future__ import annotations

import os

import click

from bentofs.mount.cli.complete import complete_file
from bentofs.mount.daemon.logs import LEVELS

log_level_option = click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    envvar="BENTOFS_LOG_LEVEL",
    help="Log events of this level and above.",
)

log_file_option = click.option(
    "--log-file",
    metavar="FILE",
    shell_complete=complete_file,
    callback=lambda _context, _parameter, file: file and os.path.abspath(file),
    help="Log to this file. It is rotated, and takes 8 MiB at most. Default: standard error in the foreground; else a "
    "file in your state directory.",
)
