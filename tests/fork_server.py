"""Start `bentofs` in a fork of a process that has loaded it, for less than half of a start's processor time.

`tests/forked.py` makes the forks, one such process for each worker of pytest. A fork is a child of this process, as any
other: `popen()` returns it as a `Popen`.

A fork shares memory, and does without what Python and the C library do once at a start. So these are processes of their
own, and test all that a user starts:

- daemons and servers of tests of memory, processor time, descriptors, code pages and kills: `own_process=True`;
- those with another program before them, or whose environment differs in more than `_MAY_DIFFER`;
- every command that a test runs itself (all of tests/mount/cli), and every daemon that such a command starts.

BENTOFS_OWN_PROCESSES=1 starts no forks at all.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.forked import COMMAND_LINE, LARGEST_REQUEST

_ROOT = Path(__file__).resolve().parent.parent
_MAY_DIFFER = re.compile("HOME|XDG_.*|BENTOML_HOME|TMPDIR|AWS_.*|PYTEST_.*")  # read when they are needed
_START_SECONDS = 60.0

_ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1"}
_lock = threading.Lock()  # one request at a time
_server: "_ForkServer | None" = None


def popen(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    death_signal: signal.Signals,
    prefix: Sequence[str] = (),
    own_process: bool = False,
    **options: Any,
) -> "subprocess.Popen[bytes]":
    """Start `bentofs` with these arguments, in the checkout's directory. It gets the signal when this process ends.

    `prefix`: a command that starts it. `options`: those of Popen that name its input, output and errors.
    """
    command = [sys.executable, "-m", "bentofs.mount", *arguments]
    if not prefix and not own_process and _may_fork(environment):
        return _Fork(command, env=environment, death_signal=death_signal, **options)
    setpriv = ["setpriv", "--pdeathsig", death_signal.name.removeprefix("SIG")]
    return subprocess.Popen([*setpriv, *prefix, *command], cwd=_ROOT, env=environment, **options)


def stop() -> None:
    """End the process that makes forks. Call it when the session ends."""
    global _server
    with _lock:
        if _server is not None:
            _server.stop()
            _server = None


def _may_fork(environment: Mapping[str, str]) -> bool:
    if os.environ.get("BENTOFS_OWN_PROCESSES"):
        return False
    names = {name for name, _ in environment.items() ^ _ENVIRONMENT.items()}
    return all(map(_MAY_DIFFER.fullmatch, names))


class _Fork(subprocess.Popen[bytes]):
    """A fork. Popen makes a child in one private method; all else that it does holds for any child."""

    def __init__(self, command: Sequence[str], *, death_signal: signal.Signals, **options: Any) -> None:
        self._death_signal = death_signal
        super().__init__(command, **options)

    def _execute_child(self, args: Sequence[str], *given: Any) -> None:
        global _server
        environment, pipes = given[5], given[9:15]
        request = {
            "arguments": args[3:],
            "environment": dict(environment),
            "death_signal": int(self._death_signal),
        }
        try:
            with _lock:
                _server = _server or _ForkServer()
                self.pid = _server.fork(request, (pipes[0], pipes[3], pipes[5]))
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


class _ForkServer:
    """The process that makes forks. It ends with this process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_START_SECONDS)
        command = [sys.executable, "-m", "tests.forked", COMMAND_LINE, str(theirs.fileno())]
        options: Any = {"cwd": _ROOT, "env": _ENVIRONMENT, "pass_fds": [theirs.fileno()]}
        options |= {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        # A fork's parent is the thread that started this process. When that thread ends, the fork gets its signal.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="fork-server")
        self._process = self._starter.submit(lambda: subprocess.Popen(command, **options)).result()
        theirs.close()

    def fork(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        """Return the pid of a new process."""
        text = json.dumps(request).encode()
        assert len(text) <= LARGEST_REQUEST, "an environment that is too large"
        socket.send_fds(self._socket, [text], descriptors)
        answer = self._socket.recv(64)
        assert answer, f"the process that makes forks ended by {self._process.wait(10)}"
        return int(answer)

    def stop(self) -> None:
        self._socket.close()
        self._process.wait(10)
        self._starter.shutdown()
