"""Helpers for tests of staging and publishing: staged models, views of a store, and processes killed at any moment."""

import contextlib
import datetime
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.model.model import ModelInfo
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.base import Outcome, PublishRequest
from bentofs.store.publishing.local import LocalPublisher
from bentofs.store.staging.model import Staged
from bentofs.store.staging.session import Session
from bentofs.store.storage.local import LocalStorage
from tests.harness import ROOT, make_model, run, unmount_lazily, wait_until

CREATED = "2026-01-02T03:04:05.678901+00:00"
_CHILD_SECONDS = 30.0


def stage(
    session: Session,
    tag: str,
    files: Mapping[str | bytes, bytes | int],
    created: str = CREATED,
    executable: Sequence[str] = (),
) -> str:
    """Stage a model like an import before publishing. Return its path."""
    place = Path(session.new_staged_path())
    place.mkdir()
    return str(
        make_model(place, tag, files, creation_time=created, complete=False, latest=False, executable=executable)
    )


def publish_files(
    session: Session,
    tag: str,
    files: Mapping[str | bytes, bytes | int],
    created: str = CREATED,
    *,
    overwrite: bool = False,
    move_latest: bool = True,
    executable: Sequence[str] = (),
) -> Outcome:
    staged = stage(session, tag, files, created, executable)
    return publish(session, staged, tag, created, overwrite=overwrite, move_latest=move_latest)


def publish(
    session: Session,
    staged: str,
    tag: str,
    created: str = CREATED,
    *,
    overwrite: bool = False,
    move_latest: bool = True,
) -> Outcome:
    """Publish a staged directory into the session's store."""
    info = ModelInfo(Tag.parse(tag), "", datetime.datetime.fromisoformat(created), {})
    return LocalPublisher(session).publish(PublishRequest(Staged(staged, info, {}), overwrite, move_latest))


def shown(store: Path) -> list[str]:
    """List the tags that a mount would show at once."""
    return [str(tag) for tag in ModelStore(LocalStorage(str(store))).tags()]


def content(folder: Path) -> dict[str, bytes]:
    """Return all files below a directory, without `model.yaml` and empty directories."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "model.yaml"
    }


def contents(store: Path) -> dict[str, dict[str, bytes]]:
    """Return all models of a store. Fail for a directory that is no model: it breaks `bentoml models list`."""
    found = {}
    for name in store.iterdir():
        for version in name.iterdir():
            if version.is_dir():
                assert (version / "model.yaml").is_file(), f"{version} breaks `bentoml models list`"
                found[f"{name.name}:{version.name}"] = content(version)
            else:
                assert version.name == "latest"
                assert version.read_text(), f"{version} is empty"
    return found


def latest(store: Path, name: str) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return (store / name / "latest").read_text()
    return None


@contextlib.contextmanager
def without_exchanging_renames(base: Path) -> Iterator[Path]:
    """Yield a directory on a file system that has only the plain rename: bindfs, on FUSE 2."""
    (base / "bound").mkdir()
    (base / "behind").mkdir()
    run("bindfs", base / "behind", base / "bound")
    try:
        yield base / "bound"
    finally:
        unmount_lazily(base / "bound")


def killed_at_every_step(prepare: Callable[[], Session], work: Callable[[Session], object]) -> Iterator[int]:
    """Do the work in a child process that is killed before one of its system calls, in each round before a later one,
    until a child finishes. The caller can look at the result after each child. Two of three calls are passed over,
    except with BENTOFS_LONG=1."""
    for step in range(1, 1000, 1 if "BENTOFS_LONG" in os.environ else 3):
        if not _killed_at(step, prepare, work):
            return
        yield step
    raise AssertionError("the work has no end")


def _killed_at(step: int, prepare: Callable[[], Session], work: Callable[[Session], object]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            session = prepare()
            sys.setprofile(_Killer(step))
            work(session)
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    wait_until(lambda: _ended(child), _CHILD_SECONDS, "the child's end", 0.001)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def _ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class _Killer:
    """A profile function that kills its process at a step. It does not see calls made by ctypes, only the function that
    makes them."""

    def __init__(self, step: int) -> None:
        self._left = step

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        is_system_call = event == "c_call" and getattr(argument, "__module__", "") in ("posix", "fcntl")
        is_renameat2 = event == "call" and frame.f_code.co_name == "_renameat2"
        if is_system_call or is_renameat2:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def other_process(script: str, *arguments: str | Path) -> "Iterator[subprocess.Popen[str]]":
    """Yield a process of this project, and end it at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def said(process: "subprocess.Popen[str]", word: str, seconds: float = 20.0) -> None:
    """Wait for a process to print a line."""
    assert process.stdout is not None
    end = time.monotonic() + seconds
    os.set_blocking(process.stdout.fileno(), True)
    line = process.stdout.readline()
    assert line.strip() == word, f"{line!r} instead of {word}"
    assert time.monotonic() < end


def in_a_namespace_of_its_own(script: str, *arguments: str | Path) -> None:
    """Run a script that may mount anything, as root or not. The mounts end with it. It fails on any log line that it
    did not print itself."""
    run("unshare", "--map-root-user", "--mount", sys.executable, "-c", script, *map(str, arguments), cwd=ROOT)
