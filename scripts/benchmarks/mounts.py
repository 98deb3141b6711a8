"""The daemons under test: started on a new mountpoint, asked for their counters, and always unmounted and ended."""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from .commands import BenchError, run

START_LIMIT = 60.0
STOP_LIMIT = 20.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Daemon:
    """One mounted file system and the process that serves it."""

    def __init__(self, argv: Sequence[str], mountpoint: str, log: str, env: Mapping[str, str], cwd: str) -> None:
        self.mountpoint = mountpoint
        self.log = log
        with open(log, "ab") as sink:
            self.process = subprocess.Popen(
                [part.replace("{mountpoint}", mountpoint) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=env,
                cwd=cwd,
                start_new_session=True,  # the bench handles a Ctrl-C at the terminal
            )

    def wait_mounted(self) -> None:
        """Return once the mount answers a stat."""
        end = time.monotonic() + START_LIMIT
        while not is_mounted(self.mountpoint):
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.log, errors="replace") as log:
                    raise BenchError(f"no mount from `{self.process.args!r}`: {log.read()[-2000:]}")
            time.sleep(0.005)
        run(["stat", self.mountpoint], START_LIMIT)

    def sent(self) -> int:
        """Return the bytes that this process has written so far, its replies to the kernel included."""
        with open(f"/proc/{self.process.pid}/io") as counters:
            return next(int(line.split()[1]) for line in counters if line.startswith("wchar:"))

    def processor_seconds(self) -> float:
        """Return the processor time so far in seconds, in user and kernel mode, of all threads."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_memory(self) -> int:
        """Return the peak resident size so far in bytes, of the process and its children."""
        pids = [str(self.process.pid)]
        for children in glob.glob(f"/proc/{self.process.pid}/task/*/children"):
            with suppress(OSError), open(children) as found:
                pids += found.read().split()
        total = 0
        for pid in pids:
            with suppress(OSError), open(f"/proc/{pid}/status") as status:
                total += next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
        return total

    def stop(self) -> None:
        """Unmount and wait for the end of the process. After a while use force."""
        endings = (None, signal.SIGTERM, signal.SIGKILL)[0 if is_mounted(self.mountpoint) else 1 :]
        self._unmount()
        for ending in endings:
            if ending:
                self.process.send_signal(ending)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_LIMIT)
                break
        self._unmount()  # a killed process leaves its mount behind
        with suppress(OSError):
            os.rmdir(self.mountpoint)

    def _unmount(self) -> None:
        tool = shutil.which("fusermount") or shutil.which("fusermount3") or "umount"
        option = [] if tool == "umount" else ["-u"]
        end = time.monotonic() + STOP_LIMIT
        while is_mounted(self.mountpoint):
            lazy = ["-z" if option else "-l"] if time.monotonic() > end else []
            with suppress(BenchError):
                run([tool, *option, *lazy, self.mountpoint], STOP_LIMIT)
            if lazy:
                break
            time.sleep(0.01)


def is_mounted(path: str) -> bool:
    """Tell whether something is mounted there, without touching it: a stat of a stuck mount would never return."""
    escaped = path.replace("\\", "\\134").replace(" ", "\\040")
    with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
        return any(line.split(" ", 5)[4] == escaped for line in mounts)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Hold back signals until the end of the context. So no daemon is started and then forgotten."""
    arrived: list[int] = []
    usual = {number: signal.getsignal(number) for number in ENDING if signal.getsignal(number) != signal.SIG_IGN}
    for number in usual:
        signal.signal(number, lambda number, _frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for came in arrived[:1]:
            signal.raise_signal(came)


class Launcher:
    """Starts each kind of daemon. Mountpoints live in a folder of their own: the work folder, which is deleted at the
    end, never has a mount below it."""

    def __init__(self, root: str, python: str, work: str, mountpoints: str) -> None:
        self.root = root
        links = os.path.join(root, ".src")  # a build before 0.2 has its packages at the top level
        self._packages, self._module = (links, "bentofs.mount") if os.path.isdir(links) else (root, "mount")
        self.python = python
        self.work = work
        self.mountpoints = mountpoints
        self.here = os.path.dirname(os.path.abspath(__file__))

    def bentofs(self, *arguments: str) -> list[str]:
        """Return the command line of a bentofs command, to run in an environment of `environment` or
        `empty_environment`."""
        return [self.python, "-m", self._module, *arguments]

    def environment(self, cache: str) -> dict[str, str]:
        """Return the environment variables for our programs, with their index and state in a folder. Python keeps the
        bytecode of modules in the work folder, like an installation."""
        return {
            "PYTHONPATH": self._packages,
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": os.path.join(self.work, "bytecode"),
            "XDG_CACHE_HOME": os.path.join(cache, "cache"),
            "XDG_STATE_HOME": os.path.join(cache, "state"),
        }

    @contextmanager
    def empty_environment(self) -> Iterator[dict[str, str]]:
        """Give the same with an index that begins empty and is thrown away."""
        with tempfile.TemporaryDirectory(dir=self.work) as empty:
            yield self.environment(empty)

    @contextmanager
    def _mounted(self, argv: Sequence[str], env: Mapping[str, str]) -> Iterator[Daemon]:
        env = {**os.environ, **env}
        log = os.path.join(self.work, "daemons.log")
        daemon = None
        try:
            with signals_held_back():
                daemon = Daemon(argv, tempfile.mkdtemp(dir=self.mountpoints), log, env, self.root)
            daemon.wait_mounted()
            yield daemon
        finally:
            if daemon:
                daemon.stop()

    @contextmanager
    def ours(
        self,
        store: str,
        cache: str | None = None,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Daemon]:
        """Give our mount of a store. Without `cache` its index begins empty and is thrown away. `env`: overrides the
        environment."""
        argv = self.bentofs("mount", "{mountpoint}", "--store", store, "--foreground", *options)
        with self.empty_environment() as empty:
            own = self.environment(cache) if cache else empty
            with self._mounted(argv, {**own, **(env or {})}) as daemon:
                yield daemon

    @contextmanager
    def pass_through(self, folder: str) -> Iterator[Daemon]:
        """Give a bare fusepy file system over a folder."""
        argv = [self.python, os.path.join(self.here, "pass_through.py"), folder, "{mountpoint}"]
        with self._mounted(argv, {}) as daemon:
            yield daemon

    @contextmanager
    def bindfs(self, folder: str) -> Iterator[Daemon]:
        """Give bindfs over a folder, with its defaults."""
        with self._mounted(["bindfs", "-f", "-r", "--no-allow-other", folder, "{mountpoint}"], {}) as daemon:
            yield daemon

    @contextmanager
    def rclone(self, rclone: str, remote: str, env: Mapping[str, str]) -> Iterator[Daemon]:
        """Give rclone's mount, with its defaults, of a remote that the variables in `env` describe."""
        with self._mounted([rclone, "mount", "--read-only", remote, "{mountpoint}"], env) as daemon:
            yield daemon
