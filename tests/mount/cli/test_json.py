"""The JSON output of every command, against the schema that mount/JSON.md describes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import jsonschema
import pytest

from bentofs.mount.cli.main import COMMANDS, cli, run
from tests.harness import ROOT, home_of, make_model, mountpoints, unmount_lazily
from tests.mount.cli import json_schema

_TEXT = {"completion", "man", "systemd print"}  # they print texts for other programs
_APART = ("mount", "serve", "status", "doctor", "clean")  # they need a process of their own

# Command lines whose output is checked, with their exit statuses, in the order in which they run. {} is a directory.
RUNS: Mapping[str, Sequence[tuple[int, str]]] = {
    "mount": [(0, "mount {}/mnt"), (1, "mount {}/mnt"), (3, "mount {}/mnt --store {}/no")],
    "status": [(0, "status {}/mnt"), (1, "status {}/missing")],
    "serve": [(3, "serve --store {}/no"), (2, "serve --bind nowhere")],  # a good one: mount/serve/test_reading.py
    "doctor": [(0, "doctor"), (2, "doctor --engine none")],
    "unmount": [(0, "unmount {}/mnt"), (1, "unmount {}/mnt")],
    "list": [(0, "list"), (0, "list iris --label no"), (3, "list no"), (2, "list --newer soon")],
    "get": [(0, "get iris"), (0, "get odd"), (3, "get no"), (2, "get"), (2, "get iris --formats rar")],
    "measure": [(0, "measure iris:v1 odd"), (3, "measure no")],
    "verify": [(0, "verify"), (0, "verify"), (3, "verify no")],
    "export": [
        (0, "export iris:v1 {}/m.tar --sha256"),
        (0, "export iris:v1 {}/folder --format folder"),
        (3, "export no {}/x.tar"),
        (2, "export"),
    ],
    "import": [
        (0, "import {}/m.tar --store {}/other"),
        (0, "import {}/m.tar {}/folder --store {}/other"),
        (3, "import {}/m.tar {}/missing --store {}/other"),
        (5, "import {}/m.tar.sha256"),
    ],
    "systemd": [(0, "systemd install --user"), (0, "systemd uninstall --user"), (3, "systemd uninstall --user")],
    "clean": [(0, "clean"), (0, "clean --dry-run"), (2, "clean --no-such-option")],
    "imports": [(0, "imports --store {}/other"), (3, "imports --store {}/no")],
}


class Place:
    """A directory with a store, in the environment of this process."""

    def __init__(self, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._base = base
        self._capsys = capsys

    def output(self, line: str) -> tuple[int, str, str]:
        """Run a command. Return its exit status, standard output and standard error."""
        arguments = [*line.replace("{}", str(self._base)).split(), "--json"]
        if arguments[0] in _APART:
            command = [sys.executable, "-m", "bentofs.mount", *arguments]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            return done.returncode, done.stdout, done.stderr
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        code = ended.value.code
        assert isinstance(code, int)
        return code, *self._capsys.readouterr()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Place]:
    for name, value in home_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    store = tmp_path / "bentoml/models"
    make_model(store, "iris:v1", {"w": b"x" * 1000}, labels={"team": "a"})
    make_model(store, "iris:v2", {"w": b"y"})
    odd = make_model(store, "odd:v1", {b"\xff.bin": b"y" * 5000})
    values = "metadata: {inf: .inf, when: 2026-01-02, bytes: !!binary aGk=, 1: [true, null], set: !!set {a, b}}\n"
    (odd / "model.yaml").write_text((odd / "model.yaml").read_text() + values)
    os.utime(odd, ns=(1, 1))
    (tmp_path / "mnt").mkdir()
    yield Place(tmp_path, capsys)
    if mountpoints(tmp_path):
        unmount_lazily(tmp_path / "mnt")


def _commands(name: str) -> dict[str, click.Command]:
    """Return a command, or those of a group, by their whole names."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    if not isinstance(command, click.Group):
        return {name: command}
    return {f"{name} {each}": below for each, below in command.commands.items()}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - _TEXT))
def test_every_command_has_json(name: str) -> None:
    for each, command in _commands(name).items():
        has_json = "as_json" in [parameter.name for parameter in command.params]
        assert has_json or each in _TEXT, f"{each} has no --json (json_option)"
    assert name in json_schema.SCHEMA["$defs"], f"mount/cli/schema.json has no definition of {name}"
    assert name in RUNS, f"RUNS has no command line of {name}"


def test_output_is_as_the_schema_says(place: Place) -> None:
    for name, runs in RUNS.items():
        for status, line in runs:
            code, output, errors = place.output(line)
            assert code == status, (line, output, errors)
            assert "Traceback" not in errors
            values = _values(output)
            assert values or status == 2, (line, errors)
            failed = [value for value in values if isinstance(value, dict) and "error" in value and "status" in value]
            for value in values:
                json_schema.check("error" if value in failed else name, value)
            assert [error["status"] for error in failed] == [status] * bool(status and values), (line, output)
            for error in failed:
                assert error["error"] in " ".join(errors.split())


def _values(output: str) -> list[object]:
    """Return the only document, or one value a line. Refuse the constants that JSON lacks."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    try:
        return [json.loads(output, parse_constant=refuse)] if output else []
    except json.JSONDecodeError:
        return [json.loads(line, parse_constant=refuse) for line in output.splitlines()]


def test_the_document_shows_the_schema() -> None:
    """`python -m tests.mount.cli.json_schema` brings the tables up to date."""
    documented = json_schema.DOCUMENTED.read_text()
    for name in json_schema.SCHEMA["$defs"]:
        assert json_schema.table(name) in documented, name
    headings = re.findall(r"^## (.*)$", documented, re.MULTILINE)
    assert headings == list(json_schema.SCHEMA["$defs"])
    assert {*headings} == {*COMMANDS} - _TEXT | {"error"}


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema.SCHEMA)
    named = [option["$ref"].rpartition("/")[2] for option in json_schema.SCHEMA["anyOf"]]
    assert named == list(json_schema.SCHEMA["$defs"])
    with pytest.raises(jsonschema.ValidationError):
        json_schema.check("unmount", {"mountpoint": "/m", "more": 1})
