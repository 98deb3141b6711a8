"""The daemon: one process for one mount. It restarts itself in the background before anything of FUSE is loaded, so no
thread, lock or socket has to survive a fork."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentofs.mount.daemon.argv_secrets import UTF8_MODE, carrying, without_secrets
from bentofs.mount.daemon.backend import Backend, TreeSettings
from bentofs.mount.daemon.ending import End
from bentofs.mount.daemon.logs import RecentLog
from bentofs.mount.daemon.malloc import Trimmer, give_memory_back
from bentofs.mount.daemon.notify import ServiceManager
from bentofs.mount.daemon.running import state_folder
from bentofs.mount.daemon.stale import remove_stale
from bentofs.mount.daemon.tuning import allow_many_files, collect_seldom
from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.engine import DEFAULT_ENGINE, EngineName, new_engine
from bentofs.mount.kernel.operations import Operations
from bentofs.mount.kernel.session import Session, block_signals
from bentofs.store.util.display import printable
from bentofs.store.util.memory_budget import MemoryBudget

log = logging.getLogger(__name__)

READY_SECONDS = 30.0  # how long a daemon may take until its mount answers
_READY = b"ready\n"
_READ_AHEAD = 1 << 20  # bytes; for storage that does not read ahead itself


@dataclass(frozen=True, kw_only=True)
class Settings(TreeSettings):
    """The settings of a mount."""

    mountpoint: str  # real path
    allow_other: bool = False
    engine: EngineName = DEFAULT_ENGINE
    auto_unmount: bool = False  # if the daemon is killed, a helper unmounts
    noexec: bool = False  # nobody runs programs that lie in the mount
    passthrough: bool = True  # the kernel reads files of a local store itself, where it can
    log_level: str = "info"
    log_file: Path | None = None  # absolute; None for the default, or for standard error in the foreground


def serve(settings: Settings, ready: Callable[[], None], recent: RecentLog) -> None:
    """Mount, and serve in this process until unmounted. `ready` is called once the mount answers. `recent`: the log's
    newest lines.

    Raises:
        CannotMountError: the kernel or libfuse refused.
        StagingError: there is no place for `incoming/`.
    """
    block_signals()
    manager = ServiceManager()
    give_memory_back()
    collect_seldom()
    allow_many_files()
    location = settings.store.location
    storage = settings.store.open(follow_links=settings.follow_links)
    # The kernel checks permissions.
    options = ["allow_other", "default_permissions"] if settings.allow_other else []
    options += ["auto_unmount"] * settings.auto_unmount + ["noexec"] * settings.noexec
    passed_through = storage.folder if settings.passthrough else None
    trimmer = Trimmer()
    budget = MemoryBudget(trim=trimmer.make_room)
    engine = new_engine(settings.engine, settings.mountpoint, location, options, passed_through, budget)
    backend = Backend(
        storage,
        settings,
        recent,
        _described(settings),
        budget,
        trimmer,
        calling_user=engine.calling_user,
        features=lambda: engine.features,
        nodes=lambda: engine.nodes,
    )
    incoming = backend.incoming
    namespace = incoming.namespace if incoming is not None else None
    operations = Operations(backend.tree, engine.handles, namespace, backend.traffic)
    session = Session(engine, operations, settings.mountpoint, None if storage.reads_ahead else _READ_AHEAD)
    end = End(manager, f"{settings.mountpoint} is being unmounted")

    def announce() -> None:
        backend.start(session.is_busy)
        log.info("%s is mounted at %s", location, settings.mountpoint)
        manager.ready(f"{location} is mounted at {settings.mountpoint}")
        ready()

    try:
        remove_stale(settings.mountpoint)
        by_signal = session.run(announce, end.begin)
        if not by_signal and incoming is not None:
            end.let_finish(incoming.finish, session)
        end.hurry()
    finally:
        engine.stop()
        backend.stop()
        backend.close()
        end.is_there()
    log.info("%s is unmounted", settings.mountpoint)


def _described(settings: Settings) -> dict[str, Any]:
    """Return the settings for the status. They hold no secrets."""
    log_file = settings.log_file
    return {
        "mountpoint": printable(settings.mountpoint),
        "store": printable(settings.store.location),
        "engine": settings.engine.value,
        "formats": [kind.name for kind in settings.formats],
        "compression": settings.compression.value,
        "log_file": printable(str(log_file)) if log_file is not None else None,
    }


def start(arguments: Sequence[str], log_file: Path, *, in_trap: bool = False) -> None:
    """Run `bentofs` with these arguments in the background. Return once its mount answers. The process logs to a file.

    `in_trap`: an automounter waits for the mount. It lets only its own process group pass to the mountpoint, so the
    daemon stays in this process's group until its mount answers.

    Raises:
        CannotMountError: the daemon did not come up; the sentence is its own.
    """
    receiver, sender = os.pipe()
    arguments = [*arguments, "--ready-fd", str(sender)]
    begin = log_file.stat().st_size if log_file.exists() else 0
    daemon = None
    ready = False
    # Block Ctrl-C until the daemon is known and can be ended. Otherwise it would come up in spite of Ctrl-C.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        daemon = _begin(arguments, log_file, sender, new_session=not in_trap)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
        ready = _await_ready(receiver)
    finally:
        if daemon is not None and not ready:
            _end(daemon)
        os.close(receiver)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    if ready:
        return
    lines = log_file.read_bytes()[begin:].decode(errors="replace").strip().splitlines()
    # Lines of libfuse and fusermount bear no date; lines of the log do.
    said = [line.removeprefix("bentofs: ") for line in lines if line.strip() and not line[0].isdigit()]
    reason = "; ".join(said[-4:]) or f"the daemon did not come up, see {log_file}"
    raise CannotMountError(reason, max(1, daemon.returncode))


def _begin(arguments: Sequence[str], log_file: Path, sender: int, *, new_session: bool) -> subprocess.Popen[bytes]:
    """Start the daemon's process. It tells through `sender` that it is ready."""
    try:
        with open(log_file, "ab") as output:
            return subprocess.Popen(
                [sys.executable, *UTF8_MODE, "-m", "bentofs.mount", *without_secrets(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=state_folder(),  # python -m looks for modules there, and no other user may write to it
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | carrying(arguments),
                start_new_session=new_session,
                pass_fds=(sender,),
            )
    finally:
        os.close(sender)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    """End a daemon that did not come up. Use SIGTERM before SIGKILL: it may have mounted."""
    for stop in (daemon.terminate, daemon.kill):
        try:
            daemon.wait(5 if stop == daemon.kill else 0.5)
            return
        except subprocess.TimeoutExpired:
            stop()
    daemon.wait()


def _await_ready(receiver: int) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while (remaining := deadline - time.monotonic()) > 0:
        if select.select([receiver], [], [], remaining)[0]:
            return os.read(receiver, len(_READY)) == _READY
    return False


def tell_ready(descriptor: int) -> None:
    """Tell the process that called `start` that the mount answers. If that process has ended, unmount: no one knows of
    the mount. From then on, be in a session of its own."""
    try:
        os.write(descriptor, _READY)
    except BrokenPipeError:
        log.info("the command that asked for this mount was ended before the mount was ready")
        os.kill(os.getpid(), signal.SIGTERM)
    os.close(descriptor)
    if os.getpgrp() != os.getpid():
        os.setsid()
