"""Every export of BentoML, and every pack of other programs, becomes the same model through incoming/. BentoML itself
is the judge, and may look at the store at any time."""

import functools
import itertools
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bentofs.store.formats.write.registry import DEFAULT_FORMATS
from tests.harness import Mounted, ended, make_model, run, wait_until
from tests.incoming import area_of, cp, imports, made, same, spooled, staged, tar_of
from tests.interop.conftest import JUDGES, Judge

EXPORTS = ("bentomodel", "xz", "gz", "bz2", "tar", "zip", "folder")
OURS = tuple(kind.name for kind in DEFAULT_FORMATS)

EXPORT = """
import os, sys, bentoml
target, *formats = sys.argv[1:]
for model in bentoml.models.list():
    for form in formats:
        os.makedirs(f"{target}/{form}", exist_ok=True)
        suffix = {"folder": "", "bentomodel": ".bentomodel", "tar": ".tar", "zip": ".zip"}.get(form, f".tar.{form}")
        path = f"{target}/{form}/{model.tag.name}-{model.tag.version}{suffix}"
        bentoml.models.export_model(model.tag, path, output_format=form)
"""
IMPORT_IN_TURN = """
import os, sys, bentoml
for item in sys.argv[1:]:
    name, path = item.split("=", 1)
    bentoml.models.import_model(path)
    with open(os.environ["BENTOML_HOME"] + "/models/" + name + "/latest") as latest:
        print(latest.read().strip())
"""
LIST_AND_LIST = """
import os, sys, bentoml
stop, most = sys.argv[1], 0
while not os.path.exists(stop):
    models = bentoml.models.list()
    assert all(model.info.labels is not None for model in models)
    most = max(most, len(models))
    with open(stop + ".seen", "w") as seen:
        seen.write(str(most))
"""


def script(judge: Judge, base: Path, text: str, *arguments: str | Path) -> str:
    """Run a script in a judge's environment, with its home below `base`. Return its output."""
    return judge.run(base, "script", text, *map(str, arguments))


def told_of(judge: Judge, base: Path, tags: list[str]) -> dict[str, dict[str, Any]]:
    """Return a judge's description of models, without the paths where they lie."""
    found = judge.describe(base, *tags)
    for told in found.values():
        del told["path"]
    return found


@functools.cache
def told_of_originals(judge: Judge, base: Path) -> dict[str, dict[str, Any]]:
    """Return a judge's description of the models under test in the home where they were made."""
    return told_of(judge, base, list(folders_of(base)))


def folders_of(base: Path) -> dict[str, Path]:
    """Return the models' folders in the store of a home, by tag."""
    store = base / "bentoml" / "models"
    return {f"{path.parent.name}:{path.name}": path for path in store.glob("*/*") if path.is_dir()}


@pytest.fixture(scope="module")
def exported(made_by_bentoml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each format, with the exports of the models by the release that made them."""
    release = next(release for release in JUDGES if release in made_by_bentoml.name)
    target = tmp_path_factory.mktemp("exported")
    script(Judge(release), made_by_bentoml, EXPORT, target, *EXPORTS)
    return target


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty store."""
    base = tmp_path_factory.mktemp("home")
    (base / "bentoml" / "models").mkdir(parents=True)
    return base


@pytest.fixture(scope="module")
def target(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount of the home's store."""
    with Mounted(home / "bentoml" / "models", tmp_path_factory.mktemp("target")) as mounted:
        yield mounted


@pytest.fixture
def emptied(home: Path) -> Path:
    """The home, without models."""
    for name in (home / "bentoml" / "models").iterdir():
        shutil.rmtree(name)
    return home


def bring_in_folder(mount: Mounted, folder: Path, name: str) -> None:
    run("cp", "-r", folder, mount.path / "incoming" / name)
    run("sync", mount.path / "incoming" / name)


@pytest.mark.parametrize("form", EXPORTS)
def test_what_bentoml_exports_comes_in(
    made_by_bentoml: Path, exported: Path, target: Mounted, emptied: Path, form: str
) -> None:
    items = list((exported / form).iterdir())
    assert len(items) == 3
    for item in items:
        if form == "folder":
            bring_in_folder(target, item, item.name)
        else:
            run("cp", item, target.path / "incoming")
    originals = folders_of(made_by_bentoml)
    brought = folders_of(emptied)
    assert brought.keys() == originals.keys()
    for tag, original in originals.items():
        same(original, brought[tag])
    assert os.listdir(target.path / "incoming") == []


@pytest.fixture(scope="module")
def source(made_by_bentoml: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    store = made_by_bentoml / "bentoml" / "models"
    with Mounted(store, tmp_path_factory.mktemp("source"), formats=",".join(OURS)) as mounted:
        yield mounted


@pytest.mark.parametrize("form", [*OURS, "folder"])
def test_round_trip(made_by_bentoml: Path, source: Mounted, target: Mounted, emptied: Path, form: str) -> None:
    """Nothing is lost from store A through the mount, cp, and incoming/ of store B. BentoML of both releases gets the
    same models."""
    originals = folders_of(made_by_bentoml)
    for tag in originals:
        name, version = tag.split(":")
        if form == "folder":
            bring_in_folder(target, source.path / "by-format" / "folder" / name / version, f"{name}-{version}")
        else:
            run("cp", source.path / "by-format" / form / name / f"{name}-{version}.{form}", target.path / "incoming")
    brought = folders_of(emptied)
    assert brought.keys() == originals.keys()
    for tag, original in originals.items():
        same(original, brought[tag])
        assert (brought[tag].parent / "latest").read_text() == (original.parent / "latest").read_text()
    assert {receipt["state"] for receipt in imports(target)[-3:]} == {"imported"}


@pytest.mark.parametrize("form", ["bentomodel", "zip", "folder"])
def test_bentoml_gets_the_same_models(
    made_by_bentoml: Path, source: Mounted, target: Mounted, emptied: Path, judge: Judge, form: str
) -> None:
    """`bentoml.models.get` gives the same labels, metadata, context, signatures, custom objects and creation times."""
    tags = list(folders_of(made_by_bentoml))
    for tag in tags:
        name, version = tag.split(":")
        if form == "folder":
            bring_in_folder(target, source.path / "models" / name / version / "files", f"{name}-{version}")
        else:
            run("cp", source.archive(tag, f".{form}"), target.path / "incoming")
    originals = told_of_originals(judge, made_by_bentoml)
    assert originals["rich:v1.0-rc.1"]["labels"]["owner"] == "Zoë"
    assert "vocabulary" in originals["rich:v1.0-rc.1"]["custom_objects"]
    assert told_of(judge, emptied, tags) == originals
    listed = json.loads(judge.cli(emptied, "models", "list", "-o", "json"))
    assert {entry["tag"] for entry in listed} == set(tags)


def test_latest_moves_as_bentomls_own_import_moves_it(
    target: Mounted, emptied: Path, judge: Judge, tmp_path: Path
) -> None:
    """`latest` is the same in every order in which an old, a young and the youngest model, and one of the same age, can
    come in."""
    times = {
        "zz-old": "2024-05-01T00:00:00+00:00",
        "young": "2025-05-01T00:00:00+00:00",
        "aa-new": "2026-05-01T00:00:00.000001+00:00",
        "twin": "2026-05-01T00:00:00.000001+00:00",
    }
    orders = [order for order in itertools.permutations(times) if order[0] != "young"][::2]
    names, items = [], []
    for number, order in enumerate(orders):
        for version in order:
            folder = made(tmp_path, f"m{number}:{version}", creation_time=times[version])
            items.append(tar_of(folder, tmp_path / f"m{number}-{version}.tar"))
            names.append(f"m{number}")
    by_us = []
    for name, item in zip(names, items, strict=True):
        run("cp", item, target.path / "incoming")
        by_us.append((emptied / "bentoml" / "models" / name / "latest").read_text())
    by_bentoml = script(judge, tmp_path, IMPORT_IN_TURN, *(f"{n}={i}" for n, i in zip(names, items, strict=True)))
    assert by_us == by_bentoml.split()
    assert len(set(by_us)) == 4


def test_a_model_from_the_future_does_not_become_latest(target: Mounted, emptied: Path, tmp_path: Path) -> None:
    for version, year in (("now", 2026), ("future", 2126)):
        folder = made(tmp_path, f"m:{version}", creation_time=f"{year}-01-01T00:00:00+00:00")
        run("cp", tar_of(folder, tmp_path / f"{version}.tar"), target.path / "incoming")
    assert (emptied / "bentoml" / "models" / "m" / "latest").read_text() == "now"


def test_bentoml_lists_models_while_imports_run(target: Mounted, emptied: Path, judge: Judge, tmp_path: Path) -> None:
    """BentoML never lists half a model, and never a folder that it does not know."""
    count = 30
    items = [
        tar_of(
            made(tmp_path, f"m{number % 7}:v{number}", {"w": os.urandom(200_000), "d/e": b"e"}),
            tmp_path / f"{number}.tar",
        )
        for number in range(count)
    ]
    stop = tmp_path / "stop"
    command = [judge.python, "-W", "ignore", "-c", LIST_AND_LIST, stop]
    with ended(
        subprocess.Popen(list(map(str, command)), env=judge._environment(emptied), stderr=subprocess.PIPE)
    ) as lister:
        seen = Path(f"{stop}.seen")

        def listed(at_least: int) -> bool:
            if lister.poll() is not None:
                assert lister.stderr is not None
                pytest.fail(f"`bentoml models list` failed: {lister.stderr.read().decode()[-3000:]}")
            return seen.exists() and int(seen.read_text() or 0) >= at_least

        wait_until(lambda: listed(0), 60, "the first list")
        for number, item in enumerate(items):
            run("cp", item, target.path / "incoming")
            if number % 5 == 4:  # so that they overlap, whatever the speed of both
                wait_until(functools.partial(listed, number - 4), 60, f"{number} models are listed")
        wait_until(lambda: listed(count), 60, "all are listed")
        stop.touch()
        assert lister.wait(60) == 0


# Packs of a model's folder by other programs.

Pack = Callable[[Path, Path], None]


def shell(command: str) -> Pack:
    """Pack by a shell's command line: $m is the model's folder, $n its name, $a the archive."""

    def pack(model: Path, archive: Path) -> None:
        variables = {"m": str(model), "n": model.name, "a": str(archive), "up": str(model.parent)}
        run("bash", "-ec", command, env={**os.environ, **variables, "LC_ALL": "C.UTF-8"})

    return pack


def python_zip(method: int) -> Pack:
    def pack(model: Path, archive: Path) -> None:
        with zipfile.ZipFile(archive, "w", method) as file:
            for path in sorted(model.rglob("*")):
                file.write(path, str(path.relative_to(model)))

    return pack


def python_tar(mode: str, form: int = tarfile.PAX_FORMAT) -> Pack:
    def pack(model: Path, archive: Path) -> None:
        with tarfile.open(str(archive), mode, format=form) as file:  # type: ignore[call-overload]
            file.add(model, "")

    return pack


def made_by_shutil(form: str) -> Pack:
    def pack(model: Path, archive: Path) -> None:
        os.rename(shutil.make_archive(f"{archive}.made", form, str(model)), archive)

    return pack


def zstd_tar(model: Path, archive: Path) -> None:
    plain = tar_of(model, archive.with_suffix(".plain"))
    archive.write_bytes(zstandard.compress(plain.read_bytes()))


PACKED: dict[str, tuple[str, Pack]] = {
    "gnu tar of .": ("m.tar", shell('tar cf "$a" -C "$m" .')),
    "gnu tar of . gz": ("m.tar.gz", shell('tar czf "$a" -C "$m" .')),
    "gnu tar of . xz": ("m.tar.xz", shell('tar cJf "$a" -C "$m" .')),
    "gnu tar of . bz2": ("m.tar.bz2", shell('tar cjf "$a" -C "$m" .')),
    "gnu tar of *": ("m.tar", shell('cd "$m" && tar cf "$a" *')),
    "gnu tar of * gz": ("m.tar.gz", shell('cd "$m" && tar czf "$a" *')),
    "gnu tar of one top folder": ("m.tar", shell('tar cf "$a" -C "$up" "$n"')),
    "gnu tar of ./top folder gz": ("m.tar.gz", shell('tar czf "$a" -C "$up" "./$n"')),
    "gnu tar, files only": ("m.tar", shell('cd "$m" && find . -type f -print0 | tar cf "$a" --null -T -')),
    "gnu tar, its own format": ("m.tar", shell('tar cf "$a" --format=gnu -C "$m" .')),
    "gnu tar, pax": ("m.tar", shell('tar cf "$a" --format=pax -C "$m" .')),
    "gnu tar, by blocks of 512": ("m.tar", shell('tar cf "$a" -b 1 -C "$m" .')),
    "gnu tar, appended to": (
        "m.tar",
        shell('tar cf "$a" -C "$m" model.yaml && tar rf "$a" -C "$m" --exclude=./model.yaml .'),
    ),
    "bsdtar pax": ("m.tar", shell('bsdtar cf "$a" --format pax -C "$m" .')),
    "bsdtar zip": ("m.zip", shell('bsdtar cf "$a" --format zip -C "$m" .')),
    "pigz": ("m.tar.gz", shell('tar c -C "$m" . | pigz -1 > "$a"')),
    "gzip members one after another": (
        "m.tar.gz",
        shell('tar c -C "$m" . > "$a.t"; { head -c 70000 "$a.t" | gzip; tail -c +70001 "$a.t" | gzip; } > "$a"'),
    ),
    "xz of many blocks": ("m.tar.xz", shell('tar c -C "$m" . | xz -0 --block-size=50000 > "$a"')),
    "xz streams one after another": (
        "m.tar.xz",
        shell('tar c -C "$m" . > "$a.t"; { head -c 70000 "$a.t" | xz; tail -c +70001 "$a.t" | xz; } > "$a"'),
    ),
    "xz with sha256": ("m.tar.xz", shell('tar c -C "$m" . | xz --check=sha256 > "$a"')),
    "zip -r": ("m.zip", shell('cd "$m" && zip -qr "$a" .')),
    "zip -r of one top folder": ("m.zip", shell('cd "$up" && zip -qr "$a" "$n"')),
    "zip -0": ("m.zip", shell('cd "$m" && zip -0qr "$a" .')),
    "zip through a pipe": ("m.zip", shell('cd "$m" && zip -qr - . | cat > "$a"')),
    "7z zip": ("m.zip", shell('cd "$m" && 7z a -tzip -bd -y "$a" . > /dev/null')),
    "python zip, stored": ("m.zip", python_zip(zipfile.ZIP_STORED)),
    "python zip, deflated": ("m.zip", python_zip(zipfile.ZIP_DEFLATED)),
    "python tar": ("m.tar", python_tar("w")),
    "python tar, gnu": ("m.tar", python_tar("w", tarfile.GNU_FORMAT)),
    "python tar.gz": ("m.tar.gz", python_tar("w:gz")),
    "python tar.gz stream": ("m.tar.gz", python_tar("w|gz")),
    "python tar.xz": ("m.tar.xz", python_tar("w:xz")),
    "python tar.bz2": ("m.tar.bz2", python_tar("w:bz2")),
    "shutil xztar": ("m.tar.xz", made_by_shutil("xztar")),
    "shutil zip": ("m.zip", made_by_shutil("zip")),
    "zstd": ("m.tar.zst", zstd_tar),
    # The magic bytes decide, not the name.
    ".tgz": ("m.tgz", shell('tar czf "$a" -C "$m" .')),
    ".txz": ("m.txz", shell('tar cJf "$a" -C "$m" .')),
    ".tbz2": ("m.tbz2", shell('tar cjf "$a" -C "$m" .')),
    "gzip in .bentomodel": ("m.bentomodel", shell('tar czf "$a" -C "$m" .')),
    "plain tar in .bentomodel": ("m.bentomodel", shell('tar cf "$a" -C "$m" .')),
    "zip in .bentomodel": ("m.bentomodel", python_zip(zipfile.ZIP_DEFLATED)),
    "xz in .zip": ("m.zip", shell('tar cJf "$a" -C "$m" .')),
    "zip in .tar.gz": ("m.tar.gz", python_zip(zipfile.ZIP_STORED)),
    "gzip without an extension": ("weights of the week", shell('tar czf "$a" -C "$m" .')),
    "xz without an extension": ("m-v1", shell('tar cJf "$a" -C "$m" .')),
    "zip with another extension": ("m.v1.bin", python_zip(zipfile.ZIP_DEFLATED)),
}


@pytest.mark.parametrize("packed", PACKED, ids=lambda key: key.replace(" ", "-"))
def test_what_others_pack_comes_in(target: Mounted, home: Path, tmp_path: Path, packed: str) -> None:
    name, pack = PACKED[packed]
    number = list(PACKED).index(packed)
    files: dict[str | bytes, bytes | int] = {
        "weights.bin": os.urandom(150_000),
        "text.txt": b"the same again and again\n" * 5000,
        "empty": b"",
        "nested/deeper/leaf": b"leaf",
        "Ünïcödé 模型": b"names",
        "d" * 120 + "/" + "e" * 120 + "/f": b"a long path",
    }
    model = made(tmp_path, f"packed:v{number}", files, executable=["nested/deeper/leaf"])
    archive = tmp_path / name
    pack(model, archive)
    run("cp", archive, target.path / "incoming")
    brought = home / "bentoml" / "models" / "packed" / f"v{number}"
    same(model, brought)
    assert target.shows(f"packed:v{number}")


def test_back_into_the_same_mount(store: Path, mounted: Callable[..., Mounted]) -> None:
    """An import into the mount that the file is read from succeeds and changes nothing. The daemon reads from itself
    while it stages, and never deadlocks."""
    tags = [f"m{number}:v{number}" for number in range(5)]
    for tag in tags:
        make_model(store, tag, {"w": os.urandom(1_500_000), "d/e": b"e"})
    mount = mounted(store)
    before = {path: path.stat().st_ino for path in store.rglob("*")}
    archives = [mount.archive(tag, f".{form}") for tag in tags for form in OURS]
    for archive in archives[: len(OURS)]:
        run("cp", archive, mount.path / "incoming")
    with ThreadPoolExecutor(len(archives)) as pool:
        copies = list(pool.map(lambda archive: cp(archive, mount.path / "incoming"), archives))
    assert {(copy.returncode, copy.stderr) for copy in copies} == {(0, "")}
    run("cp", *archives, mount.path / "incoming")
    assert {receipt["state"] for receipt in imports(mount)} == {"unchanged"}
    assert before == {path: path.stat().st_ino for path in store.rglob("*")}
    wait_until(lambda: staged(area_of(store)) == [], 10, "nothing is left in staging")
    assert spooled(area_of(store)) == []


def test_bento_gets_a_sentence_of_its_own(target: Mounted, tmp_path: Path) -> None:
    target.expect_log("service.bento was not imported: this is a Bento")
    (tmp_path / "bento").mkdir()
    (tmp_path / "bento" / "bento.yaml").write_text("service: service:svc\nname: service\nversion: v1\n")
    run("tar", "czf", tmp_path / "service.bento", "-C", tmp_path / "bento", ".")
    done = cp(tmp_path / "service.bento", target.path / "incoming")
    assert done.returncode == 1
    assert "Invalid argument" in done.stderr
    assert "bentoml import" in (target.path / "incoming" / "service.bento.error").read_text()
    run("rm", target.path / "incoming" / "service.bento")


@pytest.mark.usefixtures("target")
def test_the_store_is_clean_for_bentoml_at_the_end(home: Path, judge: Judge) -> None:
    judge.cli(home, "models", "list")
