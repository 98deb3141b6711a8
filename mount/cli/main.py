"""The command line: the code that all commands share. An error is one sentence on standard error and an exit status for
its kind (`mount.errors`), never a traceback."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from bentofs.mount.cli.config import defaults_for, name_variables
from bentofs.mount.cli.output import Output, print_message
from bentofs.mount.errors import INTERRUPTED, CannotMountError, exit_status_of
from bentofs.store.errors import StoreError

# Name, module and function of each command, in the order of the help. A module is loaded when its command runs: so the
# daemon loads no module of another command, and each command starts sooner.
COMMANDS = {
    "mount": ("mount", "mount_command"),
    "unmount": ("unmount", "unmount_command"),
    "serve": ("serve", "serve_command"),
    "status": ("status", "status_command"),
    "doctor": ("doctor", "doctor_command"),
    "list": ("models", "list_command"),
    "get": ("models", "get_command"),
    "verify": ("inspect", "verify_command"),
    "imports": ("imports", "imports_command"),
    "measure": ("inspect", "measure_command"),
    "clean": ("clean", "clean_command"),
    "export": ("transfer", "export_command"),
    "import": ("transfer", "import_command"),
    "systemd": ("systemd", "systemd_command"),
    "completion": ("completion", "completion_command"),
    "man": ("manpage", "man_command"),
}


_COMPLETE = "_BENTOFS_COMPLETE"  # set by the scripts of `bentofs completion`


class _Commands(click.Group):
    """All commands, each loaded when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's name
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name]
        gc.disable()  # modules are no garbage, and to look for some in them takes a tenth of the start
        try:
            command = getattr(importlib.import_module(f"bentofs.mount.cli.{module}"), function)
        finally:
            gc.freeze()
            gc.enable()
        assert isinstance(command, click.Command)
        name_variables(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, arguments = super().resolve_command(ctx, args)
        if name is not None and command is not None and not ctx.resilient_parsing:
            ctx.default_map = {name: defaults_for(command, arguments)}
        return name, command, arguments


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bentofs")
def cli() -> None:
    """A BentoML model store as a file system: every model as .bentomodel, .zip, .tar.gz, ready to copy."""


def run(arguments: Sequence[str]) -> NoReturn:
    """Run the command that the arguments name, and end the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, a child's exit status is lost
    output = Output()
    status = 0
    if _COMPLETE in os.environ:
        importlib.import_module("bentofs.mount.cli.completion")  # else click would use its own way of completion
    try:
        status = cli.main(list(arguments), prog_name="bentofs", standalone_mode=False, obj=output) or 0
    except click.exceptions.Abort:
        _fail(output, "interrupted", INTERRUPTED)
    except click.UsageError as error:
        error.show()
        output.print_error(error.format_message(), error.exit_code)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CannotMountError as error:
        _fail(output, str(error), error.status)
    except StoreError as error:
        _fail(output, str(error), exit_status_of(error))
    except OSError as error:
        _fail(output, _sentence(error), exit_status_of(error))
    except Exception as error:
        if os.environ.get("BENTOFS_DEBUG"):
            raise
        _fail(output, f"this should not happen, please report it (BENTOFS_DEBUG=1 shows where): {error!r}", 1)
    sys.exit(status)


def _sentence(error: OSError) -> str:
    if error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError):  # Python names no file only when it cannot find the working directory
        return "the working directory was deleted: change to another one"
    return str(error)


def _fail(output: Output, sentence: str, status: int) -> NoReturn:
    print_message(sentence)
    output.print_error(sentence, status)
    sys.exit(status)
