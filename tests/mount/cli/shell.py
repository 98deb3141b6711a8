"""The command `bentofs`, run with a home directory of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.harness import ROOT, home_of


class Shell:
    """Run `bentofs` with its own home directory."""

    def __init__(self, base: Path) -> None:
        self.environment = {**os.environ, **home_of(base)}
        self.store = base / "bentoml" / "models"
        self.mountpoint = base / "mnt"
        self.mountpoint.mkdir()

    def __call__(self, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bentofs.mount", *map(str, arguments)],
            cwd=ROOT,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def refuses(self, *arguments: str | Path, status: int = 1, **environment: str) -> str:
        """Assert that the command fails with one sentence, and return the sentence."""
        done = self(*arguments, **environment)
        assert done.returncode == status, done
        assert done.stdout == ""
        assert done.stderr.startswith("bentofs: ")
        assert done.stderr.count("\n") == 1, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr.removeprefix("bentofs: ").strip()


def daemons(mountpoint: Path) -> list[int]:
    """List the daemons of bentofs on a mountpoint."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(mountpoint) in command and b"--ready-fd" in command:
                found.append(int(entry.name))
    return found
