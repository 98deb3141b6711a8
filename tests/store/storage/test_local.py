"""A store in a directory: its listings and statuses, and bytes only of the pinned file."""

import contextlib
import gc
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentofs.store.errors import (
    BadModelError,
    NotFoundError,
    SourceChangedError,
    StoreUnreadableError,
    UnsafeMemberError,
)
from bentofs.store.storage.base import Kind
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.local_file import LocalFile
from bentofs.store.util.display import printable
from tests.store.users import an_ordinary_user, folder_of_an_ordinary_user


@pytest.fixture
def model(store: Path) -> Path:
    folder = store / "iris" / "v1"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_bytes(b"yaml")
    return folder


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    # Fewer may be open: those of an earlier test, which a thread of that test closes late.
    assert len(os.listdir("/proc/self/fd")) <= before, "a descriptor was left open"


def _open(store: Path, path: str = "iris/v1/weights") -> LocalFile:
    storage = LocalStorage(str(store))
    return storage.open_file(path, storage.status(path).identity)


def _read(file: LocalFile, size: int, offset: int = 0) -> bytes:
    buffer = bytearray(b"\xee" * size)
    file.read_into([memoryview(buffer)], offset)
    return bytes(buffer)


@contextlib.contextmanager
def _special(path: Path, kind: str) -> Iterator[None]:
    """Make something that is not a regular file, for the length of a block."""
    if kind == "socket":
        bound = socket.socket(socket.AF_UNIX)
        with bound, _inside(path.parent):
            bound.bind(path.name)  # sockets' paths are short
            yield
        return
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    yield


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class TestLooking:
    def test_kinds(self, store: Path, model: Path) -> None:
        (model / "folder").mkdir()
        (model / "link").symlink_to("model.yaml")
        (model / "dangling").symlink_to("nowhere")
        (model / "to-folder").symlink_to("folder")
        os.mkfifo(model / "fifo")
        strict, following = LocalStorage(str(store)), LocalStorage(str(store), follow_links=True)
        assert dict(strict.list_folder("iris/v1")) == {
            "model.yaml": Kind.FILE,
            "folder": Kind.FOLDER,
            "link": Kind.LINK,
            "dangling": Kind.LINK,
            "to-folder": Kind.LINK,
            "fifo": Kind.SPECIAL,
        }
        followed = dict(following.list_folder("iris/v1"))
        assert (followed["link"], followed["to-folder"], followed["dangling"]) == (Kind.FILE, Kind.FOLDER, Kind.LINK)
        assert strict.status("iris/v1/link").kind is Kind.LINK
        assert following.status("iris/v1/link").kind is Kind.FILE
        assert strict.status("iris/v1/fifo").kind is Kind.SPECIAL
        assert strict.status("").kind is Kind.FOLDER

    @pytest.mark.parametrize("path", ["nothing", "iris/v2", "iris/v1/model.yaml/below", "iris/v1/missing"])
    def test_what_is_not_there(self, store: Path, model: Path, path: str) -> None:
        storage = LocalStorage(str(store))
        for look in (storage.list_folder, storage.status, storage.walk, lambda path: storage.read_small(path, 10)):
            with pytest.raises(NotFoundError):
                look(path)
        assert model.exists()

    def test_a_store_that_is_not_there_is_no_empty_store(self, tmp_path: Path) -> None:
        storage = LocalStorage(str(tmp_path / "missing"))
        for look in (lambda: storage.list_folder(""), lambda: storage.status(""), storage.usage):
            with pytest.raises(StoreUnreadableError, match="missing"):
                look()

    def test_nothing_is_missing_from_a_store_that_is_not_there(self, store: Path, model: Path) -> None:
        """Programs that mirror a mount take missing files for deleted."""
        storage = LocalStorage(str(store))
        weights = next(entry for entry in storage.walk("iris/v1")[0] if entry.identity)
        assert weights.identity is not None
        file = weights.source, weights.identity
        store.rename(store.parent / "old")
        assert not model.exists()
        for look in (storage.list_folder, storage.status, storage.walk, lambda path: storage.read_small(path, 10)):
            with pytest.raises(StoreUnreadableError, match="models/ cannot be read: No such file"):
                look("iris/v1")
        with pytest.raises(StoreUnreadableError):
            storage.open_file(*file)

    def test_a_store_deleted_and_made_again_is_seen(self, store: Path, model: Path) -> None:
        storage = LocalStorage(str(store))
        assert [name for name, _ in storage.list_folder("")] == ["iris"]
        store.rename(store.parent / "old")
        with pytest.raises(StoreUnreadableError):
            storage.list_folder("")
        (store / "new").mkdir(parents=True)
        assert [name for name, _ in storage.list_folder("")] == ["new"]
        assert not model.exists()

    def test_names_that_are_not_utf8(self, store: Path, model: Path) -> None:
        raw = b"caf\xe9 \xff\xfe"
        os.mkdir(os.path.join(os.fsencode(model), raw))
        with open(os.path.join(os.fsencode(model), raw, raw), "wb") as file:
            file.write(b"bytes")
        entries, _ = LocalStorage(str(store)).walk("iris/v1")
        found = {os.fsencode(entry.path): entry for entry in entries}
        assert found.keys() == {b"model.yaml", raw, raw + b"/" + raw}
        assert _read(_open(store, found[raw + b"/" + raw].source), 5) == b"bytes"

    def test_the_newest_change_is_told(self, store: Path, model: Path) -> None:
        storage = LocalStorage(str(store))
        (model / "a" / "b").mkdir(parents=True)
        (model / "a" / "b" / "c").write_bytes(b"c")
        os.utime(model / "a" / "b" / "c", (1, 1))
        newest = max(path.lstat().st_ctime_ns for path in [model, *model.rglob("*")])
        assert storage.walk("iris/v1")[1] == newest

    def test_usage_is_that_of_the_file_system(self, store: Path) -> None:
        usage, figures = LocalStorage(str(store)).usage(), os.statvfs(store)
        assert (usage.block_size, usage.fragment_size, usage.blocks) == (
            figures.f_bsize,
            figures.f_frsize,
            figures.f_blocks,
        )
        assert (usage.files, usage.name_max) == (figures.f_files, figures.f_namemax)
        assert 0 < usage.blocks_available <= usage.blocks_free < usage.blocks

    def test_what_a_user_sees_of_a_name(self) -> None:
        assert printable("a\x1b[31m\nb\udcff модель") == "a\\x1b[31m\\nb\\udcff модель"

    @pytest.mark.parametrize("kind", ["fifo", "socket"])
    def test_a_model_that_holds_something_special_is_refused(self, store: Path, model: Path, kind: str) -> None:
        with _special(model / "special-one", kind), pytest.raises(UnsafeMemberError, match="special-one"):
            LocalStorage(str(store)).walk("iris/v1")

    def test_a_folder_that_may_not_be_read(self) -> None:
        with folder_of_an_ordinary_user() as store, an_ordinary_user():
            (store / "iris" / "v1" / "closed").mkdir(parents=True)
            (store / "iris" / "v1" / "closed").chmod(0)
            storage = LocalStorage(str(store))
            with pytest.raises(StoreUnreadableError, match="iris/v1"):
                storage.walk("iris/v1")
            with pytest.raises(StoreUnreadableError, match="closed"):
                storage.list_folder("iris/v1/closed")


class TestReadSmall:
    def test_the_limit(self, store: Path, model: Path) -> None:
        storage = LocalStorage(str(store))
        assert storage.read_small("iris/v1/model.yaml", 4) == b"yaml"
        with pytest.raises(BadModelError, match="larger than 3"):
            storage.read_small("iris/v1/model.yaml", 3)
        assert model.exists()

    @pytest.mark.parametrize("kind", ["fifo", "socket", "folder"])
    def test_what_is_no_regular_file_is_refused_at_once(self, store: Path, model: Path, kind: str) -> None:
        with _special(model / "odd", kind), pytest.raises(BadModelError, match="odd"):
            LocalStorage(str(store)).read_small("iris/v1/odd", 10)

    def test_a_link_is_read_only_when_links_are_followed(self, store: Path, model: Path) -> None:
        (model / "link").symlink_to("model.yaml")
        with pytest.raises(NotFoundError):
            LocalStorage(str(store)).read_small("iris/v1/link", 10)
        assert LocalStorage(str(store), follow_links=True).read_small("iris/v1/link", 10) == b"yaml"


def _truncate(path: Path) -> None:
    os.truncate(path, 10)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _edit_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"XX")


def _edit_and_restore_times(path: Path) -> None:
    look = path.stat()
    _edit_in_place(path)
    os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))


def _replace(path: Path) -> None:
    look = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(other, ns=(look.st_atime_ns, look.st_mtime_ns))
    other.replace(path)


_CHANGES = [_truncate, _grow, _edit_in_place, _edit_and_restore_times, _replace]
_CONTENT = bytes(range(256)) * 40


class TestPinned:
    @pytest.fixture(autouse=True)
    def weights(self, model: Path) -> Path:
        path = model / "weights"
        path.write_bytes(_CONTENT)
        os.utime(path, (1, 1))
        return path

    def test_any_range_into_any_buffers(self, store: Path) -> None:
        file = _open(store)
        assert _read(file, len(_CONTENT)) == _CONTENT
        assert _read(file, 100, 1000) == _CONTENT[1000:1100]
        buffers = [bytearray(3), bytearray(0), bytearray(1000), bytearray(1)]
        file.read_into([memoryview(buffer) for buffer in buffers], 7)
        assert b"".join(buffers) == _CONTENT[7:1011]

    @pytest.mark.parametrize("change", _CHANGES)
    def test_a_file_changed_before_it_is_opened(
        self, store: Path, weights: Path, change: Callable[[Path], None]
    ) -> None:
        identity = LocalStorage(str(store)).status("iris/v1/weights").identity
        change(weights)
        with pytest.raises(SourceChangedError, match="weights"):
            LocalStorage(str(store)).open_file("iris/v1/weights", identity)

    @pytest.mark.parametrize("change", _CHANGES)
    def test_a_file_changed_before_it_is_read_with_others(
        self, store: Path, model: Path, weights: Path, change: Callable[[Path], None]
    ) -> None:
        storage = LocalStorage(str(store))
        paths = [f"iris/v1/{name}" for name in ("model.yaml", "weights")]
        files = [(path, storage.status(path).identity) for path in paths]
        buffers = [bytearray(identity.size) for _, identity in files]
        wanted = [(*file, memoryview(buffer)) for file, buffer in zip(files, buffers, strict=True)]
        storage.read_whole(wanted)
        assert buffers == [b"yaml", _CONTENT]
        change(weights)
        with pytest.raises(SourceChangedError, match="weights"):
            storage.read_whole(wanted)
        storage.read_whole(wanted[:1])
        (model / "model.yaml").unlink()
        with pytest.raises(SourceChangedError, match=r"model.yaml is gone"):
            storage.read_whole(wanted)

    def test_files_read_together_beside_a_file_that_changes_meanwhile(
        self, store: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bytes from after the change must not pass for those of the identity."""
        storage = LocalStorage(str(store))
        identity = storage.status("iris/v1/weights").identity
        preadv = os.preadv

        def late(descriptor: int, views: list[memoryview], offset: int) -> int:
            weights.write_bytes(_CONTENT[::-1])
            return preadv(descriptor, views, offset)

        monkeypatch.setattr(os, "preadv", late)
        with pytest.raises(SourceChangedError, match="weights"):
            storage.read_whole([("iris/v1/weights", identity, memoryview(bytearray(len(_CONTENT))))])

    @pytest.mark.parametrize("change", [change for change in _CHANGES if change is not _replace])
    def test_a_file_changed_under_an_open_handle(
        self, store: Path, weights: Path, change: Callable[[Path], None]
    ) -> None:
        file = _open(store)
        assert _read(file, 100) == _CONTENT[:100]
        change(weights)
        for offset in (0, 5, 100, len(_CONTENT) - 100):
            with pytest.raises(SourceChangedError, match="weights"):
                _read(file, 100, offset)

    def test_a_file_replaced_under_an_open_handle_gives_old_bytes_or_an_error(self, store: Path, weights: Path) -> None:
        file = _open(store)
        _replace(weights)
        with pytest.raises(SourceChangedError):  # its ctime shows that its link is gone
            _read(file, 100)

    def test_beyond_the_end_is_never_short(self, store: Path) -> None:
        file = _open(store)
        for size, offset in ((len(_CONTENT) + 1, 0), (2, len(_CONTENT) - 1), (1, len(_CONTENT))):
            with pytest.raises(SourceChangedError):
                _read(file, size, offset)

    def test_short_reads_of_the_system_are_continued(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = _open(store)
        preadv = os.preadv

        def one_byte_less(descriptor: int, views: list[memoryview], offset: int) -> int:
            first = views[0]
            return preadv(descriptor, [first[: max(1, len(first) // 2)]], offset)

        monkeypatch.setattr(os, "preadv", one_byte_less)
        buffers = [bytearray(5), bytearray(90), bytearray(5)]
        file.read_into([memoryview(buffer) for buffer in buffers], 3)
        assert b"".join(buffers) == _CONTENT[3:103]
        whole = bytearray(len(_CONTENT))
        storage = LocalStorage(str(store))
        storage.read_whole([("iris/v1/weights", storage.status("iris/v1/weights").identity, memoryview(whole))])
        assert whole == _CONTENT

    def test_an_input_output_error_is_told_apart(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = _open(store)

        def broken(*_: object) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(StoreUnreadableError, match=r"weights.*Input/output error"):
            _read(file, 10)

    @pytest.mark.parametrize("kind", ["fifo", "socket", "folder"])
    def test_a_file_swapped_for_something_else(self, store: Path, weights: Path, kind: str) -> None:
        identity = LocalStorage(str(store)).status("iris/v1/weights").identity
        weights.unlink()
        with _special(weights, kind), pytest.raises(SourceChangedError):
            LocalStorage(str(store)).open_file("iris/v1/weights", identity)

    @pytest.mark.parametrize("gone", ["iris", "iris/v1", "iris/v1/weights"])
    def test_a_file_that_is_gone(self, store: Path, weights: Path, gone: str) -> None:
        identity = LocalStorage(str(store)).status("iris/v1/weights").identity
        (store / gone).rename(store / "moved")
        with pytest.raises(SourceChangedError, match="gone"):
            LocalStorage(str(store)).open_file("iris/v1/weights", identity)
        assert not weights.exists()

    def test_a_file_that_may_not_be_read(self) -> None:
        with folder_of_an_ordinary_user() as store, an_ordinary_user():
            (store / "file").write_bytes(b"x")
            (store / "file").chmod(0)
            storage = LocalStorage(str(store))
            with pytest.raises(StoreUnreadableError, match="file"):
                storage.open_file("file", storage.status("file").identity)


def test_a_folder_that_was_replaced_is_not_taken_for_the_one_in_which_a_file_is_open(store: Path, model: Path) -> None:
    (model / "a").write_bytes(b"old a")
    (model / "b").write_bytes(b"old b")
    storage = LocalStorage(str(store))
    old = {name: storage.status(f"iris/v1/{name}").identity for name in ("a", "b")}
    first = storage.open_file("iris/v1/a", old["a"])
    model.rename(store / "aside")
    model.mkdir()
    (model / "a").write_bytes(b"new a")
    new = storage.status("iris/v1/a").identity
    assert _read(storage.open_file("iris/v1/a", new), 5) == b"new a"
    for name in ("a", "b"):
        with pytest.raises(SourceChangedError):
            storage.open_file(f"iris/v1/{name}", old[name])
    assert _read(first, 5) == b"old a"


def test_many_files_of_a_folder_are_opened_without_walking_to_it_again(
    store: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (model / str(number)).write_bytes(b"x")
    storage = LocalStorage(str(store))
    identities = [storage.status(f"iris/v1/{number}").identity for number in range(20)]
    walks: list[str] = []
    walk = storage._open_folder

    def counted(path: str) -> int:
        walks.append(path)
        return walk(path)

    monkeypatch.setattr(storage, "_open_folder", counted)
    files = [storage.open_file(f"iris/v1/{number}", identity) for number, identity in enumerate(identities)]
    assert len(files) == 20
    assert walks == ["iris/v1"]
