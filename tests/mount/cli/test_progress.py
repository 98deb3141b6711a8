"""Progress on a terminal and elsewhere, and that results stay apart from it."""

import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.progress import TaskID

from bentofs.mount.cli.bars import Bars
from bentofs.mount.cli.main import cli
from bentofs.mount.cli.progress import Reporter
from tests.harness import ROOT, home_of, make_model, run


class Terminal:
    """A terminal that can take the place of standard error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        ours, theirs = pty.openpty()
        self._seen: list[bytes] = []
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()
        self._file = open(theirs, "w", encoding="utf-8")  # noqa: SIM115 - until `seen`
        for name, value in {"TERM": "xterm", "COLUMNS": "120"}.items():
            monkeypatch.setenv(name, value)
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)

    def take_standard_error(self) -> None:
        """Call it in the test itself: pytest replaces standard error between its phases."""
        self._monkeypatch.setattr(sys, "stderr", self._file)

    def _read(self, ours: int) -> None:
        try:
            while part := os.read(ours, 1 << 16):
                self._seen.append(part)
        except OSError:  # the other end is closed
            os.close(ours)

    def seen(self) -> str:
        """Close the terminal, and return all that was written to it."""
        self._file.close()
        self._reader.join(10)
        return b"".join(self._seen).decode(errors="replace")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.seen()


@pytest.fixture
def two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    for version in ("v1", "v2"):
        make_model(tmp_path / "bentoml/models", f"iris:{version}", {"w": b"x" * 100_000})


@pytest.mark.usefixtures("two_models")
@pytest.mark.parametrize("command", ["measure", "verify"])
def test_long_commands_show_the_model_they_are_at(
    command: str, terminal: Terminal, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the current model has a bar. Bars for all of thousands of models took most of the time."""
    counts: list[int] = []

    class Counting(Bars):
        def advance(self, bar: TaskID, count: int) -> None:
            counts.append(count)
            super().advance(bar, count)

    monkeypatch.setattr("bentofs.mount.cli.bars.Bars", Counting)
    terminal.take_standard_error()
    cli.main([command], standalone_mode=False)
    assert sum(counts) > 200_000
    told = capsys.readouterr().out
    assert re.findall(r"^iris:v\d", told, re.MULTILINE) == ["iris:v1", "iris:v2"]
    assert "\x1b" not in told
    seen = terminal.seen()
    lines = re.split(r"[\r\n]+", seen)
    assert any("iris:v1" in line and "kB" in line for line in lines), seen
    assert any("iris:v2" in line for line in lines)
    assert "\x1b[1A\x1b[2K\x1b[1A" not in seen  # never two bars to erase


def test_no_color(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.take_standard_error()
    monkeypatch.setenv("NO_COLOR", "1")
    with Reporter(quiet=False) as reporter, reporter.task("m", 10) as task:
        task.advance(5)
    seen = terminal.seen()
    assert "m" in seen
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", seen), seen  # cursor movements are no colours


def test_counts_of_things(terminal: Terminal) -> None:
    terminal.take_standard_error()
    with Reporter(quiet=False) as reporter:
        with reporter.task("files", 4000, unit="files") as task:
            task.advance(2000)
        reporter.say("done", err=True)
    seen = terminal.seen()
    assert "0/4,000 files" in seen
    assert "done" in seen


def test_a_program_gets_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """FORCE_COLOR does not turn a pipe into a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    now = [100.0]
    monkeypatch.setattr("bentofs.mount.cli.progress.time.monotonic", lambda: now[0])
    with Reporter(quiet=False) as reporter, reporter.task("m", 4_000_000) as task:
        task.advance(1_000_000)
        now[0] += 20
        task.advance(1_000_000)
    assert capsys.readouterr().err == "m: 2.0 MB of 4.0 MB (50 %), 100.0 kB/s, 20 s left\n"
    with Reporter(quiet=False, as_json=True) as reporter, reporter.task("m") as task:
        now[0] += 20
        task.advance(1)
    assert capsys.readouterr().err == ""


def test_a_daemon_does_not_load_what_it_does_not_need() -> None:
    """Progress bars and clients of servers take long to load, and much memory."""
    script = "import sys; import bentofs.mount.cli.main, bentofs.mount.cli.mount; print(*sys.modules)"
    loaded = run(sys.executable, "-c", script, cwd=ROOT).stdout.split()
    assert "bentofs.mount.daemon.serve" in loaded
    unwanted = ("rich", "pygments", "s3fs", "fsspec", "aiobotocore", "paramiko", "jinja2", "bentofs.mount.cli.transfer")
    assert not [name for name in loaded if name.startswith(unwanted)]
