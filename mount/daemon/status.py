"""The status of a mount, as its daemon tells it in `.bentofs/`: one collection for `status.json` and for `metrics`."""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentofs.mount.daemon.logs import RecentLog
from bentofs.mount.daemon.metrics import as_metrics
from bentofs.mount.daemon.model_counter import ModelCounter
from bentofs.mount.view.live import LiveSource
from bentofs.mount.view.own_names import LOG, METRICS, STATUS
from bentofs.mount.view.traffic import Traffic
from bentofs.store.archives.index import Index, default_path
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import NoHomeError
from bentofs.store.util.memory_budget import MemoryBudget

_PERIOD, _REQUESTS_PERIOD = 10.0, 60.0  # seconds between two counts of the models; the latter if each takes requests
_PRIVATE = 0o600  # names of uploads, of all users


@dataclass(frozen=True)
class MountStatus:
    """The sources of one mount's status."""

    fixed: Mapping[str, Any]  # that never change: mountpoint, store, engine, ...
    store: ModelStore
    features: Callable[[], Sequence[str]]  # of the kernel, in use
    nodes: Callable[[], int | None]  # that the kernel remembers; None if nobody can tell
    traffic: Traffic
    tally: Callable[[], tuple[int, dict[str, int]]] | None  # of imports; None without incoming/
    budget: MemoryBudget
    index: Index
    recent: RecentLog

    def files(self) -> dict[str, LiveSource]:
        """Return the files of `.bentofs/`."""
        counter = ModelCounter(
            self.store.model_count, _PERIOD if self.store.storage.lists_without_requests else _REQUESTS_PERIOD
        )
        began = time.time()

        def collect() -> dict[str, Any]:
            return self._collect(began, counter)

        return {
            STATUS: LiveSource(lambda: json.dumps(collect(), indent=2).encode() + b"\n", _PRIVATE),
            METRICS: LiveSource(lambda: as_metrics(collect()).encode()),
            LOG: LiveSource(self.recent.tail, _PRIVATE),
        }

    def _collect(self, began: float, counter: ModelCounter) -> dict[str, Any]:
        memory = self.budget.usage()
        problems = self.recent.problems()
        return {
            "version": installed_version(),
            **self.fixed,
            "features": list(self.features()),
            "kernel_nodes": self.nodes(),
            "pid": os.getpid(),
            "since": _iso(began),
            "models": counter.number(),
            "reads": {kind: total._asdict() for kind, total in self.traffic.totals().items()},
            "imports": self._imports(),
            "caches": {"bytes": memory.caches, "decoders_bytes": memory.decoders, "limit_bytes": memory.limit},
            "index": {"bytes": _index_size(), "on_disk": self.index.is_on_disk},
            "process": _process(),
            "problems": {
                "warnings": self.recent.counts["WARNING"],
                "errors": self.recent.counts["ERROR"],
                "last": [{"time": _iso(each.time), "level": each.level, "message": each.message} for each in problems],
            },
        }

    def _imports(self) -> dict[str, Any] | None:
        if self.tally is None:
            return None
        running, ended = self.tally()
        return {"running": running, "ended": ended}


def installed_version() -> str:
    """Return the version of bentofs, or "unknown" if it is not installed as a distribution."""
    # importlib.metadata would tell it, too, but a daemon would keep the 4 MB of its modules.
    installed = (info for folder in sys.path for info in Path(folder).glob("bentofs-*.dist-info"))
    return next((info.stem.removeprefix("bentofs-") for info in installed), "unknown")


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="milliseconds")


def _index_size() -> int | None:
    """Return the bytes of the index on disk; None if it has no place there."""
    try:
        path = default_path()
    except NoHomeError:
        return None
    size = 0
    for suffix in ("", "-wal"):
        try:
            size += os.stat(f"{path}{suffix}").st_size
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return size


def _process() -> dict[str, Any]:
    """Return figures of this process."""
    times = os.times()
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "resident_bytes": resident,
        "threads": len(os.listdir("/proc/self/task")),
        "open_files": len(os.listdir("/proc/self/fd")) - 1,  # without the one of this listing
        "cpu_seconds": round(times.user + times.system, 3),
    }
