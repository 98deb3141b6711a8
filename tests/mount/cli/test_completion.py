"""Completion in real shells: bash and zsh on a terminal, fish by its own command."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from bentofs.mount.cli.main import COMMANDS
from tests.harness import Mounted, home_of, make_model

_PRESS_SECONDS = 30  # on a busy machine, each press of Tab starts a Python


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a store of three models, a mount of it, and the scripts of completion."""
    base = tmp_path_factory.mktemp("completion")
    store = base / "bentoml/models"
    for tag in ("iris:v1", "iris:v2-long", "lily:v1", "many-commas:v1"):
        make_model(store, tag, {"w": b"x"})
    (base / "work" / "some directory").mkdir(parents=True)
    (base / "work" / "some file").touch()
    for shell in ("bash", "zsh", "fish"):
        command = [sys.executable, "-m", "bentofs.mount", "completion", shell]
        script = subprocess.run(command, env=environment_of(base), capture_output=True, timeout=60, check=True)
        (base / f"completion.{shell}").write_bytes(script.stdout)
    with Mounted(store, base / "mounted"):
        yield base


def environment_of(base: Path) -> dict[str, str]:
    """Return an environment in which `bentofs` is the one under test."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, **home_of(base), "PATH": path, "TERM": "dumb", "LC_ALL": "C.UTF-8"}


_BASH = r"""
PS1='$ '; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'
bind -x '"\C-t": printf "\nline<%s>\n" "$READLINE_LINE"'
"""
_ZSH = r"""
PS1='$ '; unsetopt beep; autoload -U compinit; compinit -u -D
tell() { print -r -- "
line<$BUFFER>" }; zle -N tell; bindkey '^T' tell
"""


def typed(shell: str, home: Path, texts: list[str]) -> list[str]:
    """Type each text and a Tab at the prompt of a shell. Return the command lines that come of it."""
    start = {"bash": "bash --norc --noprofile -i", "zsh": "zsh -f -i"}[shell]
    # A terminal that is wide enough, so that no line is wrapped.
    child = pexpect.spawn(
        start,
        env=environment_of(home),
        cwd=home / "work",
        encoding="utf-8",
        timeout=_PRESS_SECONDS,
        dimensions=(50, 500),
    )
    try:
        rc = home / f"rc.{shell}"
        rc.write_text({"bash": _BASH, "zsh": _ZSH}[shell] + f"\nsource {home}/completion.{shell}\necho rea''dy\n")
        child.sendline(f"source {rc}")
        child.expect("ready")
        lines = []
        for text in texts:
            child.send(f"{text}\t\x14")
            child.expect(r"line<([^\n]*)>")
            assert isinstance(child.match, re.Match)
            lines.append(child.match[1])
            child.send("\x15")
        return lines
    finally:
        child.close(force=True)


def in_fish(home: Path, *lines: str) -> list[list[str]]:
    """Return fish's completions of each line."""
    script = f"source {home}/completion.fish\n" + "".join(f'complete -C "{line}"; echo ----\n' for line in lines)
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=environment_of(home),
        cwd=home / "work",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not done.stderr
    return [part.splitlines() for part in done.stdout.split("----\n")[:-1]]


CASES = {
    "bentofs unm": "bentofs unmount ",
    "bentofs get iris:v2": "bentofs get iris:v2-long ",
    "bentofs measure --compression=al": "bentofs measure --compression=always ",
    "bentofs measure --formats zip,b": "bentofs measure --formats zip,bentomodel ",
    "bentofs export iris:v1 som": "bentofs export iris:v1 some\\ ",
    "bentofs mount some": "bentofs mount some\\ directory/",
    "bentofs unmount {}/mounted/m": "bentofs unmount {}/mounted/mnt ",
}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_on_a_terminal(shell: str, home: Path) -> None:
    lines = typed(shell, home, [text.replace("{}", str(home)) for text in CASES])
    assert dict(zip(CASES, [line.replace(str(home), "{}") for line in lines], strict=True)) == CASES


def test_in_fish(home: Path) -> None:
    commands, tags, formats, mounts, files, value = in_fish(
        home,
        "bentofs m",
        "bentofs get iris:",
        "bentofs measure --formats zip,t",
        f"bentofs unmount {home}/",
        "bentofs import some",
        "bentofs measure --compression=al",
    )
    assert [line.partition("\t")[0] for line in commands] == sorted(name for name in COMMANDS if name.startswith("m"))
    assert "Mount a model store" in next(line for line in commands if line.startswith("mount\t"))
    assert tags == ["iris:v1", "iris:v2-long"]
    assert formats == ["zip,tar", "zip,tar.bz2", "zip,tar.gz", "zip,tar.xz"]
    assert mounts == [str(home / "mounted/mnt")]
    assert [line.partition("\t")[0] for line in files] == ["some directory/", "some file"]
    assert value == ["--compression=always"]


def test_words(store: Path, completed: Callable[..., list[str]]) -> None:
    for tag in ("iris:v1", "iris:v2", "lily:v1"):
        make_model(store, tag, {})
    assert completed("") == list(COMMANDS)
    assert completed("verify", "iris:v1", "l") == ["lily:v1"]
    assert completed("list", "") == ["iris", "lily"]
    assert completed("list", "iris:") == ["iris:v1", "iris:v2"]
    assert completed("list", "--fol") == ["--follow-links"]
    assert completed("export", "--format", "tar.") == ["tar.gz", "tar.xz", "tar.bz2"]
    assert completed("measure", "--formats", "zip,zi") == []
    assert completed("get", "'iris:") == ["iris:v1", "iris:v2"]  # in open quotes
    assert completed("get", "--store", "/nowhere", "i") == []


def test_what_the_configuration_names(
    store: Path, tmp_path: Path, completed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "team", "rose:v1", {})
    make_model(store, "iris:v1", {})
    config = tmp_path / "config.toml"
    config.write_text(f'[defaults]\nstore = "{tmp_path}/team"\n[mounts.team]\nmountpoint = "/mnt"\n')
    monkeypatch.setenv("BENTOFS_CONFIG", str(config))
    assert completed("mount", "te") == ["team"]
    assert completed("get", "") == ["rose:v1"]
    assert completed("get", "--store", str(store), "") == ["iris:v1"]
    monkeypatch.setenv("BENTOFS_STORE", str(store))
    assert completed("get", "") == ["iris:v1"]


def test_many_names_come_before_their_versions(store: Path, completed: Callable[..., list[str]]) -> None:
    for number in range(60):
        make_model(store, f"m{number}:v1", {})
    assert completed("get", "m") == sorted(f"m{number}" for number in range(60))
    assert completed("get", "m59") == ["m59:v1"]
    assert completed("get", "m59:") == ["m59:v1"]
    assert completed("get", "x", "--store", "ftp://127.0.0.1:1/", last="m") == []


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Complete the last argument in this process."""
    from bentofs.mount.cli.completion import _FishComplete
    from bentofs.mount.cli.main import cli

    for name, value in home_of(tmp_path).items():
        monkeypatch.setenv(name, value)

    def completed(*arguments: str, last: str | None = None) -> list[str]:
        words = [*arguments, *([] if last is None else [last])]
        monkeypatch.setenv("COMP_LINE", " ".join(["bentofs", *words]))
        return [re.split("\t", line)[1] for line in _FishComplete(cli, {}, "bentofs", "X").complete().splitlines()]

    return completed
