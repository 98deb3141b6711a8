"""`bentofs://`: the file system of fsspec, on a store in a directory."""

import errno
import gc
import hashlib
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import pandas
import pytest
from fsspec.implementations.local import LocalFileSystem

import bentofs
from bentofs.store.filesystem import shared
from bentofs.store.filesystem.file_system import BentofsFileSystem
from bentofs.store.storage.base import Identity
from tests.harness import CREATION_TIME, Mounted, home_of, make_model, wait_until

WEIGHTS = bytes(range(256)) * 3000
TABLE = "x,y\n" + "".join(f"{number},{number * number}\n" for number in range(20_000))


_MISSING = (
    "nobody",
    "iris/v3",
    "iris/v2/x",
    "iris/v2/files/none",
    "iris/v2/files/weights.bin/x",
    "iris/v2/iris-v2.zip/x",
    "iris/latest.rar",
    "iris/latest.zip/x",
    "iris/../iris",
    "../models",
    "No Name",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, value in home_of(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    yield tmp_path / "home"
    BentofsFileSystem.clear_instance_cache()


@pytest.fixture
def model(store: Path) -> Path:
    make_model(store, "iris:v1", {"weights.bin": b"older"})
    make_model(store, "iris:v2", {"weights.bin": WEIGHTS, "sub/table.csv": TABLE.encode()}, latest=True)
    make_model(store, "empty:v1", {"nothing/": b""})
    return store / "iris" / "v2"


@pytest.fixture
def fs(store: Path, model: Path) -> BentofsFileSystem:
    assert model.is_dir()
    found: BentofsFileSystem = fsspec.filesystem("bentofs", store=str(store))
    return found


def test_the_names_sizes_and_bytes_of_a_mount(
    fs: BentofsFileSystem, store: Path, mounted: Callable[..., Mounted]
) -> None:
    models = mounted(store).path / "models"
    for folder, below, files in os.walk(models):
        path = os.path.relpath(folder, models).removeprefix(".")
        listed = fs.ls(path)
        names = {name for name in [*below, *files] if not os.path.islink(f"{folder}/{name}")}
        assert {info["name"].rpartition("/")[2] for info in listed} == names
        assert {info["name"] for info in listed if info["type"] == "directory"} == {
            f"{path}/{name}".lstrip("/") for name in below if name in names
        }
        for info in (info for info in listed if info["type"] == "file"):
            file = models / info["name"]
            assert (info["size"], info["mtime"]) == (file.stat().st_size, file.stat().st_mtime)
            assert info == fs.info(info["name"])
            assert fs.cat_file(info["name"]) == file.read_bytes()
    for link in ("latest", "latest.zip", "latest.bentomodel"):
        target = f"iris/{os.readlink(models / 'iris' / link)}"
        assert fs.info(f"iris/{link}")["type"] == fs.info(target)["type"]
        assert fs.find(f"iris/{link}") == [path.replace(target, f"iris/{link}", 1) for path in fs.find(target)]
    assert fs.cat("iris/latest.tar.gz") == fs.cat("iris/latest/iris-v2.tar.gz") == fs.cat("iris/v2/iris-v2.tar.gz")


def test_paths(fs: BentofsFileSystem) -> None:
    assert fs.ls("bentofs://iris/", detail=False) == ["iris/v1", "iris/v2"]
    assert fs.isfile("/iris//v2/files/weights.bin/")
    assert fs.isdir("bentofs://iris/latest/files/sub")
    assert fs.glob("iris/*/files/**/*.csv") == ["iris/v2/files/sub/table.csv"]
    assert fs.du("iris/v2/files/sub") == len(TABLE)
    assert fs.modified("iris/v2/iris-v2.zip") == datetime.fromisoformat(CREATION_TIME).replace(microsecond=0)
    for missing in _MISSING:
        assert not fs.exists(missing)
        assert not fs.isdir(missing)
        for look in (fs.info, fs.ls, fs.open, fs.cat_file, fs.modified):
            with pytest.raises(FileNotFoundError) as found:
                look(missing)
            assert found.value.errno == errno.ENOENT
            assert isinstance(found.value, bentofs.NotFoundError)
    for look in (fs.open, fs.cat_file, fs.modified):
        with pytest.raises(IsADirectoryError, match="iris/v2 is a directory"):
            look("iris/v2")


def test_looking_around_compresses_nothing(fs: BentofsFileSystem) -> None:
    sizes = {path: info["size"] for path, info in fs.find("iris/v2", detail=True).items()}
    assert sizes["iris/v2/iris-v2.zip"] is None
    assert sizes["iris/v2/iris-v2.tar"] > len(WEIGHTS)
    assert fs.exists("iris/v2/iris-v2.zip")
    assert fs.isfile("iris/v2/iris-v2.zip")
    assert fs.find("iris/v2", detail=True)["iris/v2/iris-v2.zip"]["size"] is None
    size = fs.size("iris/v2/iris-v2.zip")
    assert size == len(fs.cat_file("iris/v2/iris-v2.zip")) < len(WEIGHTS)
    assert fs.find("iris/v2", detail=True)["iris/v2/iris-v2.zip"]["size"] == size


def test_libraries_read_it(fs: BentofsFileSystem, store: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"store": str(store)}
    table = pandas.read_csv("bentofs://iris/latest/files/sub/table.csv", storage_options=options)
    assert table["y"].sum() == sum(number * number for number in range(20_000))
    with fsspec.open("bentofs://iris/latest/files/sub/table.csv", "rt", **options) as text:
        assert text.read() == TABLE
    with fs.open("iris/v2/iris-v2.zip") as archive, zipfile.ZipFile(archive) as zipped:
        assert zipped.read("weights.bin") == WEIGHTS
    cached = fsspec.open("simplecache::bentofs://iris/v2/iris-v2.bentomodel", bentofs=options)
    with cached as archive, tarfile.open(fileobj=archive) as tar:
        assert len(tar.getnames()) == 4
    fs.get("iris/v2", f"{tmp_path}/got/", recursive=True)
    assert (tmp_path / "got/v2/files/weights.bin").read_bytes() == WEIGHTS
    sums = (tmp_path / "got/v2/SHA256SUMS").read_text().splitlines()
    assert len(sums) == 4
    for digest, name in (line.split("  ") for line in sums):
        assert hashlib.sha256((tmp_path / "got/v2" / name).read_bytes()).hexdigest() == digest


def test_bentofs_imports_from_it(home: Path, tmp_path: Path) -> None:
    default = home / "bentoml/models"  # the store without store=
    make_model(default, "other:v1", {"weights.bin": WEIGHTS})
    assert "bentofs" in fsspec.available_protocols()
    assert bentofs.import_model("bentofs://other/v1/other-v1.tar", store=f"{tmp_path}/imported") == ("other", "v1")
    assert (tmp_path / "imported/other/v1/weights.bin").read_bytes() == WEIGHTS
    with pytest.raises(bentofs.StoreError, match="can only be read"):
        bentofs.export_model("other:v1", "bentofs://other/v1/other-v1.zip")


def test_ranges_and_seeks(fs: BentofsFileSystem) -> None:
    path = "iris/v2/files/weights.bin"
    for start, end in ((0, 10), (None, 5), (-7, None), (-20, -10), (700_000, 900_000), (900_000, None), (10, 3)):
        assert fs.cat_file(path, start, end) == WEIGHTS[start:end]
    assert fs.cat_ranges([path, path], [5, 600_000], [9, 600_010]) == [WEIGHTS[5:9], WEIGHTS[600_000:600_010]]
    assert fs.tail(path, 100) == WEIGHTS[-100:]
    assert fs.read_block(path, 100, 50) == WEIGHTS[100:150]
    for block_size in (None, 1, 1 << 20, "default"):
        with fs.open(path, block_size=block_size) as file:
            assert (file.size, file.seek(-1000, io.SEEK_END)) == (len(WEIGHTS), len(WEIGHTS) - 1000)
            assert file.read() == WEIGHTS[-1000:]
            file.seek(3)
            assert file.read(7) == WEIGHTS[3:10]


def _identities(model: Path) -> dict[Path, Identity]:
    return {path: Identity.of(path.stat()) for path in [model, *model.rglob("*")]}


def test_writes_are_refused(fs: BentofsFileSystem, tmp_path: Path, model: Path) -> None:
    (tmp_path / "local").write_bytes(b"local")
    path = "iris/v2/files/weights.bin"
    before = _identities(model)
    writes: list[Callable[[], object]] = [
        *(lambda mode=mode: fs.open(path, mode) for mode in ("wb", "ab", "xb", "r+b", "w", "xt")),
        lambda: fs.pipe("iris/v2/files/new", b"new"),
        lambda: fs.pipe_file(path, b"new", mode="create"),
        lambda: fs.put(f"{tmp_path}/local", path),
        lambda: fs.put_file(f"{tmp_path}/local", "iris/v2/files/new"),
        lambda: fs.put(str(tmp_path), "iris/v3", recursive=True),
        lambda: fs.write_text(path, "new"),
        lambda: fs.touch(path, truncate=False),
        lambda: fs.mkdir("iris/v3"),
        lambda: fs.makedirs("iris/v3", exist_ok=True),
        lambda: fs.rmdir("iris/v2"),
        lambda: fs.rm("iris/v2", recursive=True),
        lambda: fs.rm_file(path),
        lambda: fs.delete(path),
        lambda: fs.copy(path, "iris/v2/files/new"),
        lambda: fs.mv(path, "iris/v2/files/new"),
        lambda: pandas.DataFrame({"x": [1]}).to_csv(
            "bentofs://iris/v2/files/new", storage_options={"store": str(model.parent.parent)}
        ),
    ]
    for write in writes:
        with pytest.raises(OSError, match=r"can only be read: import a model with bentofs.import_model") as found:
            write()
        assert found.value.errno == errno.EROFS
        assert isinstance(found.value, bentofs.StoreError)
    assert before == _identities(model)


@pytest.mark.parametrize("path", ["iris/v2/files/weights.bin", "iris/v2/iris-v2.tar", "iris/v2/iris-v2.bentomodel"])
def test_a_replaced_model_ends_a_reader(fs: BentofsFileSystem, store: Path, model: Path, path: str) -> None:
    etag, before = fs.info(path)["etag"], fs.cat_file(path)
    with fs.open(path) as file:
        assert file.read(10_000) == before[:10_000]
        model.rename(store / "iris" / "gone")
        make_model(store, "iris:v2", {"weights.bin": b"other" * 153_600, "sub/table.csv": TABLE.encode()})
        after = wait_until(
            lambda: found if b"other" * 1000 in (found := fs.cat_file(path)) else b"", 10, "it is replaced"
        )
        assert len(after) == len(before)
        file.seek(200_000)
        try:
            assert file.read() == before[200_000:]
        except bentofs.SourceChangedError:
            pass
    wait_until(lambda: fs.info(path)["etag"] != etag, 10, "the etag has changed")


def test_a_file_edited_in_place_ends_a_reader(fs: BentofsFileSystem, model: Path) -> None:
    for path in ("iris/v2/files/weights.bin", "iris/v2/iris-v2.tar"):
        with fs.open(path) as file:
            file.read(10)
            with (model / "weights.bin").open("r+b") as weights:
                weights.write(b"edited")
            file.seek(300_000)
            with pytest.raises(bentofs.SourceChangedError):
                file.read()
            assert issubclass(bentofs.SourceChangedError, bentofs.StoreError)


def _shared(store: Path) -> int:
    return sum(choice.store == str(store) for choice, _ in shared._shared)


def _in_child(fs: BentofsFileSystem, results: Any) -> None:
    results.put(fs.cat_file("iris/v2/files/weights.bin", 0, 10) + fs.cat_file("iris/v2/iris-v2.zip", 0, 2))


def test_processes_and_threads(fs: BentofsFileSystem, store: Path) -> None:
    assert fs.cat_file("iris/v2/iris-v2.zip", 0, 2) == b"PK"
    for context in (multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")):  # as torch's DataLoader
        results = context.Queue()
        child = context.Process(target=_in_child, args=(fs, results))
        child.start()
        assert results.get(timeout=60) == WEIGHTS[:10] + b"PK"
        child.join(60)
        assert child.exitcode == 0
    assert pickle.loads(pickle.dumps(fs)).ls("iris") == fs.ls("iris")  # noqa: S301 - our own
    others: list[BentofsFileSystem] = []
    thread = threading.Thread(target=lambda: others.append(fsspec.filesystem("bentofs", store=str(store))))
    thread.start()
    thread.join()
    assert others[0] is not fs
    assert others[0].ls("") == fs.ls("")
    assert _shared(store) == 1


def test_a_library_is_closed_with_its_last_user(store: Path, model: Path) -> None:
    assert model.is_dir()
    fs = BentofsFileSystem(str(store), skip_instance_cache=True)
    file = fs.open("iris/v2/files/weights.bin")
    del fs
    gc.collect()
    assert _shared(store) == 1
    assert file.read() == WEIGHTS
    del file
    gc.collect()
    assert _shared(store) == 0


def test_options(store: Path, model: Path, tmp_path: Path) -> None:
    assert model.is_dir()
    fs = BentofsFileSystem(str(store), compression="never", formats=["zip", "tar.xz"])
    assert [path.rpartition("/")[2] for path in fs.ls("iris/v2", detail=False)] == [
        "SHA256SUMS", "files", "iris-v2.zip", "iris-v2.zip.sha256", "iris-v2.tar.xz", "iris-v2.tar.xz.sha256"
    ]  # fmt: skip
    assert fs.size("iris/v2/iris-v2.zip") > len(WEIGHTS)
    for wrong, sentence in (
        ({"store": str(store), "storage_options": {"endpoint_url": "http://x"}}, "need a store that is a URL"),
        ({"compression": "some"}, "is not a compression: choose one of"),
        ({"formats": ["rar"]}, "is not an archive format: choose one of"),
        ({"store": "nothing://there"}, "is not a known protocol"),
    ):
        with pytest.raises(bentofs.BadLocationError, match=sentence):
            BentofsFileSystem(**wrong)
    nowhere = BentofsFileSystem(f"{tmp_path}/nowhere")
    for look in (nowhere.ls, nowhere.exists, nowhere.isdir, nowhere.find, nowhere.cat_file, nowhere.open):
        with pytest.raises(bentofs.NotFoundError, match="there is no model store at"):
            look("iris/v2")


def test_importing_bentofs_loads_no_fsspec() -> None:
    code = (
        "import sys, bentofs.store.api; print([name for name in sys.modules if 'fsspec' in name or 'system' in name])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"


def test_a_local_copy_that_fails_says_so(fs: BentofsFileSystem, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="iris:v9 is not in the store"):
        fs.get("iris/v9/files/weights.bin", f"{tmp_path}/copy")
    assert not LocalFileSystem().exists(f"{tmp_path}/copy")
