"""Jobs: how many are held at a time, and what happens to the rest when nobody reads the reports."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bentofs.mount.cli.jobs import Job, JobReport, run_jobs
from bentofs.mount.cli.progress import Task
from bentofs.store.errors import NotFoundError
from tests.harness import ROOT, home_of, make_model


def test_no_more_jobs_are_held_than_run(capsys: pytest.CaptureFixture[str]) -> None:
    lock = threading.Lock()
    drawn = ended = most = 0

    def run(_task: Task) -> JobReport:
        nonlocal ended, most
        with lock:
            most = max(most, drawn - ended)
            ended += 1
        return "done", {"size": 0}

    def jobs() -> Iterator[Job]:
        nonlocal drawn
        for number in range(200):
            drawn += 1
            yield Job(str(number), run)

    run_jobs(jobs(), lambda: None, 3, quiet=False, as_json=False, to_stderr=False)
    assert ended == 200
    assert most <= 2 * 3  # as many again may have ended but not yet been counted
    assert capsys.readouterr().out.count("done") == 200


def test_one_that_fails_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_task: Task) -> JobReport:
        raise NotFoundError("it is not there")

    jobs = [Job("a", fail), Job("b", lambda _task: ("done", {"size": 0}))]
    with pytest.raises(click.ClickException) as raised:
        run_jobs(iter(jobs), lambda: None, 1, quiet=False, as_json=False, to_stderr=False)
    assert raised.value.exit_code == 3
    told = capsys.readouterr()
    assert "done" in told.out
    assert told.err == "bentofs: a: it is not there\n"


def test_nobody_reads_the_reports(tmp_path: Path) -> None:
    """The remaining jobs do not run in silence. Example: the reports are piped into `head -1`."""
    store = tmp_path / "bentoml" / "models"
    for number in range(40):
        make_model(store, f"m-{number}:v1", {"w": b"x"})
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "bentofs.mount", "export", "--all", str(tmp_path / "out"), "--jobs", "1"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **home_of(tmp_path)}, stdout=writer, stderr=subprocess.PIPE, timeout=60,
        check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert len(list((tmp_path / "out").glob("*.bentomodel"))) < 10
