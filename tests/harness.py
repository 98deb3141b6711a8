"""Shared tools of the tests of a running mount: a daemon with its own home, and model stores made without BentoML."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from scripts.sample_store import Files, write_model
from tests import fork_server
from tests.expectations import Expectation, complaints

ROOT = Path(__file__).resolve().parent.parent

Answer = TypeVar("Answer")
_Text = TypeVar("_Text", str, bytes)


_RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
CREATION_TIME = "2026-01-02T03:04:05.678901+00:00"  # of a model that is made without another

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0

_living: set["Mounted"] = set()


def wait_until(answer: Callable[[], Answer], seconds: float, what: str, interval: float = 0.05) -> Answer:
    """Return the first true answer. Else fail with an assertion that names the event that did not come."""
    end = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(interval)
    return found


def mountpoints(below: Path) -> list[Path]:
    """Return the mount points at or below a folder. Read the kernel's table: a stale or stuck mount cannot block it."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        escaped = line.split(" ")[4]
        path = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        if path == below or below in path.parents:
            found.append(path)
    return found


def unmount_lazily(mountpoint: Path) -> None:
    for command in (["fusermount", "-uz", str(mountpoint)], ["umount", "-l", str(mountpoint)]):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, timeout=10, check=False)
        if not mountpoints(mountpoint):
            return


def forgotten_mounts(below: Path) -> list[Path]:
    """Return the mounts that belong to no running `Mounted`. They are unmounted here; the test that left them fails."""
    owned = {mounted.path for mounted in _living}
    forgotten = [path for path in mountpoints(below) if path not in owned]
    for path in forgotten:
        unmount_lazily(path)
    return forgotten


def living() -> list["Mounted"]:
    return list(_living)


def renew_limits() -> None:
    """Give each running mount its whole time again: a test begins, and some mounts serve many tests."""
    for mounted in living():
        mounted.renew()


def serious_lines(log: str) -> list[str]:
    """Return the records at WARNING or above, and all lines on stderr outside of any record: tracebacks of threads,
    sentences of libfuse. The lines after a serious record belong to it."""
    lines: list[str] = []
    in_serious = False
    for line in log.splitlines():
        match = _RECORD.match(line)
        if match:
            in_serious = match[1] not in ("DEBUG", "INFO")
            if in_serious:
                lines.append(line)
        elif in_serious:
            lines[-1] += "\n" + line
        elif line.strip():
            lines.append(line)
    return lines


class Daemon(ABC):
    """A process with a log, and what a test expects in it. Leaving the context stops it, or kills it after an error."""

    _log: Path
    _expectations: list[Expectation]
    _process: "subprocess.Popen[bytes] | None"

    @abstractmethod
    def stop(self) -> None:
        """End it by SIGTERM, and assert everything that must hold then."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it, and assert nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
            return
        print(f"--- {self._log}\n{self.log()}", file=sys.stderr)
        self.kill()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not started"
        return self._process

    def log(self) -> str:
        return self._log.read_text(errors="backslashreplace")

    def expect_log(self, pattern: str, times: int | None = None) -> None:
        """Expect a matching record at WARNING or above: `times` times, or at least once."""
        self._expectations.append(Expectation(pattern, times))

    def allow_log(self, pattern: str) -> None:
        """Allow such a record, for example if it depends on the machine's speed."""
        self._expectations.append(Expectation(pattern, optional=True))

    def wait_for_log(self, pattern: str, seconds: float = 5.0) -> str:
        """Wait for a line of the log, of any level, and return it."""
        line = re.compile(f"^.*{pattern}.*$", re.MULTILINE)
        found = wait_until(lambda: list(line.finditer(self.log())), seconds, f"{pattern} in the log")
        return found[0][0]


class Mounted(Daemon):
    """`bentofs mount --foreground` on a store, as a subprocess whose cache, state and BENTOML_HOME lie below `base`.

    Leaving the context ends it by SIGTERM. It asserts that the exit code is 0, that nothing stays mounted, and that the
    log holds nothing at WARNING or above except expected lines. Entering again mounts again, with the same index. Every
    wait is bounded: `limit` seconds after its first answer, or after the begin of a later test, the daemon is killed,
    so that all readers get an error. `own_process` starts no fork (`fork_server`).
    """

    def __init__(
        self,
        store: Path | str,
        base: Path,
        *,
        formats: str | None = None,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        limit: float = 300.0,
        own_process: bool = False,
    ) -> None:
        self.location = store
        self.base = base
        self.path = base / "mnt"
        self.options = [*options, *(["--formats", formats] if formats else [])]
        self._prefix = list(prefix)
        self._own_process = own_process
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **home_of(base), **(environment or {})}
        self._limit = limit
        # libfuse writes this for a connection that the kernel ended just while a request was fetched from it, for
        # example when a mount is unmounted under its last readers. The daemon takes it for the end, which it is.
        self._expectations = [Expectation("fuse: reading device: Software caused connection abort", optional=True)]
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: threading.Timer | None = None
        self._log = base / "daemon.log"

    @property
    def store(self) -> Path:
        """Return the store's directory. A mount of a URL has none."""
        assert isinstance(self.location, Path), f"{self.location} is no directory"
        return self.location

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> "Mounted":
        self.start()
        return self

    def start(self) -> None:
        assert self._process is None, "already started"
        self.path.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = fork_server.popen(
                ["mount", str(self.path), "--store", str(self.location), "--foreground", *self.options],
                prefix=self._prefix,
                environment=self._environment,
                death_signal=signal.SIGTERM,  # it ends and unmounts even when pytest itself is killed
                own_process=self._own_process,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._kill_after(_START_SECONDS + 10)  # a look at a mount that does not answer waits as well
        _living.add(self)
        try:
            wait_until(self._answers, _START_SECONDS, f"the mount answers\n{self._log}")
        except BaseException:
            print(f"--- log of the daemon on {self.path}\n{self.log()}", file=sys.stderr)
            self.kill()
            raise
        self._kill_after(self._limit)

    def renew(self) -> None:
        """Begin its time anew, if it runs."""
        if self.running:
            self._kill_after(self._limit)

    def _kill_after(self, seconds: float) -> None:
        if self._watchdog:
            self._watchdog.cancel()
        self._watchdog = threading.Timer(seconds, self._give_up)
        self._watchdog.daemon = True
        self._watchdog.start()

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the daemon exited with {self.process.returncode}:\n{self.log()}"
        if self.path not in mountpoints(self.path):
            return False
        with contextlib.suppress(OSError):
            return (self.path / "README.txt").stat().st_size > 0
        return False

    def _give_up(self) -> None:
        self.process.kill()
        unmount_lazily(self.path)

    def stop(self) -> None:
        """End the daemon by SIGTERM, and assert everything that must hold then."""
        process = self.process
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not end the daemon within {_STOP_SECONDS:g} s:\n{self.log()}") from None
        left = mountpoints(self.path)
        self.kill()
        assert code == 0, f"the daemon exited with {code}:\n{self.log()}"
        assert not left, f"still mounted after the daemon's end: {left}"
        found = complaints(serious_lines(self.log()), self._expectations)
        assert not found, "\n".join(found)

    def kill(self) -> None:
        """Kill the daemon and clean up. Assert nothing. Harmless when it has ended already."""
        if self._watchdog:
            self._watchdog.cancel()
        if self._process:
            self._process.kill()
            if mountpoints(self.path):
                unmount_lazily(self.path)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self._process = None
        _living.discard(self)

    def archive(self, tag: str, suffix: str) -> Path:
        """Return the path of an archive: `archive("iris:v1", ".zip")`."""
        name, version = tag.split(":")
        return self.path / "models" / name / version / f"{name}-{version}{suffix}"

    def shows(self, tag: str) -> bool:
        name, version = tag.split(":")
        with contextlib.suppress(FileNotFoundError):
            return version in os.listdir(self.path / "models" / name)
        return False


def home_of(base: Path) -> dict[str, str]:
    """Return an environment in which nothing reads or writes the user's own files."""
    names = {
        "HOME": "home",
        "XDG_CACHE_HOME": "cache",
        "XDG_STATE_HOME": "state",
        "XDG_DATA_HOME": "data",
        "BENTOML_HOME": "bentoml",
        "TMPDIR": "tmp",
    }
    folders = {variable: base / name for variable, name in names.items()}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {variable: str(folder) for variable, folder in folders.items()}


def make_model(
    store: Path,
    tag: str,
    files: Files | None = None,
    *,
    creation_time: str = CREATION_TIME,
    labels: Mapping[str, str] | None = None,
    complete: bool = True,
    latest: bool | None = None,
    executable: Sequence[str] = (),
) -> Path:
    """Make a model that looks like one that BentoML >= 1.4.20 left in a store, in microseconds instead of seconds.
    Return its folder.

    `files` maps paths to their bytes, or to the size of a sparse file of zeros. A path that ends with a slash is an
    empty folder. `complete=False` leaves out the end of the save. `latest` tells if it becomes the latest (None: by
    BentoML's rule).
    """
    folder = write_model(
        store, tag, files or {}, creation_time=creation_time, labels=labels or {}, complete=complete, latest=latest
    )
    for path in executable:
        (folder / path).chmod(0o755)
    return folder


def remove_model(store: Path, tag: str) -> None:
    """Do what BentoML's `delete` does, but leave `latest` with the name of a version that is gone."""
    name, version = tag.split(":")
    shutil.rmtree(store / name / version)


def run(*command: object, seconds: float = 60.0, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run a tool with a time limit, and assert that it succeeded. The failure's text holds its output."""
    options.setdefault("env", {**os.environ, "LC_ALL": "C.UTF-8"})  # English, and names in any script
    arguments = [str(part) for part in command]
    done = subprocess.run(  # type: ignore[call-overload]
        arguments, capture_output=True, text=True, errors="backslashreplace", timeout=seconds, check=False, **options
    )
    assert done.returncode == 0, f"{arguments} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done  # type: ignore[no-any-return]


@contextlib.contextmanager
def ended(process: "subprocess.Popen[_Text]") -> Iterator["subprocess.Popen[_Text]"]:
    """Give a subprocess that is ended at the end of the context, whatever happens, also if it is stopped."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
