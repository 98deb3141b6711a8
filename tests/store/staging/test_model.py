"""Staging a model: its place, the known facts of its files, and nothing left when it fails."""

import errno
import gc
import hashlib
import os
import random
import stat
import subprocess
import sys
import threading
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentofs.store.errors import (
    BadModelError,
    DamagedArchiveError,
    ModelExistsError,
    NoSpaceError,
    NotAModelError,
    StoreUnwritableError,
    TooBigError,
    UnsafeMemberError,
)
from bentofs.store.model.model import ModelInfo
from bentofs.store.staging.file import KnownFiles, StagedFile
from bentofs.store.staging.limits import Limits
from bentofs.store.staging.model import Staged, StagedModel
from bentofs.store.storage.base import Identity
from tests.harness import ROOT, ended, mountpoints, unmount_lazily, wait_until
from tests.store.formats.unpacking import MODEL_YAML, look

_CONTENT = random.Random(7).randbytes(3_000_000)


@pytest.fixture
def model(tmp_path: Path) -> Iterator[StagedModel]:
    model = StagedModel(str(tmp_path / "staged"))
    yield model
    model.discard()
    assert not (tmp_path / "staged").exists()


def _write(model: StagedModel, path: str, content: bytes = b"", *, executable: bool = False) -> None:
    with model.file(path, executable) as file:
        for at in range(0, len(content), 100_000):
            file.write(content[at : at + 100_000])


def test_memory_is_freed_without_collecting_garbage(tmp_path: Path) -> None:
    """A daemon collects it seldom."""
    gc.disable()
    try:
        model = StagedModel(str(tmp_path / "freed"))
        model.archive_read = lambda: 10
        _write(model, "model.yaml", MODEL_YAML)
        _write(model, "large", bytes(3 << 20))
        model.finish()
        model.discard()
        freed = weakref.ref(model)
        del model
        assert freed() is None
    finally:
        gc.enable()


def test_what_is_known_of_the_files(model: StagedModel, tmp_path: Path) -> None:
    _write(model, "model.yaml", MODEL_YAML)
    _write(model, "large", _CONTENT)
    _write(model, "a/b/small", b"small")
    _write(model, "empty")
    with (tmp_path / "source").open("w+b") as source:
        source.write(b"before" + _CONTENT)
        source.flush()
        with model.file("copied") as file:
            file.write(b"first")
            file.copy_range(source.fileno(), 6, len(_CONTENT))
            file.write(b"last")
        staged = model.finish()
    expected = {
        "model.yaml": MODEL_YAML,
        "large": _CONTENT,
        "a/b/small": b"small",
        "empty": b"",
        "copied": b"first" + _CONTENT + b"last",
    }
    assert {path: found for path, (found, _) in look(staged.path).items() if found is not None} == expected
    assert staged.files.keys() == expected.keys()
    for path, content in expected.items():
        found = staged.files[path]
        assert (found.size, found.sha256, found.crc32) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
            zlib.crc32(content),
        )
        _has_identity(staged, path)
    assert staged.info == ModelInfo.learn(MODEL_YAML)


def _has_identity(staged: Staged, path: str) -> None:
    now = os.stat(os.path.join(staged.path, path))
    assert staged.files[path].identity == (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


def test_identities_after_a_late_change_of_mode(model: StagedModel) -> None:
    _write(model, "model.yaml", MODEL_YAML)
    for name, size in (("small", 10), ("large", 1_000_000)):
        _write(model, name, bytes(size))
        assert model.make_executable(name)
    assert not model.make_executable("absent")
    assert not model.make_executable("small/below")
    staged = model.finish()
    for name in ("small", "large"):
        assert os.stat(f"{staged.path}/{name}").st_mode & 0o777 == 0o755
        _has_identity(staged, name)


@pytest.mark.parametrize(("umask", "file", "program", "folder"), [
    (0o022, 0o644, 0o755, 0o755), (0o077, 0o600, 0o700, 0o700), (0o002, 0o664, 0o775, 0o775),
    (0o777, 0o600, 0o600, 0o700),
])  # fmt: skip
def test_modes(tmp_path: Path, umask: int, file: int, program: int, folder: int) -> None:
    """Modes follow the given umask. The owner can always read the model."""
    model = StagedModel(str(tmp_path / "staged"), umask=umask)
    _write(model, "top/model.yaml", MODEL_YAML)
    _write(model, "top/program", executable=True)
    model.folder("top/folder")
    path = Path(model.finish().path)
    modes = [stat.S_IMODE((path / name).stat().st_mode) for name in ("model.yaml", "program", "folder", ".")]
    assert modes == [file, program, folder, folder]
    model.discard()


def test_one_top_folder_is_the_model(model: StagedModel, tmp_path: Path) -> None:
    _write(model, "./top/data/x", b"x")
    _write(model, "top//model.yaml", MODEL_YAML)
    staged = model.finish()
    assert staged.path == str(tmp_path / "staged" / "top")
    assert staged.files.keys() == {"data/x", "model.yaml"}


@pytest.mark.parametrize("beside", ["__MACOSX/top/._model.yaml", "._top", "._.DS_Store"])
def test_what_a_mac_packs_beside_the_top_folder_does_not_count(model: StagedModel, tmp_path: Path, beside: str) -> None:
    _write(model, beside, b"\0\5\26\7")
    _write(model, "top/model.yaml", MODEL_YAML)
    assert model.finish().path == str(tmp_path / "staged" / "top")


@pytest.mark.parametrize("paths", [
    ["top/model.yaml", "beside"], ["top/model.yaml", "beside/model.yaml"], ["top/below/model.yaml"], ["Model.yaml"], [],
])  # fmt: skip
def test_no_model(model: StagedModel, paths: list[str]) -> None:
    for path in paths:
        _write(model, path, MODEL_YAML)
    with pytest.raises(NotAModelError, match=r"model\.yaml must lie"):
        model.finish()


def test_the_tag_is_known_as_soon_as_model_yaml_is_there(tmp_path: Path) -> None:
    seen: list[tuple[str, bytes]] = []

    def check(info: ModelInfo, content: bytes) -> None:
        seen.append((str(info.tag), content))
        raise ModelExistsError("iris:v1 is there")

    model = StagedModel(str(tmp_path / "one"), on_model_yaml=check)
    _write(model, "nested/model.yaml", b"of another model, or none")
    with pytest.raises(ModelExistsError):
        _write(model, "model.yaml", MODEL_YAML)
    assert seen == [("iris:v1", MODEL_YAML)]
    model.discard()

    model = StagedModel(str(tmp_path / "two"), on_model_yaml=check)
    _write(model, "top/model.yaml", MODEL_YAML)
    with pytest.raises(ModelExistsError):
        model.finish()
    model.discard()
    assert len(seen) == 2
    assert os.listdir(tmp_path) == []


def test_model_yaml_that_is_a_link(model: StagedModel) -> None:
    """`model.yaml` may be a link, like in a cache of blobs."""
    model.symlink("model.yaml", "blobs/1234")
    _write(model, "blobs/1234", MODEL_YAML)
    staged = model.finish()
    assert str(staged.info.tag) == "iris:v1"
    assert staged.files["model.yaml"].crc32 == zlib.crc32(MODEL_YAML)
    _has_identity(staged, "model.yaml")


def test_links_to_what_comes_later(model: StagedModel) -> None:
    model.symlink("early", "later/file")
    model.hard_link("hard", "later/file")
    model.symlink("whole", "later")
    model.symlink("later/back", "../model.yaml")
    _write(model, "later/file", b"content", executable=True)
    _write(model, "model.yaml", MODEL_YAML)
    staged = model.finish()
    tree = look(staged.path)
    for path in ("early", "hard", "whole/file", "later/file"):
        assert tree[path] == (b"content", True)
    assert tree["later/back"] == tree["whole/back"] == (MODEL_YAML, False)
    for path in staged.files:
        _has_identity(staged, path)


def test_copies_count(tmp_path: Path) -> None:
    for limits in (Limits(expanded=3000), Limits(members=3)):
        model = StagedModel(str(tmp_path / "staged"), limits)
        _write(model, "model.yaml", MODEL_YAML)
        _write(model, "file", bytes(2000))
        model.hard_link("second", "file")
        with pytest.raises(TooBigError):
            model.finish()
        model.discard()


def test_a_checksum_that_is_wrong(model: StagedModel) -> None:
    with pytest.raises(DamagedArchiveError, match="'small'"), model.file("small") as file:  # noqa: PT012
        file.write(b"content")
        file.expected_crc32 = 1
    with model.file("large") as file:
        file.write(_CONTENT)
        file.expected_crc32 = 1
    with pytest.raises(DamagedArchiveError, match="'large'"):  # noqa: PT012 - by the next call that can tell
        _write(model, "model.yaml", MODEL_YAML)
        model.finish()


def test_restart_forgets_everything(model: StagedModel) -> None:
    _write(model, "model.yaml", b"name: other\nversion: v2\ncreation_time: 2020-01-01T00:00:00Z\n")
    _write(model, "large", _CONTENT)
    model.symlink("link", "/etc/passwd")
    model.restart()
    _write(model, "model.yaml", MODEL_YAML)
    staged = model.finish()
    assert os.listdir(staged.path) == ["model.yaml"]
    assert (str(staged.info.tag), set(staged.files)) == ("iris:v1", {"model.yaml"})


def test_discard_half_way_and_twice(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    before = set(threading.enumerate())
    model = StagedModel(str(tmp_path / "staged"))
    _write(model, "a/b/c", _CONTENT)
    file = model.file("unfinished")
    file.__enter__()
    file.write(_CONTENT)
    file.__exit__(RuntimeError, RuntimeError(), None)
    # A foreign link in the staging directory is removed, not followed.
    (tmp_path / "staged" / "a" / "link").symlink_to(outside)
    model.discard()
    model.discard()
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(outside) == ["kept"]
    assert set(threading.enumerate()) <= before  # threads of earlier tests may end meanwhile


def test_descriptors_are_closed(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for ending in ("finish", "discard", "fail"):
        model = StagedModel(str(tmp_path / ending))
        _write(model, "model.yaml", MODEL_YAML)
        for number in range(300):
            _write(model, f"{number % 7}/{number}/file", bytes(number))
        if ending == "finish":
            model.finish()
        elif ending == "fail":
            with pytest.raises(UnsafeMemberError):
                _write(model, "0/0/file/below")
        model.discard()
    assert set(os.listdir("/proc/self/fd")) <= before  # descriptors of earlier tests may be closed meanwhile


def test_files_of_a_large_model_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentofs.store.staging.file._MEMORY", 50 * 700)
    for count in (40, 60):
        model = StagedModel(str(tmp_path / "staged"))
        _write(model, "model.yaml", MODEL_YAML)
        for number in range(count):
            _write(model, str(number), bytes(70_000 if number % 10 else 10))
        assert len(model.finish().files) == (41 if count == 40 else 0)
        model.discard()


def test_what_is_known_of_files_is_bounded_in_bytes() -> None:
    """Facts of ten thousand files with ordinary names are kept. The longer the names, the fewer."""
    file = StagedFile(1, "0" * 64, 1, Identity.of(os.stat("/")))
    for length, count, kept in ((40, 10_000, 10_000), (3000, 2_000, 2_000), (3000, 10_000, 0)):
        known = KnownFiles()
        for number in range(count):
            known[f"{number:05}".ljust(length, "n")] = file
        assert len(known.below("")) == kept


def test_the_folder_must_be_new(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreUnwritableError):
        StagedModel(str(tmp_path / "there"))


def test_model_yaml_too_large_is_refused_while_it_is_written(model: StagedModel) -> None:
    with pytest.raises(BadModelError, match="larger than"), model.file("model.yaml") as file:  # noqa: PT012
        for _ in range(20):
            file.write(bytes(1 << 20))
    assert os.path.getsize(Path(model._path) / "model.yaml") <= 16 << 20


def test_fsync_of_everything(tmp_path: Path) -> None:
    """strace shows an fsync of each file and directory, or a syncfs of the file system after them."""
    code = (
        "import sys; from bentofs.store.staging.model import StagedModel; m = StagedModel(sys.argv[1])\n"
        "def write(path, content):\n    with m.file(path) as f: f.write(content)\n"
        f"write('model.yaml', {MODEL_YAML!r})\n"
        "for n in range(int(sys.argv[2])): write(f'folder/{n}', b'x' * (n % 3))\n"
        "write('folder/large', bytes(2 << 20))\nm.finish()\n"
    )
    for count in (5, 1000):
        log, staged = tmp_path / "log", tmp_path / f"staged-{count}"
        strace = ["strace", "-f", "-y", "-e", "trace=fsync,syncfs", "-o", log]
        subprocess.run([*map(str, strace), sys.executable, "-c", code, str(staged), str(count)], check=True, timeout=60)
        calls = log.read_text()
        synced = {path for path in (staged, *staged.rglob("*")) if f"fsync({_fd(calls, path)}" in calls}
        if "syncfs(" in calls:
            assert count == 1000
            assert calls.rindex("syncfs(") > calls.rindex("fsync(")
        else:
            assert synced == {staged, *staged.rglob("*")}
        assert staged / "folder" / "large" in synced


def _fd(calls: str, path: Path) -> str:
    """Return strace's text for a descriptor of a path."""
    at = calls.find(f"<{path}>")
    start = calls.rfind("(", 0, at)
    return calls[start + 1 : at] + f"<{path}>" if at >= 0 else "none"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 2 MiB and 64 files. It needs root, like every mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=64", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    with (tmp_path / "source").open("w+b") as source:
        source.truncate(3 << 20)

        def fill(model: StagedModel, way: str) -> None:
            if way == "copy":
                with model.file("large") as file:
                    file.copy_range(source.fileno(), 0, 3 << 20)
            elif way == "write":
                _write(model, "large", _CONTENT)
            for number in range(100):
                _make(model, f"{number}/" if way == "folders" else str(number))

        for way in ("write", "copy", "many", "folders"):
            model = StagedModel(str(small_disk / "staged"))
            with pytest.raises(NoSpaceError):
                fill(model, way)
            model.discard()
            assert os.listdir(small_disk) == []


def test_an_fsync_that_fails(model: StagedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is not durable must not be reported as durable."""
    real = os.fsync

    def fail(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == 1234:
            raise OSError(errno.EIO, "lost")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    _write(model, "model.yaml", MODEL_YAML)
    with pytest.raises(StoreUnwritableError):  # noqa: PT012 - by the next call that can tell
        _write(model, "lost", bytes(1234))
        model.finish()


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """A file system on which `a` and `A` are one name, and about which nothing else is known."""
    mountpoint = tmp_path / "folding"
    for folder in (mountpoint, tmp_path / "behind"):
        folder.mkdir()
    with ended(subprocess.Popen([sys.executable, "-m", "tests.folding", tmp_path / "behind", mountpoint], cwd=ROOT)):
        wait_until(lambda: mountpoints(mountpoint), 20, "the folding file system is mounted")
        yield mountpoint
        unmount_lazily(mountpoint)


def test_names_that_a_file_system_folds(folding: Path) -> None:
    for paths in (
        ["file", "FILE"],
        ["folder/a", "FOLDER/b"],
        ["x", "X/y"],
        ["caf\u00e9/a", "cafe\u0301/b"],
        ["a/", "A/"],
    ):
        model = StagedModel(str(folding / "staged"))
        _make(model, paths[0])
        with pytest.raises(UnsafeMemberError, match=r"file system|a file in the place"):
            _make(model, paths[1])
        model.discard()
    assert os.listdir(folding) == []


def _make(model: StagedModel, path: str) -> None:
    if path.endswith("/"):
        model.folder(path)
    else:
        _write(model, path)


def test_a_file_system_of_which_nothing_is_known(folding: Path, tmp_path: Path) -> None:
    """On an unknown file system, syncfs is not trusted, and no blocks can be shared."""
    model = StagedModel(str(folding / "staged"))
    _write(model, "model.yaml", MODEL_YAML)
    for number in range(300):
        _write(model, f"{number % 3}/{number}", bytes(number))
    with (tmp_path / "source").open("w+b") as source:
        source.write(_CONTENT)
        source.flush()
        with model.file("copied") as file:
            file.copy_range(source.fileno(), 0, len(_CONTENT))
        staged = model.finish()
    tree = look(staged.path)
    assert tree["copied"] == (_CONTENT, False)
    assert {path for path, (content, _) in tree.items() if content is not None} == staged.files.keys()
    model.discard()
