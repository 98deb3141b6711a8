"""The command line: the code that all commands share. An error is one sentence on standard error and an exit status for
its kind (`mount.errors`), never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from bentofs.mount.cli.inspect import imports_command, list_command, measure_command, verify_command
from bentofs.mount.cli.mount import mount_command, unmount_command
from bentofs.mount.cli.transfer import export_command, import_command
from bentofs.mount.errors import INTERRUPTED, CannotMountError, exit_status_of
from bentofs.store.errors import StoreError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bentofs")
def cli() -> None:
    """A BentoML model store as a file system: every model as .bentomodel, .zip, .tar.gz, ready to copy."""


for _command in (
    mount_command,
    unmount_command,
    list_command,
    verify_command,
    imports_command,
    measure_command,
    export_command,
    import_command,
):
    cli.add_command(_command)


def run(arguments: Sequence[str]) -> NoReturn:
    """Run the command that the arguments name, and end the process."""
    try:
        cli(arguments, prog_name="bentofs", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CannotMountError as error:
        _fail(str(error), error.status)
    except StoreError as error:
        _fail(str(error), exit_status_of(error))
    except OSError as error:
        _fail(_sentence(error), exit_status_of(error))
    except Exception as error:
        if os.environ.get("BENTOFS_DEBUG"):
            raise
        _fail(f"this should not happen, please report it (BENTOFS_DEBUG=1 shows where): {error!r}", 1)
    sys.exit(0)


def _sentence(error: OSError) -> str:
    if error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError):  # Python names no file only when it cannot find the working directory
        return "the working directory is not there any more: go to another one"
    return str(error)


def _fail(sentence: str, status: int) -> NoReturn:
    click.echo(f"bentofs: {sentence}", err=True)
    sys.exit(status)
