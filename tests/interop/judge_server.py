"""A release of BentoML that is imported once for many commands: each runs in a fork.

Importing BentoML takes a second of processor time, and the suite gives hundreds of commands.
"""

import json
import os
import selectors
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

_START_SECONDS = 60.0

_servers: "dict[tuple[str, ...], JudgeServer]" = {}


def server_of(command: Sequence[str], environment: Mapping[str, str]) -> "JudgeServer":
    """Return the process of this command, a new one at the first call."""
    key = tuple(command)
    if key not in _servers:
        _servers[key] = JudgeServer(command, environment)
    return _servers[key]


def stop_servers() -> None:
    """End all processes. Call it when the session ends."""
    while _servers:
        _servers.popitem()[1].stop()


class JudgeServer:
    """A process of `judge.py serve`, which ends with this one."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()  # one command at a time
        self._folder = tempfile.TemporaryDirectory(prefix="judge-")
        home = {"BENTOML_HOME": self._folder.name, "HOME": self._folder.name}
        self._process = subprocess.Popen(
            [*command, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**environment, **home}, text=True
        )
        self._is_new = True

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], *, seconds: float) -> str:
        """Run one command with these environment variables. Return its output; fail if it fails."""
        folder = Path(self._folder.name)
        request = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": os.getcwd(),
            "stdout": str(folder / "stdout"),
            "stderr": str(folder / "stderr"),
        }
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = self._answer(seconds + (_START_SECONDS if self._is_new else 0))
            self._is_new = False
            said, complained = ((folder / name).read_text(errors="backslashreplace") for name in ("stdout", "stderr"))
        assert code == "0", f"{list(arguments)} exited with {code}\n{said}\n{complained}"
        return said

    def stop(self) -> None:
        """End the process and remove its files."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def _answer(self, seconds: float) -> str:
        """Return the exit code that the process tells."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self._process.kill()
                raise AssertionError(f"no answer of the judge within {seconds:g} s")
        code = self._process.stdout.readline().strip()
        assert code, f"the judge ended by {os.waitstatus_to_exitcode(self._process.wait(10) or 0)}"
        return code
