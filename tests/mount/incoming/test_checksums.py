"""Files of checksums that come along with an archive."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.harness import make_model, run
from tests.incoming import (
    cp,
    made,
    made_tar,
    same,
)
from tests.mount.incoming.putting import Mount, in_incoming, nothing_is_staged


def sums(path: Path, name: str | None = None, wrong: bool = False) -> str:
    digest = hashlib.sha256(path.read_bytes() + b"?" * wrong).hexdigest()
    return f"{digest}  {name or path.name}\n"


@pytest.mark.parametrize("wrong", [False, True], ids=["match", "mismatch"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("note", ["SHA256SUMS", "m-v1.tar.sha256"])
def test_checksums(store: Path, mounted: Mount, tmp_path: Path, note: str, first: bool, wrong: bool) -> None:
    mount = mounted(store)
    archive = made_tar(tmp_path, "m:v1", {"w": os.urandom(100_000)})
    (tmp_path / note).write_text(f"{'0' * 64}  other.tar\n" + sums(archive, wrong=wrong))
    order = [note, archive.name] if first else [archive.name, note]
    codes = [cp(tmp_path / name, mount.path / "incoming") for name in order]
    assert codes[0].returncode == 0, codes[0].stderr
    if not wrong:
        assert codes[1].returncode == 0, codes[1].stderr
        same(tmp_path / "made/m/v1", store / "m/v1")
        return
    mount.expect_log("SHA-256", times=1)
    assert codes[1].returncode == 1
    assert "Bad message" in codes[1].stderr
    assert "SHA-256" in (mount.path / "incoming" / f"{order[1]}.error").read_text()
    assert (store / "m/v1").exists() == (not first)
    nothing_is_staged(mount)
    # With the right sums, the reason has gone: by a new sums file, or by an old one that is written anew.
    (tmp_path / note).write_text(sums(archive, wrong=False))
    for name in (note, archive.name):
        assert cp(tmp_path / name, mount.path / "incoming").returncode == 0
    assert in_incoming(mount) == [note]


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_checksums_as_windows_writes_them(store: Path, mounted: Mount, tmp_path: Path, first: bool) -> None:
    """Right sums, wrong sums, and an unreadable digest."""
    mount = mounted(store)
    mount.expect_log("SHA-256", times=2)
    for number, outcome in enumerate(("fits", "does not", "is cut short")):
        archive = made_tar(tmp_path, f"m{number}:v1")
        digest = sums(archive, wrong=outcome == "does not")[: 40 if "cut" in outcome else 64].upper()
        note = tmp_path / f"{archive.name}.sha256"
        note.write_bytes(f"SHA256          {digest}       C:\\x\\{archive.name}\r\n".encode("utf-16"))
        order = [note, archive] if first else [archive, note]
        codes = [cp(path, mount.path / "incoming").returncode for path in order]
        assert codes == [0, int(outcome != "fits")], outcome
        if outcome != "fits":
            assert "SHA-256" in (mount.path / "incoming" / f"{order[1].name}.error").read_text()
        assert (store / f"m{number}").exists() == (outcome == "fits" or not first)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_checksums_of_folders_below(store: Path, mounted: Mount, tmp_path: Path, first: bool) -> None:
    """`find -type f | xargs sha256sum` makes such sums for a whole backup."""
    mount = mounted(store)
    backup, sums_file = tmp_path / "backup", tmp_path / "backup/SHA256SUMS"
    for name in ("good", "bad"):
        (backup / name).mkdir(parents=True)
        made_tar(tmp_path, f"{name}:v1").rename(backup / name / "m.tar")
    run("bash", "-c", "find . -name m.tar | xargs sha256sum --tag > SHA256SUMS", cwd=backup)
    made_tar(tmp_path, "bad:v2").rename(backup / "bad/m.tar")
    mount.expect_log("SHA-256", times=1)
    order = [sums_file, backup / "good", backup / "bad"] if first else [backup / "good", backup / "bad", sums_file]
    outcomes = [cp("-r", path, mount.path / "incoming").returncode for path in order]
    assert outcomes == [0, 0, 1]
    assert sorted(entry.name for entry in store.iterdir()) == (["good"] if first else ["bad", "good"])


def test_checksums_that_get_their_name_by_a_rename(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """WinSCP and browsers rename checksums to their final name. They are read in place; if they are wrong, the rename
    fails."""
    mount = mounted(store)
    archive = made_tar(tmp_path, "m:v1")
    run("cp", archive, mount.path / "incoming")
    temporary, target = mount.path / "incoming/m-v1.tar.sha256.filepart", mount.path / "incoming/m-v1.tar.sha256"
    temporary.write_text(sums(archive, wrong=True))
    mount.expect_log("SHA-256", times=1)
    with pytest.raises(OSError, match="Bad message"):
        temporary.rename(target)
    assert "SHA-256" in target.with_name(f"{target.name}.error").read_text()
    assert in_incoming(mount) == [f"{target.name}.error", temporary.name]
    temporary.write_text(sums(archive))
    temporary.rename(target)
    assert in_incoming(mount) == [target.name]


def test_checksums_as_the_mount_shows_them(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """incoming/ understands the checksum files beside the archives in models/."""
    other = tmp_path / "other"
    make_model(other, "m:v1", {"w": os.urandom(100_000)})
    source, mount = mounted(other), mounted(store)
    run(
        "bash",
        "-c",
        'cp "$0"/SHA256SUMS "$0"/*.zip "$0"/*.zip.sha256 "$1"',
        source.path / "models/m/v1",
        mount.path / "incoming",
    )
    same(other / "m/v1", store / "m/v1")


def test_a_models_own_checksums_are_files_of_it(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Nobody checks a model's own checksum files, in archives neither: they may be older than the model."""
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"SHA256SUMS": b"0" * 64 + b"  w\n", "w": b"w", "w.sha256": b"1" * 64 + b"\n"})
    run("cp", "-r", model, mount.path / "incoming/m")
    run("sync", mount.path / "incoming/m")
    same(model, store / "m/v1")
