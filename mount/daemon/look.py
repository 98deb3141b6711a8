"""Look at the mounts of bentofs from outside. A daemon may be stopped or dead: each look is bounded in time."""

from __future__ import annotations

import datetime
import errno
import json
import os
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from bentofs.mount.daemon.ask import Tell, ask_all
from bentofs.mount.daemon.running import RunningDaemon
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
    """One mount, seen from outside."""

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
