"""Names are bytes in any locale: for commands, mounts, the library in another program's process, and terminals."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from bentofs.store.api import export_model
from tests.buckets import Bucket
from tests.harness import ROOT, Mounted, ended, home_of, make_model, mountpoints, run
from tests.servers import SeaweedServer

_TEXTS = [
    "\u00f6.txt",
    "e\u0301/\u6a21\u578b",
    "\u6a21" * 40,  # too long for the ustar field
]
_BYTES = [
    b"\x9b\x8e",  # control characters of ISO 8859, which EUC-JP decodes but does not encode
    b"\xf6",  # not UTF-8
]
_LOCALES = {"en_US.ISO-8859-1": "iso8859-1", "ja_JP.EUC-JP": "euc_jp"}  # Python's names for them
_one_is_enough = pytest.mark.parametrize("locale", [next(iter(_LOCALES))], indirect=True)
_FORMATS = ("bentomodel", "tar", "tar.gz", "zip", "folder")


@pytest.fixture(scope="module", params=_LOCALES)
def locale(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a process in a locale that is not UTF-8."""
    folder = tmp_path_factory.mktemp("locales")
    language, charset = request.param.split(".")
    run("localedef", "-i", language, "-f", charset, folder / request.param)
    found = {"LOCPATH": str(folder), "LC_ALL": request.param, "PYTHONUTF8": "0"}
    seen = run(sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())", env=os.environ | found)
    assert seen.stdout.strip() == _LOCALES[request.param]  # otherwise these tests would prove nothing
    return found


def _call(
    environment: Mapping[str, str], *command: str | Path | bytes, cwd: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(
        list(map(os.fsencode, command)),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=cwd,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b""), done
    return done


def _make(store: Path) -> Path:
    names = [name.encode() for name in _TEXTS] + _BYTES
    return make_model(store, "demo:v1", {name: b"content of " + name for name in names})


def _same(one: Path, other: Path) -> None:
    run("diff", "-r", one, other, env={"LC_ALL": "C", "PATH": os.environ["PATH"]})


def test_commands(locale: Mapping[str, str], tmp_path: Path) -> None:
    model = _make(tmp_path / "\u00f6" / "models")
    environment = {**locale, **home_of(tmp_path)}
    bentofs = (sys.executable, "-m", "bentofs.mount")
    begin = os.fsencode(tmp_path)
    told = b""
    for name in (b"\xc3\xb6\x9b\x8e.tar", b"\xf6.tar"):  # arguments may be any bytes
        there = b"%s/%s" % (begin, name)
        told = _call(
            environment, *bentofs, "export", "demo:v1", there, "--store", tmp_path / "\u00f6" / "models"
        ).stdout
        with tarfile.open(there) as archive:
            members = {member.name for member in archive if member.isfile()}
        assert members == {"model.yaml", *_TEXTS, *map(os.fsdecode, _BYTES)}
        (tmp_path / "other").mkdir()
        _call(environment, *bentofs, "import", there, "--store", tmp_path / "other")
        _same(model, tmp_path / "other" / "demo" / "v1")
        shutil.rmtree(tmp_path / "other")
    assert b"demo:v1 -> %s/\\udcf6.tar " % begin in told
    # This command line holds a secret, which the process hides.
    (tmp_path / "other").mkdir()
    hidden = (*bentofs, "import", b"%s/\xf6.tar" % begin, "--store", tmp_path / "other", "--param", "a=b")
    _call(environment, *hidden)


_LIBRARY = """
import json, os, sys
from bentofs import export_model, import_model
for call, arguments in json.loads(sys.stdin.read()):
    {"export": export_model, "import": import_model}[call](*arguments.pop("path"), **arguments)
"""


def _library(locale: Mapping[str, str], home: Path, *calls: tuple[str, Mapping[str, object]]) -> None:
    subprocess.run(
        [sys.executable, "-c", _LIBRARY],
        env={**os.environ, "PYTHONPATH": str(ROOT), **locale, **home_of(home)},
        input=json.dumps(calls).encode(),
        timeout=60,
        check=True,
    )


def test_library(locale: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library works in a process whose file names are not UTF-8. Unlike a command, it changes no setting."""
    store = tmp_path / "models"
    model = _make(store)
    for name, value in home_of(tmp_path / "here").items():
        monkeypatch.setenv(name, value)
    calls: list[tuple[str, Mapping[str, object]]] = []
    for number, kind in enumerate(_FORMATS):
        (tmp_path / f"store-{number}").mkdir()
        there = str(tmp_path / f"there.{kind}")
        calls.append(("export", {"path": ["demo:v1", there, kind], "store": str(store)}))
        calls.append(("import", {"path": [there, kind], "store": str(tmp_path / f"store-{number}")}))
    _library(locale, tmp_path / "there", *calls)
    for number, kind in enumerate(_FORMATS):
        export_model("demo:v1", str(tmp_path / f"here.{kind}"), kind, store=str(store))
        _same(tmp_path / f"here.{kind}", tmp_path / f"there.{kind}")
        _same(model, tmp_path / f"store-{number}" / "demo" / "v1")


@_one_is_enough
def test_library_and_a_store_in_a_bucket(locale: Mapping[str, str], seaweed: SeaweedServer, tmp_path: Path) -> None:
    bucket = Bucket(seaweed)
    model = make_model(tmp_path / "models", "demo:v1", dict.fromkeys(_TEXTS, b"x") | {"run": b"#!"}, executable=["run"])
    (model / "\u00f6").mkdir()
    environment = {**locale, **bucket.environment()}
    copy = f"{bucket.url}-copy"
    _library(
        environment,
        tmp_path,
        ("import", {"path": [str(model)], "store": bucket.url}),
        ("export", {"path": ["demo:v1", str(tmp_path / "back"), "folder"], "store": bucket.url}),
        ("export", {"path": ["demo:v1", f"{copy}/", "folder"], "store": bucket.url}),
    )
    assert {f"demo/v1/{name}" for name in _TEXTS} < set(bucket.paths())
    _same(model, tmp_path / "back")
    assert os.access(tmp_path / "back" / "run", os.X_OK)


@_one_is_enough
def test_mount(locale: Mapping[str, str], tmp_path: Path) -> None:
    store = tmp_path / "bentoml" / "models"
    model = _make(store)
    with Mounted(store, tmp_path / "a", environment=locale) as mounted:
        _same(model, mounted.path / "models" / "demo" / "v1" / "files")
        archive = mounted.archive("demo:v1", ".tar").read_bytes()
        shutil.rmtree(store / "demo")
        (mounted.path / "incoming" / "\u00f6.tar").write_bytes(archive)
        _same(model, store / "demo" / "v1")
    # Mount in the background. Each locale reads this path differently.
    place = tmp_path / "\u6a21"
    place.mkdir()
    environment = {**locale, **home_of(tmp_path)}
    _call(environment, sys.executable, "-m", "bentofs.mount", "mount", place)
    assert mountpoints(place) == [place]
    _same(model, place / "models" / "demo" / "v1" / "files")
    _call(environment, sys.executable, "-m", "bentofs.mount", "unmount", place)
    assert not mountpoints(place)


def test_a_terminal_gets_its_own_characters(locale: Mapping[str, str], tmp_path: Path) -> None:
    """A terminal gets text in its own encoding: UTF-8 bytes might be control characters to it. A file gets the bytes of
    the name."""
    _make(tmp_path / "bentoml" / "models")
    environment = {**os.environ, **locale, **home_of(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bentofs.mount", "export", "demo:v1", "\u00f6\u0416\u6a21.tar"]
    ours, theirs = pty.openpty()
    try:
        with ended(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=theirs, stderr=theirs)) as process:
            assert process.wait(60) == 0
        os.close(theirs)
        seen = b""
        while b" s)" not in seen:
            seen += os.read(ours, 1000)
    finally:
        os.close(ours)
    shown = "\u00f6\u0416\u6a21.tar".encode(_LOCALES[locale["LC_ALL"]], "backslashreplace")
    assert b"/" + shown in seen
    assert "/\u00f6\u0416\u6a21.tar".encode() in _call(environment, *command, cwd=tmp_path).stdout
