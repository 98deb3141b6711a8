"""Uploads whose tag the store has already: unchanged, refused, or replaced under readers."""

import errno
import functools
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import make_model, run, wait_until
from tests.incoming import (
    cp,
    imports,
    made,
    made_tar,
    tar_of,
)
from tests.mount.incoming.putting import Mount, in_incoming, nothing_is_staged


def test_same_content_in_other_archives_is_unchanged(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Models are compared by content: other archive bytes of the same model are no other model."""
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"w": os.urandom(100_000), "d/e": b"e", "empty/": b""})
    archives = [
        tar_of(model, tmp_path / "1.tar"),
        tar_of(model, tmp_path / "2.tar.gz", "w:gz"),
        tmp_path / "3.zip",
        tmp_path / "4.tar.xz",
    ]
    run("zip", "-qr", archives[2], ".", cwd=model)
    run("tar", "cJf", archives[3], "-C", model.parent, "v1")
    inodes = None
    for archive in archives:
        run("cp", archive, mount.path / "incoming")
        found = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in store.rglob("*")}
        assert inodes in (None, found)
        inodes = found
    run("cp", "-r", model, mount.path / "incoming/folder")
    run("sync", mount.path / "incoming/folder")
    assert [receipt["state"] for receipt in imports(mount)] == ["imported"] + ["unchanged"] * 4
    assert in_incoming(mount) == []
    nothing_is_staged(mount)


def test_a_rename_decides_again(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """The upload waits under a name that is not final. The reason of its refusal goes, or comes."""
    mount = mounted(store)
    mount.expect_log("was not imported: m:v1 is in the store with other content", times=2)
    folder = make_model(store, "m:v1", {"w": b"other"})
    wait_until(lambda: mount.shows("m:v1"), 10, "the model is shown")
    waiting = mount.path / "incoming" / ".waiting"
    run("cp", made_tar(tmp_path, "m:v1", {"w": b"w"}), waiting)
    for name in ("one.tar", "two.tar"):  # each name has its note
        with pytest.raises(FileExistsError):
            waiting.rename(mount.path / "incoming" / name)
        assert (mount.path / "incoming" / f"{name}.error").exists()
    shutil.rmtree(folder)
    waiting.rename(mount.path / "incoming" / "three.tar")
    assert (store / "m/v1/w").read_bytes() == b"w"
    assert "three.tar" not in in_incoming(mount)

    # Refused for a reason that is not in the bytes, which are staged already.
    mount.expect_log("waiting was not imported: two programs wrote to it at once", times=1)
    content = made_tar(tmp_path, "n:v1", {"w": b"w" * 300_000}).read_bytes()
    one, other = (os.open(waiting, os.O_RDWR | os.O_CREAT) for _ in range(2))
    os.write(one, content)
    os.write(other, content[:1000])
    for descriptor in (one, other):
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            os.close(descriptor)
    waiting.rename(mount.path / "incoming" / "four.tar")
    assert (store / "n/v1/w").read_bytes() == b"w" * 300_000
    nothing_is_staged(mount)


@pytest.mark.parametrize("change", ["a byte", "a file more", "a file less", "an empty folder more", "model.yaml"])
def test_other_content_is_refused(store: Path, mounted: Mount, tmp_path: Path, change: str) -> None:
    mount = mounted(store)
    files: dict[str | bytes, bytes | int] = {"w": b"w" * 50_000, "d/e": b"e"}
    run("cp", made_tar(tmp_path, "m:v1", files), mount.path / "incoming")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    other = dict(files)
    labels = {}
    if change == "a byte":
        other["w"] = b"w" * 49_999 + b"x"
    elif change == "a file more":
        other["d/f"] = b""
    elif change == "a file less":
        del other["d/e"]
    elif change == "an empty folder more":
        other["empty/"] = b""
    elif change == "model.yaml":
        labels = {"another": "label"}
    shutil.rmtree(tmp_path / "made")
    done = cp(made_tar(tmp_path, "m:v1", other, labels=labels), mount.path / "incoming")
    mount.expect_log("m-v1.tar was not imported: m:v1 is in the store with", times=1)
    assert done.returncode == 1
    assert "File exists" in done.stderr
    assert "--overwrite" in (mount.path / "incoming/m-v1.tar.error").read_text()
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    nothing_is_staged(mount)


@pytest.mark.parametrize("suffix", [".tar", ".bentomodel", ".zip", "files"])
def test_overwrite_replaces_under_readers(store: Path, mounted: Mount, tmp_path: Path, suffix: str) -> None:
    """A reader of the old model keeps its bytes or gets ESTALE. A new open gets the new model."""
    mount = mounted(store, options=["--overwrite"])
    old, new = (random.Random(seed).randbytes(6_000_000) for seed in (1, 2))
    make_model(store, "m:v1", {"w": old})
    path = mount.path / "models/m/v1/files/w" if suffix == "files" else mount.archive("m:v1", suffix)
    wait_until(path.exists, 10, "it is shown")
    expected = path.read_bytes()
    with open(path, "rb", 0) as early, open(path, "rb", 0) as late:
        assert early.read(100_000) == expected[:100_000]
        # One file is partly read, and shares the kernel's cache with another reader.
        run("cp", made_tar(tmp_path, "m:v1", {"w": new}), mount.path / "incoming")
        assert imports(mount)[-1]["state"] == "replaced"
        assert (store / "m/v1/w").read_bytes() == new
        wait_until(lambda: _reads(path, new, suffix), 10, "the new model is shown")
        for file, begin in ((early, 100_000), (late, 0)):
            for offset in range(begin, len(expected), 1_000_000):
                wanted = expected[offset : offset + 50_000]
                got = read_or_stale(functools.partial(os.pread, file.fileno(), 50_000, offset))
                if got is not None and len(got) < len(
                    wanted
                ):  # from the kernel's cache; an error follows, not an early end
                    end = offset + len(got)
                    assert got
                    assert read_or_stale(functools.partial(os.pread, file.fileno(), 50_000, end)) is None
                assert got is None or wanted.startswith(got)
    nothing_is_staged(mount)
    assert sorted(entry.name for entry in (store / "m").iterdir()) == ["latest", "v1"]


def read_or_stale(read: Callable[[], bytes]) -> bytes | None:
    """Return the bytes read, or None on ESTALE. Raise any other error."""
    try:
        return read()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return None


def _reads(path: Path, new: bytes, suffix: str) -> bool:
    content = read_or_stale(path.read_bytes) or b""
    return content == new if suffix == "files" else new[:60_000] in content


def test_overwrite_is_seen_by_a_mount_that_had_measured(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Measurements made while staging are of the new files, not of the old ones."""
    mount = mounted(store, options=["--overwrite"])
    for number in range(3):
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
        run("cp", made_tar(tmp_path, "m:v1", {"w": bytes([number]) * 300_000}), mount.path / "incoming")

        def whole(number: int = number) -> bool:
            try:
                with zipfile.ZipFile(mount.archive("m:v1", ".zip")) as file:
                    assert file.testzip() is None
                    return file.read("w") == bytes([number]) * 300_000
            except OSError:
                return False

        wait_until(whole, 10, "the zip is of the new model")
        run("bash", "-c", "cd $0 && sha256sum -c SHA256SUMS", mount.path / "models/m/v1")
