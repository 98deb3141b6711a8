"""The manual page: well-formed for groff and mandoc, complete, and found by man."""

import os
import re
import subprocess
from pathlib import Path

import click
import pytest

from bentofs.mount.cli.exit_statuses import EXIT_STATUSES
from bentofs.mount.cli.main import COMMANDS, cli
from bentofs.mount.cli.manpage import page
from bentofs.mount.errors import INTERRUPTED
from tests.harness import ROOT, run
from tests.mount.test_errors import STATUSES


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page as `man bentofs` shows it, from a directory that the search for pages knows."""
    base = tmp_path_factory.mktemp("man")
    (base / "man1").mkdir()
    (base / "man1/bentofs.1").write_text(page(cli))
    environment = {**os.environ, "MANPATH": str(base), "MANWIDTH": "1000", "LC_ALL": "C.UTF-8"}
    shown = run("man", "--warnings", "-P", "cat", "bentofs", env=environment)
    assert shown.stderr == ""
    return re.sub(r"\s+", " ", shown.stdout)


def test_nothing_to_complain_about(tmp_path: Path) -> None:
    path = tmp_path / "bentofs.1"
    path.write_text(page(cli))
    done = subprocess.run(["mandoc", "-T", "lint", path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_all_commands_and_options_are_there(shown: str) -> None:
    context = click.Context(cli, info_name="bentofs")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert f" bentofs {name} bentofs {name} [OPTIONS]" in shown
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[0] in shown
                assert re.sub(r"\s+", " ", parameter.help or "") in shown
    for variable in ("BENTOML_HOME", "BENTOFS_PASSWD", "NO_COLOR"):
        assert f" {variable} " in shown


def test_exit_statuses_are_those_of_the_readme(shown: str) -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    texts = {int(status): (text[:1].upper() + text[1:]).replace("`", "") for status, text in rows}
    assert texts == EXIT_STATUSES
    assert {*STATUSES.values(), INTERRUPTED} <= EXIT_STATUSES.keys()
    for status, text in EXIT_STATUSES.items():
        assert f" {status} {text}." in shown


def test_text_is_no_request() -> None:
    @click.group(help="A group.")
    def group() -> None: ...

    @group.command(help="First \\fBline\\fR.\n\n.so /etc/passwd\n\n'quoted' -x")
    def odd() -> None: ...

    text = page(group)
    assert "\n.so" not in text
    assert "\\&.so /etc/passwd" in text
    assert "First \\efBline\\efR." in text
    assert "\\(aqquoted\\(aq \\-x" in text
