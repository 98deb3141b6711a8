"""The data that one run of the bench shares: its options, its work folder, its limits."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field

from .commands import BenchError, say
from .mounts import Launcher
from .report import Row
from .servers import S3Server


@dataclass
class Session:
    launch: Launcher
    bentoml_python: str
    work: str
    cleanup: ExitStack
    rows: str = ""
    rounds: int = 7
    size: int = 1 << 30
    export_size: int = 300_000_000
    models: int = 2000  # for the listing
    quick: bool = False
    other: Launcher | None = None  # of another build
    shown: list[Row] = field(default_factory=list)
    server: S3Server | None = None  # started when it is first needed

    def wanted(self, name: str) -> bool:
        """Tell whether --rows requests this row."""
        return self.rows.lower() in name.lower()

    def keep(self, row: Row) -> list[Row]:
        """Return the row in a list if it was requested. It is shown at once."""
        if not self.wanted(row.name):
            return []
        say("  " + "  ".join(cell for cell in row.cells() if cell))
        return [row]

    def folder(self, name: str) -> str:
        """Return a new folder in the work folder."""
        path = os.path.join(self.work, name)
        os.mkdir(path)
        return path

    def memory_folder(self, needed: int) -> str | None:
        """Return a folder in memory (tmpfs) with room for so many bytes. It is removed at the end. None where there is
        none."""
        with open("/proc/self/mounts", errors="surrogateescape") as mounts:
            in_memory = any(line.split()[1:3] == ["/dev/shm", "tmpfs"] for line in mounts)
        if not in_memory or not os.access("/dev/shm", os.W_OK) or shutil.disk_usage("/dev/shm").free < needed * 1.1:
            return None
        path = tempfile.mkdtemp(prefix="bentofs-bench-", dir="/dev/shm")
        self.cleanup.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def need_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self.work).free
        if free < needed * 1.1:
            raise BenchError(f"{self.work} has {free >> 20} MiB free, {needed >> 20} are needed: use --work or --size")

    def need_memory(self, needed: int) -> None:
        """Check the free memory: the files must stay in the page cache, or the figures would be the disk's."""
        with open("/proc/meminfo") as info:
            free = int(next(line for line in info if line.startswith("MemAvailable")).split()[1]) << 10
        if free < needed:
            raise BenchError(f"{free >> 20} MiB of memory are free, {needed >> 20} are needed: use a smaller --size")

    def read_limit(self, size: int) -> float:
        """Return the seconds after which a read of so many bytes counts as stuck: 20 MB/s, and a minute."""
        return 60 + size / 20e6
