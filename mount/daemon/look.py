"""Look at the mounts and the servers of bentofs from outside. A daemon may be stopped or dead: each look is bounded in
time."""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from bentofs.mount.daemon.ask import Tell, ask_all
from bentofs.mount.daemon.running import RunningDaemon
from bentofs.mount.daemon.server_sockets import ServerSocket, peer_of
from bentofs.mount.kernel.mount_table import OurMount
from bentofs.mount.view.own_names import OWN, STATUS

SECONDS = 3.0  # how long a mount may take to answer
_MOST = 1 << 20  # bytes of a status


class MountState(Enum):
    """The state of a mount."""

    SERVING = "serving"
    STUCK = "stuck"  # no answer in time
    STALE = "stale"  # its daemon has died
    DENIED = "denied"  # it answers its own user only
    UNKNOWN = "unknown"  # it answers, but has no status: an older version serves it


class MountReport(NamedTuple):
    """One mount or server, seen from outside. The path of a server is its URL."""

    mount: OurMount
    state: MountState
    pid: int | None
    since: str | None  # ISO 8601
    status: dict[str, Any]  # as its daemon tells it; empty unless it is serving

    def as_json(self) -> dict[str, Any]:
        """Return the fields for programs: those of the daemon, and those that are known without it."""
        known = {
            "mountpoint": self.mount.path,
            "state": self.state.value,
            "user": self.mount.user,
            "store": self.mount.source,
            "pid": self.pid,
            "since": self.since,
        }
        return known | self.status | {"mountpoint": self.mount.path, "state": self.state.value}


def look_at(mounts: Sequence[OurMount], seconds: float = SECONDS) -> list[MountReport]:
    """Look at mounts, at all at once. Call it while this process has one thread."""
    answers = ask_all([_question(mount) for mount in mounts], seconds)
    return [read_answer(mount, told, ended=ended) for mount, (told, ended) in zip(mounts, answers, strict=True)]


def look_at_servers(servers: Sequence[ServerSocket], seconds: float = SECONDS) -> list[MountReport]:
    """Look at servers, as `look_at` does."""
    answers = ask_all([_question_to(server) for server in servers], seconds)
    reports = []
    for server, (told, ended) in zip(servers, answers, strict=True):
        head, _, rest = told.partition(b"\n")
        user = _parsed(head).get("user")
        if user is not None:
            report = read_answer(OurMount(server.url, "", user), head + b"\n" + rest, ended=ended)
            reports.append(report._replace(mount=report.mount._replace(source=str(report.status.get("store", "")))))
    return reports


def _question_to(server: ServerSocket) -> Callable[[Tell], None]:
    """Return a function that tells the same as for a mount, and the user of the server. It tells nothing if the server
    has gone, or belongs to another user and this one is not root."""

    def ask(tell: Tell) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(server.address)
            pid, user = peer_of(sock)
            if os.geteuid() not in (0, user):
                return
            daemon = RunningDaemon.of(pid)
            since = daemon and datetime.datetime.fromtimestamp(daemon.start_time(), datetime.timezone.utc).isoformat()
            tell(json.dumps({"pid": pid, "since": since, "user": user}).encode() + b"\n0\n")
            while content := sock.recv(_MOST):
                tell(content)

    return ask


def _question(mount: OurMount) -> Callable[[Tell], None]:
    """Return a function that tells the daemon, the errno of a look, and the status: each a line, if it is known."""

    def ask(tell: Tell) -> None:
        daemon = RunningDaemon.at(mount.path)
        since = daemon and datetime.datetime.fromtimestamp(daemon.start_time(), datetime.timezone.utc).isoformat()
        tell(json.dumps({"pid": daemon and daemon.pid, "since": since}).encode() + b"\n")
        if os.geteuid() == 0 and mount.user and mount.group is not None:  # it may refuse everybody else, root too
            os.setgroups([])
            os.setresgid(mount.group, mount.group, mount.group)
            os.setresuid(mount.user, mount.user, mount.user)
        number, content = 0, b"{}"
        try:
            with open(os.path.join(mount.path, OWN, STATUS), "rb") as file:
                content = file.read(_MOST)
        except OSError as error:
            number = error.errno or errno.EIO
        tell(b"%d\n%b" % (number, content))

    return ask


def read_answer(mount: OurMount, told: bytes, *, ended: bool) -> MountReport:
    """Return the report that a mount's answer makes."""
    daemon, _, rest = told.partition(b"\n")
    number, _, content = rest.partition(b"\n")
    known = _parsed(daemon)
    pid, since = known.get("pid"), known.get("since")
    if not ended:
        return MountReport(mount, MountState.STUCK, pid, since, {})
    status = _parsed(content)
    if number == b"0" and _is_status(status):
        return MountReport(mount, MountState.SERVING, status["pid"], status.get("since"), status)
    states = {errno.ENOTCONN: MountState.STALE, errno.EACCES: MountState.DENIED, errno.EPERM: MountState.DENIED}
    return MountReport(mount, states.get(int(number or 0), MountState.UNKNOWN), pid, since, {})


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # another user's daemon may say anything
        return {}
    return found if isinstance(found, dict) else {}


def _is_status(told: dict[str, Any]) -> bool:
    """Tell whether a daemon's answer has all fields that are shown. Root looks at the mounts of others, too."""
    try:
        imports, problems = told["imports"], told["problems"]
        numbers = [told["pid"], told["process"]["resident_bytes"], problems["warnings"], problems["errors"]]
        numbers += [told["models"] or 0, told["index"]["bytes"] or 0]
        numbers += [told["caches"]["bytes"], told["caches"]["limit_bytes"]]
        for total in told["reads"].values():
            numbers += [total["opens"], total["reads"], total["bytes"]]
        if imports is not None:
            numbers += [imports["running"], *imports["ended"].values()]
        for problem in problems["last"]:
            datetime.datetime.fromisoformat(problem["time"])
        texts = [*told["reads"], *(imports["ended"] if imports is not None else ()), told["version"], told["engine"]]
        texts += [part for problem in problems["last"] for part in (problem["level"], problem["message"])]
    except (LookupError, TypeError, ValueError, AttributeError):
        return False
    return all(type(number) is int for number in numbers) and all(
        isinstance(text, str) and text.isprintable() for text in texts
    )
