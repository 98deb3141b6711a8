"""Waits for conditions that many tests share, and the few times that must simply pass."""

import re
import time
from pathlib import Path

from bentofs.store.storage.timestamps import is_settled
from tests.harness import wait_until

SEEN_WITHIN = 2.0  # seconds; the promise of the mount for a change of its store

_WAITS_FOR_A_MOUNT = re.compile(r"request_wait_answer|fuse_|(folio|page).*(wait|lock)|wait_on_page")


def let_a_change_be_seen() -> None:
    """Let the time pass within which a mount must show a change. Nothing looks at the mount meanwhile: a look could
    refresh the kernel's cache, and hide that the promise does not hold without it."""
    time.sleep(SEEN_WITHIN)


def wait_until_settled(*places: Path) -> None:
    """Wait until every file at or below these places is so old that no later change can hide in its times."""
    paths = [path for place in places for path in (place, *place.rglob("*"))]
    youngest_ns = max(path.lstat().st_ctime_ns for path in paths)
    wait_until(lambda: is_settled(youngest_ns, time.time_ns()), 10, "the files are settled", interval=0.005)


def wait_until_hanging(*tasks: int | None, seconds: float = 20.0) -> None:
    """Wait until each of these processes or threads sleeps in a request to a mount, and has not run between two
    looks."""
    before = [""] * len(tasks)

    def all_hang() -> bool:
        nonlocal before
        looks = [_sleep_of(task) for task in tasks]
        hang, before = "" not in looks and looks == before, looks
        return hang

    wait_until(all_hang, seconds, "all wait for the mount's answer")


def _sleep_of(task: int | None) -> str:
    """Return text that changes whenever the task runs. Return "" unless it waits for a mount."""
    waits_in = Path(f"/proc/{task}/wchan").read_text()
    status = Path(f"/proc/{task}/status").read_text()
    switches = status.partition("voluntary_ctxt_switches:")[2]
    return f"{waits_in} {switches}" if _WAITS_FOR_A_MOUNT.match(waits_in) else ""
