"""Uploads at the same time, in any order, in bounded memory."""

import contextlib
import errno
import fcntl
import lzma
import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness import ended, make_model, run, wait_until
from tests.incoming import (
    area_of,
    cp,
    imports,
    made,
    made_tar,
    peak_memory,
    same,
    staged,
    tar_of,
)
from tests.mount.incoming.putting import Mount, in_incoming, member, nothing_is_staged, put, slow_copy, tar_with


def test_a_slow_upload_blocks_nobody(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    content = made_tar(tmp_path, "slow:v1", {"w": os.urandom(3_000_000)}).read_bytes()
    target = mount.path / "incoming/slow.tar"
    with slow_copy(target, tmp_path / "pipe") as feed:
        feed.write(content[:2_000_000])
        wait_until(lambda: target.exists() and target.stat().st_size >= 1_900_000, 10, "the upload has begun")
        for number in range(3):
            run("cp", made_tar(tmp_path, f"m{number}:v1"), mount.path / "incoming", seconds=20)
            assert run("ls", mount.path / "incoming", seconds=20).stdout.split() == ["slow.tar"]
        assert sorted(entry.name for entry in store.iterdir()) == ["m0", "m1", "m2"]
        feed.write(content[2_000_000:])
    same(tmp_path / "made/slow/v1", store / "slow/v1")


def test_an_import_that_hangs_blocks_nobody(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """An import waits in close for a held lock. Meanwhile the directory is listed, and other programs write to it."""
    mount = mounted(store)
    with (area_of(store) / "latest.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ended(subprocess.Popen(["cp", made_tar(tmp_path, "m:v1"), mount.path / "incoming"])) as hanging:
            wait_until((store / "m/v1").exists, 10, "the import has got to its end")
            for _ in range(3):
                assert "m-v1.tar" in run("ls", "-l", mount.path / "incoming", seconds=10).stdout
                run("cp", tmp_path / "m-v1.tar", mount.path / "incoming/m-v1.tar.part", seconds=10)
                run("rm", mount.path / "incoming/m-v1.tar.part", seconds=10)
            assert hanging.poll() is None
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert hanging.wait(30) == 0
    assert (store / "m/latest").read_text() == "v1"


def test_a_rename_that_hangs_blocks_nobody(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """A rename that waits does not block others, even if libfuse blocks those who want the renamed file."""
    make_model(store, "other:v1", {"w": b"w"})
    mount = mounted(store)
    temporary = mount.path / "incoming/m.tar.part"
    run("cp", made_tar(tmp_path, "m:v1"), temporary)
    with contextlib.ExitStack() as ending, (area_of(store) / "latest.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mover = ending.enter_context(ended(subprocess.Popen(["mv", temporary, mount.path / "incoming/m.tar"])))
        wait_until((store / "m/v1").exists, 10, "the import has got to its end")
        for _ in range(3):
            ending.enter_context(ended(subprocess.Popen(["cat", temporary], stderr=subprocess.DEVNULL)))
            time.sleep(0.3)  # let cat ask for the name: depending on the engine, it hangs or is told at once
            assert "other-v1.tar" in run("ls", "-lR", mount.path / "models/other", seconds=10).stdout
        assert mover.poll() is None
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert mover.wait(30) == 0
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_twelve_uploads_at_once(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """The uploads are interleaved, slow, and of several formats. Each is closed in its turn."""
    mount = mounted(store)
    uploads = []
    for number in range(12):
        model = made(tmp_path, f"m{number}:v1", {"w": os.urandom(400_000), "text": b"text " * 40_000})
        archive = tmp_path / f"m{number}"
        if number % 3 == 0:
            tar_of(model, archive, "w:xz")
        elif number % 3 == 1:
            tar_of(model, archive, "w:gz")
        else:
            run("zip", "-qr", f"{archive}.zip", ".", cwd=model)
            archive = archive.with_suffix(".zip")
        content = archive.read_bytes()
        uploads.append((open(mount.path / "incoming" / archive.name, "wb", 0), content))  # noqa: SIM115
    step = 50_000
    for offset in range(0, max(len(content) for _, content in uploads), step):
        for file, content in uploads:
            if content[offset : offset + step]:
                file.write(content[offset : offset + step])
        time.sleep(0.05)  # slow writers
    assert len(in_incoming(mount)) == 12
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda upload: upload[0].close(), uploads))
    for number in range(12):
        same(tmp_path / f"made/m{number}/v1", store / f"m{number}/v1")
    assert in_incoming(mount) == []
    nothing_is_staged(mount)


def test_what_an_imported_name_replaces_gives_its_room_back(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store, own_process=True)
    mount.expect_log("junk was not imported", times=1)
    incoming = mount.path / "incoming"
    assert put(mount, "junk", b"junk" * 1000) == errno.EINVAL
    run("cp", made_tar(tmp_path, "m:v1"), incoming / "m.tar")
    (incoming / "m.tar").rename(incoming / "junk")

    def is_open() -> bool:
        opened = [each for each in Path(f"/proc/{mount.pid}/fd").iterdir() if "spool/" in os.path.realpath(each)]
        return any(each.stat().st_size == 4000 for each in opened)  # an imported file is read back for a moment

    wait_until(lambda: not is_open(), 2, "what was replaced is open no more")


def test_many_small_models_take_no_more_and_more_descriptors(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Each file of each model was measured, and stayed open for seconds."""
    mount = mounted(store, prefix=["prlimit", "--nofile=500:500"])
    files: dict[str | bytes, bytes | int] = {f"{number}": os.urandom(3000) for number in range(40)}
    archives = [made_tar(tmp_path, f"m{number}:v1", files | {"large": b"text " * 20_000}) for number in range(30)]
    for archive in archives:
        run("cp", archive, mount.path / "incoming")
    # Files of the store stay open for a moment while they are measured: at most 256 (`OpenFiles`) of these 1,230.
    assert len(os.listdir(f"/proc/{mount.pid}/fd")) < 350
    assert len(os.listdir(store)) == 30


@pytest.mark.parametrize("how", ["backwards", "random", "head last", "odd blocks", "twice the same"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.xz", ".zip"])
def test_writes_in_any_order(store: Path, mounted: Mount, tmp_path: Path, how: str, suffix: str) -> None:
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"w": os.urandom(1_000_000), "d/e": b"e" * 100_000})
    archive = tmp_path / f"m{suffix}"
    if suffix == ".zip":
        run("zip", "-qr", archive, ".", cwd=model)
    else:
        tar_of(model, archive, "w:xz" if suffix == ".tar.xz" else "w")
    content = archive.read_bytes()
    size = 65_537 if how == "odd blocks" else 40_000
    offsets = list(range(0, len(content), size))
    if how == "backwards":
        offsets.reverse()
    elif how == "head last":
        offsets = [*offsets[1:], 0]
    elif how in ("random", "odd blocks"):
        random.Random(how).shuffle(offsets)
    else:
        offsets = offsets * 2
    descriptor = os.open(mount.path / "incoming" / archive.name, os.O_WRONLY | os.O_CREAT)
    for offset in offsets:
        assert os.pwrite(descriptor, content[offset : offset + size], offset) == len(content[offset : offset + size])
    os.close(descriptor)
    same(model, store / "m/v1")
    nothing_is_staged(mount)


def test_dd_with_seek(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    archive = made_tar(tmp_path, "m:v1", {"w": os.urandom(500_000)})
    blocks = -(-archive.stat().st_size // 100_000)
    target = mount.path / "incoming/m.tar"
    mount.allow_log("m.tar was not imported")
    for block in reversed(range(blocks)):
        done = subprocess.run(
            [
                "dd",
                f"if={archive}",
                f"of={target}",
                "bs=100000",
                "count=1",
                f"skip={block}",
                f"seek={block}",
                "conv=notrunc",
            ],
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert (done.returncode == 0) == (block == 0), done.stderr
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_two_writers_of_one_name(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Two writers may spoil each other's file. Nothing of it stays in staging, and a later single writer succeeds."""
    mount = mounted(store)
    mount.allow_log("m-v1.tar was not imported")
    archive = made_tar(tmp_path, "m:v1", {"w": os.urandom(2_000_000)})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cp(archive, mount.path / "incoming"), range(12)))
    run("cp", archive, mount.path / "incoming")
    same(tmp_path / "made/m/v1", store / "m/v1")
    nothing_is_staged(mount)


def test_two_who_write_to_one_file_are_told_why(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Both get EBUSY or ECANCELED, and the reason in words: beside the file, in the log, and in the record."""
    mount = mounted(store)
    content = made_tar(tmp_path, "m:v1").read_bytes()
    target, note = mount.path / "incoming/m.tar", mount.path / "incoming/m.tar.error"

    def last() -> tuple[str, str, str]:
        receipt = imports(mount)[-1]
        return receipt["file"], receipt["state"], receipt["error"]

    # Both write to the same file.
    mount.expect_log("m.tar was not imported: two programs wrote to it at once", times=1)
    one, other = (os.open(target, os.O_WRONLY | os.O_CREAT) for _ in range(2))
    os.write(one, content)
    os.write(other, content)
    for descriptor in (one, other):
        with pytest.raises(OSError, match="busy"):
            os.close(descriptor)
    assert "two programs wrote to it at once" in note.read_text()
    assert last()[:2] == ("m.tar", "refused")
    assert not (store / "m").exists()
    # One of them begins the file anew, and is imported.
    mount.expect_log("m.tar was not imported: another program began the file anew", times=1)
    one = os.open(target, os.O_WRONLY)
    os.write(one, content[:512])
    assert put(mount, "m.tar", content) == 0
    assert not note.exists()
    with pytest.raises(OSError, match="canceled") as caught:
        os.close(one)
    assert caught.value.errno == errno.ECANCELED
    assert "another program began the file anew" in note.read_text()
    assert [(r["state"], r["error"] and r["error"][:15]) for r in imports(mount)[-2:]] == [
        ("interrupted", "another program"),
        ("imported", None),
    ]
    # The file is removed by hand: its program gets an error, and nothing is left behind.
    note.unlink()
    one = os.open(target, os.O_WRONLY | os.O_CREAT)
    os.write(one, content[:512])
    target.unlink()
    with pytest.raises(OSError, match="canceled"):
        os.close(one)
    assert in_incoming(mount) == []
    assert last() == ("m.tar", "interrupted", "it was removed before it was imported")
    mount.wait_for_log("m.tar was not imported: it was removed before it was imported")


def test_bytes_of_two_are_not_mixed_between_their_closes(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Two programs write by turns. A child of each closes the file in between, so neither seems to be writing."""
    mount = mounted(store)
    mount.allow_log("m.tar was not imported")
    contents = [made_tar(tmp_path, f"{name}:v1", {"w": os.urandom(2_000_000)}).read_bytes() for name in "ab"]
    one, other = (os.open(mount.path / "incoming/m.tar", os.O_RDWR | os.O_CREAT) for _ in range(2))
    os.pwrite(one, contents[0][:1_000_000], 0)
    with pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
        os.close(os.dup(one))
    os.ftruncate(other, 0)
    os.pwrite(other, contents[1][:1_000_000], 0)
    with pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
        os.close(os.dup(other))
    os.pwrite(one, contents[0][1_000_000:], 1_000_000)
    for descriptor in (one, other):
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            os.close(descriptor)
    assert os.listdir(store) == []
    # A program that begins the file anew has it for itself.
    one, other = (os.open(mount.path / "incoming/m.tar", os.O_RDWR | os.O_CREAT) for _ in range(2))
    for descriptor in (one, other, one):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, contents[0][:1_000_000], 0)
        with pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
            os.close(os.dup(descriptor))
    os.pwrite(one, contents[0][1_000_000:], 1_000_000)
    os.close(one)
    with pytest.raises(OSError, match=os.strerror(errno.ECANCELED)):  # its bytes are gone
        os.close(other)
    assert (store / "a/v1/w").read_bytes() == (tmp_path / "made/a/v1/w").read_bytes()


def test_a_folder_that_is_still_written_says_so(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    folder = mount.path / "incoming/m"
    run("cp", "-r", made(tmp_path, "m:v1"), folder)
    mount.expect_log("m was not imported: a file in it is still being written", times=1)
    with (folder / "more").open("wb", 0) as file:
        file.write(b"more")
        # A descriptor of this process would be inherited, and closed, by its children.
        descriptor = os.open(folder, os.O_RDONLY)
        with pytest.raises(OSError, match="busy"):
            os.fsync(descriptor)
        os.close(descriptor)
    assert "still being written" in (mount.path / "incoming/m.error").read_text()
    assert (imports(mount)[-1]["state"], imports(mount)[-1]["errno"]) == ("refused", "EBUSY")
    run("sync", folder)
    assert in_incoming(mount) == []
    assert (store / "m/v1/more").read_bytes() == b"more"


def staged_bytes(store: Path) -> int:
    return sum(path.stat().st_size for top in staged(area_of(store)) for path in top.rglob("*") if path.is_file())


def test_staging_overlaps_the_upload(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """close waits only for the tail. Earlier bytes are already staged."""
    mount = mounted(store)
    for kind, fast in (("", {}), ("xz", {"preset": 0}), ("gz", {"compresslevel": 1})):
        name = f"m{kind}"
        files: dict[str | bytes, bytes | int] = {f"{number:03}": os.urandom(500_000) for number in range(30)}
        model = made(tmp_path, f"{name}:v1", files)
        content = tar_of(model, tmp_path / f"{name}.tar", f"w:{kind}" if kind else "w", **fast).read_bytes()
        with open(mount.path / "incoming" / f"{name}.tar", "wb", 0) as file:
            for offset in range(0, len(content) - 600_000, 200_000):
                file.write(content[offset : offset + 200_000])
                written = offset + 200_000
            wait_until(lambda: staged_bytes(store) >= 0.9 * 15_000_000, 60, f"most of it is staged, {kind}")
            assert not (store / name).exists()
            file.write(content[written:])
        same(model, store / name / "v1")


@pytest.mark.parametrize(
    ("pack", "zeros", "noise"),
    [
        ("tar c -C $m . | pigz -1 > $a", 500, 100),
        ("tar c -C $m . | xz -9 -T1 > $a", 100, 8),
        ("cd $m && zip -1qr $a .", 300, 50),
    ],
    ids=["gzip", "xz -9", "zip"],
)
def test_memory_is_bounded(store: Path, mounted: Mount, tmp_path: Path, pack: str, zeros: int, noise: int) -> None:
    """Memory stays bounded for 600 MiB, even for the format that needs most memory to decode: xz -9 has a window of 64
    MiB. Sizes in MiB."""
    mount = mounted(store, own_process=True)
    model = made(tmp_path, "m:v1", {"zeros": zeros << 20, "small/e": b"e"})
    with (model / "noise").open("wb") as file:
        for _ in range(noise):
            file.write(os.urandom(1 << 20))
    archive = tmp_path / "m.archive"
    run("bash", "-ec", pack, env={**os.environ, "m": str(model), "a": f"{archive}."}, seconds=240)
    run("cp", f"{archive}.", mount.path / "incoming", seconds=240)
    assert peak_memory(mount.pid) < 120e6, f"{peak_memory(mount.pid):,}"
    run("cmp", model / "noise", store / "m/v1/noise", seconds=120)
    assert (store / "m/v1/zeros").stat().st_size == zeros << 20


def test_a_program_that_goes_on_after_its_error_takes_no_memory(store: Path, mounted: Mount) -> None:
    """The program gets the same error again and again. Each repeat used to be kept in memory."""
    mount = mounted(store, own_process=True)
    mount.expect_log("junk was not imported", times=1)
    descriptor = os.open(mount.path / "incoming/junk", os.O_WRONLY | os.O_CREAT)

    def memory_after(failures: int) -> int:
        for _ in range(failures):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"junk")
                return 0
        return peak_memory(mount.pid)

    os.write(descriptor, b"junk" * 500_000)
    begun = wait_until(lambda: memory_after(1000), 10, "it is known to be no archive")
    assert memory_after(20_000) - begun < 10 << 20
    with pytest.raises(OSError, match="Invalid argument"):
        os.close(descriptor)


def test_archives_that_need_most_memory_take_turns(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Each needs 64 MiB, like those of `xz -9`. A stalled one blocks nobody, and is imported later."""
    mount = mounted(store, own_process=True)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 64 << 20}]
    uploads = {}
    for number in range(3):
        tag = f"m{number}:v1"
        # The noise is longer than a MiB: the reader behind the writer wakes only that often.
        content = tar_with(member("zeros", bytes(70 << 20)), member("noise", os.urandom(3 << 20)), tag=tag)
        uploads[tag] = lzma.compress(content, filters=filters)
    target, stalled = mount.path / "incoming/stalled", uploads.pop("m0:v1")
    with slow_copy(target, tmp_path / "pipe") as feed:
        feed.write(stalled[:-200])
        wait_until(lambda: staged_bytes(store) > 60 << 20, 30, "it is staged while it arrives")
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda tag: put(mount, tag, uploads[tag]), uploads)) == [0] * 2
        assert not (store / "m0").exists()
        feed.write(stalled[-200:])
    assert sorted(entry.name for entry in store.iterdir()) == [f"m{number}" for number in range(3)]
    assert peak_memory(mount.pid) < 120e6, f"{peak_memory(mount.pid):,}"
    nothing_is_staged(mount)


def test_files_on_their_way_take_no_more_and_more_descriptors(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Open descriptors stay bounded when a directory with .git or .venv is copied. The first file is a model all the
    same."""
    mount = mounted(store, prefix=["prlimit", "--nofile=900:900"])
    run("cp", made_tar(tmp_path, "m:v1"), mount.path / "incoming/.m.tar")
    run("mkdir", mount.path / "incoming/.git")
    for number in range(1000):
        assert put(mount, f".git/{number}", b"x") == 0
    assert len(os.listdir(f"/proc/{mount.pid}/fd")) < 600
    run("mv", mount.path / "incoming/.m.tar", mount.path / "incoming/m.tar")
    same(tmp_path / "made/m/v1", store / "m/v1")
