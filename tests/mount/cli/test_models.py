"""`bentofs list` with its filters, and `bentofs get`."""

import datetime
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.mount.cli.filters import Filters
from bentofs.mount.cli.main import cli
from bentofs.mount.cli.yaml_values import as_json_values
from bentofs.store import api
from bentofs.store.errors import BadTagError, NotFoundError
from bentofs.store.model import safe_yaml
from tests.harness import Mounted, home_of, make_model
from tests.waiting import wait_until_settled

Run = Callable[..., str]


@pytest.fixture
def run(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, on a store with three models. Return its standard output."""
    for name, value in home_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    make_model(store, "iris:v1", {"w": b"x" * 1000}, labels={"team": "a", "stage": "prod"})
    make_model(store, "iris:v2", {"w": b"y"}, labels={"team": "b"}, creation_time="2026-03-01T00:00:00+01:00")
    lily = make_model(store, "lily:v1", {"w": b"z"}, labels={"team": "a"}, creation_time="2020-01-01T00:00:00+00:00")
    text = (lily / "model.yaml").read_text().replace("module: ''", "module: bentoml.sklearn")
    (lily / "model.yaml").write_text(text)

    def run(*arguments: str) -> str:
        cli.main(list(arguments), standalone_mode=False)
        return capsys.readouterr().out

    return run


def tags(run: Run, *arguments: str) -> list[str]:
    return [model["tag"] for model in json.loads(run("list", "--json", *arguments))]


def test_list_of_one_name(run: Run) -> None:
    assert tags(run, "iris") == ["iris:v1", "iris:v2"]
    assert tags(run, "IRIS") == ["iris:v1", "iris:v2"]
    assert tags(run, "iris:v1") == ["iris:v1"]
    assert tags(run, "iris:latest") == ["iris:v2"]
    assert [line.split()[0] for line in run("list", "lily").splitlines()] == ["Tag", "lily:v1"]
    for name, error in (("rose", NotFoundError), ("iris:v9", NotFoundError), ("no name", BadTagError)):
        with pytest.raises(error):
            run("list", name)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--label", "team=a"], ["iris:v1", "lily:v1"]),
        (["--label", "team=a", "--label", "stage=prod"], ["iris:v1"]),
        (["--label", "stage"], ["iris:v1"]),
        (["--label", "team="], []),
        (["--label", "team=a=b"], []),
        (["--module", "sklearn"], ["lily:v1"]),
        (["--module", "bentoml.sklearn"], ["lily:v1"]),
        (["--module", "learn"], []),
        (["--newer", "2026-01-31"], ["iris:v2"]),
        (["--newer", "2026-02-28 23:00:00"], []),  # UTC; iris:v2 is not newer than itself
        (["--newer", "2026-02-28T23:59:59+01:00"], ["iris:v2"]),
        (["--newer", "5200w"], ["iris:v1", "iris:v2", "lily:v1"]),
        (["--newer", "1s"], []),
    ],
    ids=" ".join,
)
def test_filters(run: Run, options: list[str], expected: list[str]) -> None:
    assert tags(run, *options) == expected


def test_an_age_counts_from_now(run: Run, store: Path) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    for name, days in (("young", 1), ("old", 9)):
        make_model(store, f"{name}:v1", {}, creation_time=(now - datetime.timedelta(days=days)).isoformat())
    assert tags(run, "--newer", "7d", "young") == ["young:v1"]
    assert tags(run, "--newer", "7d", "old") == []
    assert Filters().newer is None


def test_get_tells_all(run: Run, store: Path) -> None:
    said = json.loads(run("get", "iris:v1", "--json"))
    assert (said["latest"], said["labels"]["stage"], said["mounted"]) == (False, "prod", [])
    assert Path(said["path"]) == store / "iris/v1"
    assert said["model_yaml"]["name"] == "iris"
    assert {archive["format"]: archive["sha256"] for archive in said["archives"]} == dict.fromkeys(
        ("bentomodel", "tar", "tar.gz", "zip")
    )
    sizes = {archive["format"]: archive["size"] for archive in said["archives"]}
    assert sizes["tar.gz"] is None  # nothing is measured for `get`
    wait_until_settled(store)  # of younger files nothing is kept
    run("measure", "iris:v1")
    measured = {
        archive["format"]: archive["size"] for archive in json.loads(run("get", "iris:v1", "--json"))["archives"]
    }
    with api.Store() as library:
        assert measured == {name: library.open("iris:v1", name).seek(0, 2) for name in measured}
    assert measured["tar"] == sizes["tar"]
    text = run("get", "iris")
    assert "iris:v2 (latest)" in text
    assert "model.yaml:\n  " in text
    assert "not computed yet" in text


def test_get_shows_no_control_characters(run: Run, store: Path) -> None:
    folder = make_model(store, "odd:v1", {}, labels={"a": "x\x1b[31m"})
    with (folder / "model.yaml").open("a") as file:
        file.write("metadata: {x: 'y\u202e'}\n")
    text = run("get", "odd")
    assert "\x1b" not in text
    assert "\u202e" not in text  # it turns the direction of writing
    assert "\\u202e" in text


def test_get_names_the_mount(run: Run, store: Path, mounted: Callable[..., Mounted]) -> None:
    mount = mounted(store)
    (shown,) = json.loads(run("get", "iris:v1", "--json"))["mounted"]
    assert shown == str(mount.path / "models/iris/v1")
    archive = Path(shown) / "iris-v1.zip"
    assert zipfile.is_zipfile(archive)
    assert mount.path.joinpath("models/iris/v1/iris-v1.zip.sha256").read_text()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: .nan, b: -.inf, c: 1.5}", {"a": "nan", "b": "-inf", "c": 1.5}),
        ("{1: 2026-01-02, no: 2026-01-02T03:04:05Z}", {"1": "2026-01-02", "False": "2026-01-02T03:04:05+00:00"}),
        ("!!binary aGk=", "aGk="),
        ("[!!set {b}, ~]", [["b"], None]),
        ("0x" + "f" * 5000, "0x" + "f" * 5000),  # Python refuses to print its decimal digits
        ("[&a {b: 1}, *a]", [{"b": 1}, {"b": 1}]),
    ],
)
def test_yaml_in_json(text: str, value: object) -> None:
    assert as_json_values(safe_yaml.load_whole(text.encode())) == value


def test_a_model_yaml_of_too_many_values_is_null(run: Run, store: Path) -> None:
    folder = make_model(store, "large:v1", {})
    with (folder / "model.yaml").open("a") as file:
        file.write(f"metadata: [{'1, ' * 60_000}]\n")
    assert json.loads(run("get", "large", "--json"))["model_yaml"] is None
