"""Links inside a model, in all forms: replaced by their targets, or refused with their name."""

import os
import time
from pathlib import Path

import pytest

from bentofs.store.errors import BadModelError, NotFoundError, SourceChangedError, UnsafeMemberError
from bentofs.store.storage.base import Entry, Kind
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.local_walk import MAX_DEPTH

_MODEL = "iris/v1"


@pytest.fixture
def model(store: Path) -> Path:
    """A model's directory with a file and a nested one."""
    folder = store / _MODEL
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "model.yaml").write_bytes(b"yaml")
    (folder / "weights").write_bytes(b"12345")
    (folder / "sub" / "deep" / "leaf").write_bytes(b"leaf")
    (store / "secret").write_bytes(b"secret!")
    return folder


def _walk(store: Path, *, follow: bool = False) -> dict[str, Entry]:
    entries, _ = LocalStorage(str(store), follow_links=follow).walk(_MODEL)
    assert len({entry.path for entry in entries}) == len(entries)
    return {entry.path: entry for entry in entries}


def _content(store: Path, entry: Entry, *, follow: bool = False) -> bytes:
    assert entry.identity is not None
    file = LocalStorage(str(store), follow_links=follow).open_file(entry.source, entry.identity)
    buffer = bytearray(entry.size)
    file.read_into([memoryview(buffer)], 0)
    return bytes(buffer)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("alias", "weights"),
        ("alias", "./sub/../weights"),
        ("sub/alias", "../weights"),
        ("sub/deep/alias", "../../weights"),
        ("alias", "{model}/weights"),
        ("alias", "../v1/weights"),
        ("sub/alias", "deep/../../../../iris/v1/weights"),
    ],
)
def test_to_a_file_inside(store: Path, model: Path, link: str, target: str, follow: bool) -> None:
    (model / link).symlink_to(target.format(model=model))
    entry = _walk(store, follow=follow)[link]
    assert (entry.is_folder, entry.size) == (False, 5)
    assert _content(store, entry, follow=follow) == b"12345"


@pytest.mark.parametrize("follow", [False, True])
def test_to_a_folder_inside(store: Path, model: Path, follow: bool) -> None:
    (model / "twin").symlink_to("sub")
    (model / "sub" / "deep" / "also").symlink_to("leaf")
    entries = _walk(store, follow=follow)
    assert {path for path in entries if path.startswith("twin")} == {
        "twin",
        "twin/deep",
        "twin/deep/leaf",
        "twin/deep/also",
    }
    assert entries["twin"].is_folder
    assert _content(store, entries["twin/deep/also"], follow=follow) == b"leaf"


def test_a_chain_of_links_inside(store: Path, model: Path) -> None:
    (model / "a").symlink_to("b")
    (model / "b").symlink_to("sub/c")
    (model / "sub" / "c").symlink_to("deep/leaf")
    entries = _walk(store)
    assert all(_content(store, entries[path]) == b"leaf" for path in ("a", "b", "sub/c"))


def test_to_model_yaml(store: Path, model: Path) -> None:
    (model / "sub" / "info").symlink_to("../model.yaml")
    assert _content(store, _walk(store)["sub/info"]) == b"yaml"


def test_an_executable_behind_a_link_stays_executable(store: Path, model: Path) -> None:
    (model / "weights").chmod(0o755)
    (model / "alias").symlink_to("weights")
    assert _walk(store)["alias"].executable


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("../../secret", "leads out of the model"),
        ("/etc/passwd", "leads out of the model"),
        ("/", "leads out of the model"),
        ("..", "leads out of the model"),
        ("../v10/weights", "leads out of the model"),  # begins like the model's own path
        ("missing", "leads nowhere"),
        ("weights/below-a-file", "leads nowhere"),
        ("link", "link to itself|leads nowhere"),
        ("sub/back", "link to itself|leads nowhere"),
        (".", "cycle"),
        ("sub/..", "cycle"),
        ("../v1", "cycle"),
    ],
)
def test_refused_with_its_name(store: Path, model: Path, target: str, sentence: str) -> None:
    (store / "iris" / "v10").mkdir()
    (store / "iris" / "v10" / "weights").write_bytes(b"other")
    (model / "link").symlink_to(target)
    (model / "sub" / "back").symlink_to("../link")
    with pytest.raises(UnsafeMemberError, match=sentence) as caught:
        _walk(store)
    assert "link" in str(caught.value) or "back" in str(caught.value)


def test_a_cycle_of_two_folders(store: Path, model: Path) -> None:
    (model / "other").mkdir()
    (model / "other" / "to-sub").symlink_to("../sub")
    (model / "sub" / "to-other").symlink_to("../other")
    with pytest.raises(UnsafeMemberError, match="cycle"):
        _walk(store)


def test_followed_out_of_the_model_when_told(store: Path, model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "data").write_bytes(b"data")
    (model / "out").symlink_to(outside)
    (model / "file").symlink_to(store / "secret")
    with pytest.raises(UnsafeMemberError):
        _walk(store)
    entries = _walk(store, follow=True)
    assert _content(store, entries["out/deep/data"], follow=True) == b"data"
    assert _content(store, entries["file"], follow=True) == b"secret!"
    assert entries["out"].is_folder


@pytest.mark.parametrize("target", ["missing", "link", ".", "/dev/null"])
def test_following_does_not_accept_everything(store: Path, model: Path, target: str) -> None:
    (model / "link").symlink_to(target)
    with pytest.raises(UnsafeMemberError, match="link"):
        _walk(store, follow=True)


def test_a_followed_file_that_becomes_a_link_is_not_read(store: Path, model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "data"
    outside.write_bytes(b"data")
    (model / "out").symlink_to(outside)
    entry = _walk(store, follow=True)["out"]
    outside.rename(tmp_path / "moved")
    outside.symlink_to(tmp_path / "moved")
    with pytest.raises(SourceChangedError):
        _content(store, entry, follow=True)


@pytest.mark.parametrize("which", ["iris", "iris/v1"])
def test_a_name_or_version_that_is_a_link_leads_nowhere(store: Path, model: Path, tmp_path: Path, which: str) -> None:
    real = tmp_path / "elsewhere"
    (store / which).rename(real)
    (store / which).symlink_to(real)
    storage = LocalStorage(str(store))
    for look in (storage.walk, storage.list_folder):
        with pytest.raises(NotFoundError):
            look(_MODEL)
    with pytest.raises(NotFoundError):
        storage.status(f"{_MODEL}/model.yaml")
    with pytest.raises(NotFoundError):
        storage.read_small(f"{_MODEL}/model.yaml", 100)
    parent, _, name = which.rpartition("/")
    assert dict(storage.list_folder(parent))[name] is Kind.LINK
    assert (_MODEL, model.name) == ("iris/v1", "v1")


@pytest.mark.parametrize("which", ["iris", "iris/v1", "iris/v1/sub"])
def test_a_folder_swapped_for_a_link_after_the_look_is_not_entered(store: Path, model: Path, which: str) -> None:
    entry = _walk(store)["sub/deep/leaf"]
    assert model.exists()
    (store / which).rename(store / "moved")
    (store / which).symlink_to(store / "moved")
    with pytest.raises(SourceChangedError):
        _content(store, entry)


def test_a_file_swapped_for_a_link_after_the_look_is_not_read(store: Path, model: Path) -> None:
    entry = _walk(store)["weights"]
    (model / "weights").rename(store / "moved")
    (model / "weights").symlink_to(store / "moved")
    with pytest.raises(SourceChangedError):
        _content(store, entry)


def test_the_store_itself_may_be_reached_by_a_link(store: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "by-link").symlink_to(store)
    (model / "absolute").symlink_to(tmp_path / "by-link" / "iris" / "v1" / "weights")
    entry = _walk(tmp_path / "by-link")["absolute"]
    assert _content(tmp_path / "by-link", entry) == b"12345"


def test_too_deep(store: Path, model: Path) -> None:
    deep = model
    for _ in range(MAX_DEPTH + 1):
        deep = deep / "d"
    os.makedirs(deep)
    with pytest.raises(BadModelError, match="deep"):
        _walk(store)


def test_as_deep_as_may_be(store: Path, model: Path) -> None:
    path = "/".join("d" * (MAX_DEPTH - 1))
    (model / path).mkdir(parents=True)
    (model / path / "bottom").write_bytes(b"b")
    assert _content(store, _walk(store)[f"{path}/bottom"]) == b"b"


def test_links_that_multiply_what_is_there(store: Path, model: Path) -> None:
    """Twenty directories with two links each to the next stand for a million."""
    for level in range(20):
        (model / f"f{level:02}").mkdir()
        for link in ("a", "b"):
            (model / f"f{level:02}" / link).symlink_to(f"../f{level + 1:02}")
    (model / "f20").mkdir()
    begun = time.thread_time()
    with pytest.raises(BadModelError, match="10,000 files and directories behind links"):
        LocalStorage(str(store)).walk("iris/v1")
    assert time.thread_time() - begun < 20
