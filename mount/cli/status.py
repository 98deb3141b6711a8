"""The command `bentofs status`: the mounts and servers, and what each daemon tells of itself."""

from __future__ import annotations

import datetime
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from bentofs.mount.cli.complete import complete_mountpoint
from bentofs.mount.cli.output import json_option, print_document, print_message, size_text
from bentofs.mount.daemon.look import MountReport, MountState, look_at, look_at_servers
from bentofs.mount.daemon.server_sockets import server_sockets
from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.mount_table import OUR_TYPE, OurMount, mount_at, our_mounts, real_path
from bentofs.store.util.display import printable
from bentofs.store.util.urls import is_url

_LABEL = 9  # characters


@click.command(name="status")
@click.argument("mountpoint", required=False, shell_complete=complete_mountpoint)
@json_option
@click.option("--watch", is_flag=True, help="Show a live screen, until interrupted.")
def status_command(mountpoint: str | None, as_json: bool, watch: bool) -> int:
    """Show the mount at MOUNTPOINT, or all of your mounts and servers (root: of all users).

    MOUNTPOINT may be the URL of a server. A daemon that does not answer within 3 seconds is reported so. The exit
    status is 1 if one does not serve.
    """
    if watch:
        if as_json or not sys.stdout.isatty():
            raise click.UsageError("--watch needs a terminal, and no --json: for programs there is .bentofs/metrics")
        from bentofs.mount.cli.watch import watch_mounts  # rich is slow to load

        watch_mounts(lambda: _reports(mountpoint))
    reports = _reports(mountpoint)
    if as_json:
        print_document([report.as_json() for report in reports])
    else:
        for number, report in enumerate(reports):
            click.echo("\n" * (number > 0) + "\n".join(_lines(report)))
        if not reports:
            print_message("you have no mounts: `bentofs mount MOUNTPOINT` makes one, and `bentofs serve` needs none")
    return int(any(report.state is not MountState.SERVING for report in reports))


def _reports(mountpoint: str | None) -> list[MountReport]:
    """Return the reports to show.

    Raises:
        CannotMountError: nothing of ours is there.
    """
    if mountpoint is None:
        return [*look_at(_wanted(None)), *look_at_servers(server_sockets())]
    if not is_url(mountpoint):
        return look_at(_wanted(mountpoint))
    url = mountpoint.rstrip("/") + "/"
    reports = look_at_servers([server for server in server_sockets() if server.url == url])
    if not reports:
        raise CannotMountError(f"no server of yours is at {printable(mountpoint)}: `bentofs status` lists all")
    return reports


def _wanted(mountpoint: str | None) -> list[OurMount]:
    """Return the mounts to show. No look at a mount itself: it might hang.

    Raises:
        CannotMountError: nothing of ours is mounted at the mountpoint.
    """
    mounts = our_mounts()
    if mountpoint is None:
        user = os.geteuid()
        return [mount for mount in mounts if user in (0, mount.user)]
    real = real_path(mountpoint)
    wanted = [mount for mount in mounts if mount.path == real]
    if wanted:
        return wanted
    other = mount_at(real)
    if other is None:
        raise CannotMountError(f"nothing is mounted at {printable(mountpoint)}: `bentofs status` lists your mounts")
    raise CannotMountError(f"the mount at {printable(mountpoint)} is not of type {OUR_TYPE}, but {other.type}")


def _lines(report: MountReport) -> Iterator[str]:
    """Yield the lines on one mount."""
    told = report.status
    yield printable(report.mount.path)
    for label, text in (
        ("store", _store(report)),
        ("daemon", _daemon(report)),
        ("reads", _reads(told)),
        ("imports", _imports(told)),
        ("memory", _memory(told)),
        ("problems", _problems(told)),
    ):
        if text:
            yield f"  {label:{_LABEL}} {text}"


def _store(report: MountReport) -> str:
    models = report.status.get("models")
    shown = printable(str(report.status.get("store", report.mount.source)))
    return shown if models is None else f"{shown}, {_counted(models, 'model')}"


def _daemon(report: MountReport) -> str:
    told, state, quoted = report.status, report.state, shlex.quote(printable(report.mount.path))
    parts = [] if report.pid is None else [f"pid {report.pid}"]
    if state is MountState.SERVING:
        parts += [f"bentofs {told['version']}", f"engine {told['engine']}"]
    begun = _time(report.since)
    who = ", ".join([*parts, *([f"since {begun}"] if begun else [])])
    if state is MountState.SERVING:
        return who
    trouble = {
        MountState.STUCK: "it does not answer"
        if report.pid is None
        else f"it does not answer: `kill -USR1 {report.pid}` writes its stacks to its log",
        MountState.STALE: f"it has died: mount again, or remove the mount with `bentofs unmount {quoted}`",
        MountState.DENIED: f"it answers user {report.mount.user} only",
        MountState.UNKNOWN: "it gives no status: another version of bentofs serves the mount",
    }[state]
    return f"{who}; {trouble}" if who else trouble


def _time(text: str | None) -> str:
    """Return a time for people, by the local clock. Return nothing if it is unknown."""
    try:
        return f"{datetime.datetime.fromisoformat(text or '').astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return ""


def _reads(told: Mapping[str, Any]) -> str:
    reads = {kind: total for kind, total in _mapping(told, "reads").items() if kind != "status"}
    by_bytes = sorted(reads.items(), key=lambda item: -item[1]["bytes"])
    return "; ".join(
        f"{kind} {size_text(total['bytes'])} in {_counted(total['opens'], 'open')}" for kind, total in by_bytes
    )


def _imports(told: Mapping[str, Any]) -> str:
    imports = _mapping(told, "imports")
    if not imports:
        return "no incoming/" if told else ""
    ended = [f"{count} {outcome}" for outcome, count in imports["ended"].items() if count]
    return ", ".join([f"{imports['running']} running", *ended])


def _memory(told: Mapping[str, Any]) -> str:
    if not told:
        return ""
    process, caches, index = (_mapping(told, name) for name in ("process", "caches", "index"))
    size = index["bytes"]
    shown = size_text(size) if index["on_disk"] and size is not None else "in memory only"
    return (
        f"{size_text(process['resident_bytes'])}; caches {size_text(caches['bytes'])} of "
        f"{size_text(caches['limit_bytes'])}; index {shown}"
    )


def _problems(told: Mapping[str, Any]) -> str:
    problems = _mapping(told, "problems")
    if not problems.get("last"):
        return "none" if told else ""
    last = problems["last"][-1]
    counts = f"{_counted(problems['warnings'], 'warning')}, {_counted(problems['errors'], 'error')}"
    return f"{counts}; the last at {_time(last['time'])}: {printable(last['message'])}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _mapping(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name)
    return found if isinstance(found, dict) else {}
