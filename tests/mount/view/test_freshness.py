"""A change of the store is seen within two seconds: by stat, by a new open, and by a read of that open."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.harness import Mounted, make_model, remove_model
from tests.waiting import let_a_change_be_seen


def test_added_and_deleted(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "first:v1", {"w": b"1"})
    mount = mounted(store)
    for folder in ("models", "models/first", "by-format/zip/first", "by-format/folder/first"):
        os.listdir(mount.path / folder)  # so that everything cacheable is cached
    assert not (mount.path / "models/second").exists()
    make_model(store, "first:v2", {"w": b"2"})
    make_model(store, "second:v1", {"w": b"2"})
    let_a_change_be_seen()
    assert sorted(os.listdir(mount.path / "models")) == ["first", "second"]
    assert {"v1", "v2"} <= set(os.listdir(mount.path / "models/first"))
    assert os.listdir(mount.path / "by-format/zip/second") == ["second-v1.zip"]
    assert (mount.path / "by-format/folder/first/v2/w").read_bytes() == b"2"
    remove_model(store, "first:v1")
    remove_model(store, "second:v1")
    (store / "second" / "latest").unlink()
    (store / "second").rmdir()
    let_a_change_be_seen()
    assert os.listdir(mount.path / "models") == ["first"]
    assert not (mount.path / "models/first/v1").exists()
    assert not (mount.path / "by-format/zip/first/first-v1.zip").exists()
    assert not (mount.path / "models/second/v1/second-v1.tar").exists()


def test_latest_rewritten_in_place(store: Path, mounted: Callable[..., Mounted]) -> None:
    """BentoML rewrites it in place, and an equally long version leaves its size unchanged."""
    make_model(store, "m:v1", {"w": b"1"}, creation_time="2026-01-01T00:00:00+00:00")
    make_model(store, "m:v2", {"w": b"22"}, creation_time="2026-01-02T00:00:00+00:00")
    mount = mounted(store)
    name = mount.path / "models/m"
    assert os.readlink(name / "latest") == "v2"
    assert (mount.path / "by-format/folder/m/latest").read_text() == "v2"
    (store / "m/latest").write_text("v1")
    let_a_change_be_seen()
    assert os.readlink(name / "latest") == "v1"
    assert os.readlink(name / "latest.zip") == "v1/m-v1.zip"
    assert (name / "latest.tar").read_bytes() == (name / "v1/m-v1.tar").read_bytes()
    assert (mount.path / "by-format/folder/m/latest").read_text() == "v1"
    (store / "m/latest").write_text("gone")
    let_a_change_be_seen()
    assert os.readlink(name / "latest") == "v2"  # BentoML's answer in this case: the youngest


def test_edited_in_place_with_equal_size(store: Path, mounted: Callable[..., Mounted]) -> None:
    folder = make_model(store, "m:v1", {"weights.bin": b"old " * 500_000, "config.json": b'{"a": 1}'})
    mount = mounted(store, options=["--compression", "never"])  # so that the new bytes can be seen
    version = mount.path / "models/m/v1"
    shown = ["m-v1.tar", "m-v1.bentomodel", "m-v1.tar.gz", "m-v1.zip", "files/weights.bin", "SHA256SUMS"]
    before = {name: (version / name).read_bytes() for name in shown}
    stamp = (folder / "weights.bin").stat().st_mtime_ns
    with (folder / "weights.bin").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"new!")
    os.utime(folder / "weights.bin", ns=(stamp, stamp))
    let_a_change_be_seen()
    for name in shown:
        after = (version / name).read_bytes()
        assert len(after) == len(before[name]) == (version / name).stat().st_size
        assert after != before[name]
        assert name == "SHA256SUMS" or b"new!" in after


def test_an_old_listing_tells_nothing_of_a_replaced_model(store: Path, mounted: Callable[..., Mounted]) -> None:
    """A program has the directory open since before, and lists it now. Others must see nothing of the old model."""
    make_model(store, "m:v1", {"sub/old": b"1", "w": b"old"})
    mount = mounted(store)
    files = mount.path / "models/m/v1/files"
    opened = os.open(files, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_model(store, "m:v1")
        make_model(store, "m:v1", {"sub/new": b"1", "w": b"longer"})
        let_a_change_be_seen()
        with os.scandir(opened) as listed:
            sizes = {entry.name: entry.stat().st_size for entry in listed}
        assert sizes["w"] == (files / "w").stat().st_size == 6
        assert os.listdir(files / "sub") == ["new"]
    finally:
        os.close(opened)


def test_files_added_to_and_taken_from_a_model(store: Path, mounted: Callable[..., Mounted]) -> None:
    folder = make_model(store, "m:v1", {"a": b"a", "sub/b": b"b"})
    mount = mounted(store)
    files = mount.path / "models/m/v1/files"
    archive = mount.archive("m:v1", ".zip")
    size = archive.stat().st_size
    assert sorted(os.listdir(files)) == ["a", "model.yaml", "sub"]
    (folder / "sub" / "c").write_bytes(b"c")
    os.utime(folder, ns=(1, 1))
    let_a_change_be_seen()
    assert sorted(os.listdir(files / "sub")) == ["b", "c"]
    assert archive.stat().st_size > size
    (folder / "sub" / "c").unlink()
    (folder / "a").unlink()
    os.utime(folder, ns=(1, 1))
    let_a_change_be_seen()
    assert sorted(os.listdir(files)) == ["model.yaml", "sub"]
    assert not (files / "a").exists()
    assert archive.stat().st_size < size


def test_a_file_added_by_hand_does_not_hide_the_model(store: Path, mounted: Callable[..., Mounted]) -> None:
    """An added file removes the mark that BentoML leaves after a finished save."""
    folder = make_model(store, "m:v1", {"a": b"a"})
    make_model(store, "m:v2", {"a": b"a"})
    mount = mounted(store)
    assert mount.shows("m:v1")
    (folder / "added.txt").write_text("by hand")
    let_a_change_be_seen()
    assert (mount.path / "models/m/v1/files/added.txt").read_text() == "by hand"
    assert b"added.txt" in mount.archive("m:v1", ".tar").read_bytes()
