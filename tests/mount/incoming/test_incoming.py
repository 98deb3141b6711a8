"""The promises of incoming/: outcomes as errno and in words, taken tags, concurrent uploads, any order, bounded memory,
directories, checksums, and malicious archives."""

import contextlib
import errno
import fcntl
import functools
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import re
import shutil
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from scripts.sample_store import model_yaml
from tests.harness import ROOT, Mounted, ended, make_model, run, wait_until
from tests.incoming import (
    area_of,
    cp,
    imports,
    imports_command,
    made,
    made_tar,
    peak_memory,
    same,
    spooled,
    staged,
    tar_of,
)

Mount = Callable[..., Mounted]


def yaml_of(tag: str) -> bytes:
    return model_yaml(tag, "2026-01-02T03:04:05.678901+00:00").encode()


def put(mount: Mounted, name: str, content: bytes) -> int:
    """Write a file into incoming/ like a program that checks every error. Return 0 or the first errno."""
    try:
        descriptor = os.open(mount.path / "incoming" / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    except OSError as error:
        return error.errno or -1
    number = 0
    view = memoryview(content)
    try:
        while view:
            view = view[os.write(descriptor, view[: 1 << 20]) :]
    except OSError as error:
        number = error.errno or -1
    try:
        os.close(descriptor)
    except OSError as error:
        number = number or error.errno or -1
    return number


def in_incoming(mount: Mounted) -> list[str]:
    return sorted(os.listdir(mount.path / "incoming"))


def nothing_is_staged(mount: Mounted) -> None:
    wait_until(lambda: staged(area_of(mount.store)) == [], 10, "nothing is left in staging")


@contextlib.contextmanager
def slow_copy(target: Path, pipe: Path) -> Iterator[BinaryIO]:
    """Yield a file whose content another program writes to `target`. That program has no other upload. A descriptor of
    this process would be inherited by every child, and each close in a child ends the upload."""
    os.mkfifo(pipe)
    with ended(subprocess.Popen(["bash", "-c", 'cat "$0" > "$1"', pipe, target])) as copier:
        with pipe.open("wb", 0) as feed:
            yield feed
        assert copier.wait(60) == 0


# Outcomes.


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar_with(*members: tuple[tarfile.TarInfo, bytes], tag: str = "bad:v1", form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of a model with these additional members."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form) as tar:
        for info, content in (member("model.yaml", yaml_of(tag)), member("w", b"w" * 1000), *members):
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def zip_with(*names: str, content: bytes = b"x") -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.yaml", yaml_of("bad:v1"))
        for name in names:
            file.writestr(name, content)
    return archive.getvalue()


def tar_of_yaml(text: str) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info, content = member("model.yaml", text.encode())
        tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


def stored_zip_with_wrong_crc() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.writestr("model.yaml", yaml_of("bad:v1"))
        file.writestr("w", b"needle in the haystack" * 100)
    content = archive.getvalue()
    return flipped(content, content.index(b"needle") + 3)


def overlapping_zip() -> bytes:
    """Return a zip with two entries that share the same bytes, like a zip bomb."""
    content = bytearray(zip_with("a", "b", content=b"y" * 100_000))
    entries = [at for at in range(len(content)) if content[at : at + 4] == b"PK\x01\x02"]
    content[entries[2] + 42 : entries[2] + 46] = content[entries[1] + 42 : entries[1] + 46]
    return bytes(content)


def tar_with_size_field(field: bytes) -> bytes:
    content = bytearray(tar_with(member("huge", b"h" * 600)))
    at = content.index(b"huge\0")
    content[at + 124 : at + 136] = field
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    return bytes(content)


BOMB = (
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{one}: &{one} [{','.join([f'*{other}'] * 9)}]\n" for other, one in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + yaml_of("bad:v1").decode()
)

REFUSED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "no archive": (lambda: b"These are no bytes of an archive.\n" * 100, errno.EINVAL, "no archive"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(5000), errno.EINVAL, "no archive"),
    "no model.yaml": (lambda: _no_model_yaml(), errno.EINVAL, "model.yaml"),
    "a bad tag": (lambda: tar_with(tag="Upper Case:v1"), errno.EINVAL, "tag|name"),
    "a tag with a newline": (
        lambda: tar_of_yaml(yaml_of("bad:v1").decode().replace("bad", '"bad\\n"')),
        errno.EINVAL,
        "tag|name",
    ),
    "yaml that blows up": (lambda: tar_of_yaml(BOMB), errno.EINVAL, "model.yaml"),
    "yaml with a Python tag": (
        lambda: tar_of_yaml("x: !!python/object/apply:os.system ['touch /tmp/pwned']\n" + yaml_of("bad:v1").decode()),
        errno.EINVAL,
        "model.yaml",
    ),
    "a large model.yaml": (lambda: gzip.compress(tar_of_yaml("#" * 100_000_000), 1), errno.EINVAL, "model.yaml"),
    "tar cut short": (lambda: tar_with(member("z", b"z" * 5000))[:4000], errno.EBADMSG, "cut short|ends"),
    "gzip cut short": (lambda: gzip.compress(tar_with())[:-20], errno.EBADMSG, "cut short|ends|damaged"),
    "gzip with a wrong CRC": (
        lambda: flipped(gzip.compress(tar_with()), -6 % len(gzip.compress(tar_with()))),
        errno.EBADMSG,
        "damaged|CRC",
    ),
    "xz cut short": (lambda: lzma.compress(tar_with())[:-10], errno.EBADMSG, "cut short|ends|damaged"),
    "xz with a wrong byte": (lambda: flipped(lzma.compress(tar_with()), 100), errno.EBADMSG, "damaged"),
    "zip cut short": (lambda: zip_with("a")[:-30], errno.EBADMSG, "cut short|damaged|ends"),
    "zip with a wrong CRC": (stored_zip_with_wrong_crc, errno.EBADMSG, "CRC"),
    "an absolute member": (lambda: tar_with(member("/etc/pwned", b"x")), errno.EINVAL, "leads out"),
    "a member above": (lambda: tar_with(member("a/../../pwned", b"x")), errno.EINVAL, "leads out"),
    "a zip member above": (lambda: zip_with("../pwned"), errno.EINVAL, "leads out"),
    "a symbolic link out": (
        lambda: tar_with(member("l", type=tarfile.SYMTYPE, linkname="../../../../etc/passwd")),
        errno.EINVAL,
        "out of the model",
    ),
    "an absolute symbolic link": (
        lambda: tar_with(member("l", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        errno.EINVAL,
        "out of the model",
    ),
    "a hard link out": (
        lambda: tar_with(member("l", type=tarfile.LNKTYPE, linkname="../../etc/passwd")),
        errno.EINVAL,
        "out of the model",
    ),
    "written through a link": (
        lambda: tar_with(member("l", type=tarfile.SYMTYPE, linkname="/tmp"), member("l/pwned", b"x")),
        errno.EINVAL,
        "link",
    ),
    "a device": (lambda: tar_with(member("d", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), errno.EINVAL, "device"),
    "a fifo": (lambda: tar_with(member("f", type=tarfile.FIFOTYPE)), errno.EINVAL, "device|pipe"),
    "a file as a folder": (lambda: tar_with(member("w/below", b"x")), errno.EINVAL, "folder"),
    "a huge size": (
        lambda: tar_with_size_field(b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7),
        errno.EBADMSG,
        "size|damaged|cut short",
    ),
    "a negative size": (lambda: tar_with_size_field(b"\xff" * 11 + b"\xf0"), errno.EBADMSG, "size|damaged"),
    "overlapping entries": (overlapping_zip, errno.EBADMSG, "overlap|damaged"),
    "too many members": (
        lambda: tar_with(*(member(f"e{number}") for number in range(120))),
        errno.EFBIG,
        "--max-members",
    ),
    "too large": (lambda: gzip.compress(tar_with(member("z", bytes(60_000_000))), 1), errno.EFBIG, "--max-expanded"),
}


def _no_model_yaml() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(*_with_stream(member("weights", b"w")))
    return archive.getvalue()


def _with_stream(pair: tuple[tarfile.TarInfo, bytes]) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return pair[0], io.BytesIO(pair[1])


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount with low limits, whose store has one model."""
    base = tmp_path_factory.mktemp("strict")
    store = base / "bentoml" / "models"
    make_model(store, "good:v1", {"w": b"good"})
    options = ["--max-members", "100", "--max-expanded", "50M"]
    with Mounted(
        store, base / "mount", options=options, limit=900.0
    ) as mounted:  # it lives as long as this module runs
        mounted.allow_log("was not imported")
        yield mounted


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(strict: Mounted, what: str) -> None:
    """A refusal has an errno, a sentence beside the file, and a record. Nothing of the upload stays anywhere."""
    build, number, words = REFUSED[what]
    content = build()
    for left in in_incoming(strict):
        os.unlink(strict.path / "incoming" / left)
    before = sorted(strict.store.rglob("*"))
    name = f"{what}.tar"
    assert errno.errorcode.get(put(strict, name, content)) == errno.errorcode[number]
    note = (strict.path / "incoming" / f"{name}.error").read_text()
    assert note.startswith(f"{name} was not imported: ")
    assert re.search(words, note), note
    receipt = imports(strict)[-1]
    assert (receipt["file"], receipt["state"], receipt["errno"]) == (name, "refused", errno.errorcode[number])
    assert receipt["error"] in note
    assert name in strict.log()
    assert sorted(strict.store.rglob("*")) == before
    nothing_is_staged(strict)
    assert sorted(path.name for path in spooled(area_of(strict.store))) == [name, f"{name}.error"]
    assert not Path("/tmp/pwned").exists()
    # The user can remove the file. Its note goes with it.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(strict.path / "incoming" / name)
    assert in_incoming(strict) == []


def test_a_new_upload_takes_the_reason_of_the_last_one_away(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    mount.expect_log("not imported", times=1)
    archive = made_tar(tmp_path, "m:v1", {"w": b"w"})
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 100)
    target = mount.path / "incoming/m.tar"
    assert cp(tmp_path / "bad.tar", target).returncode == 1
    note = mount.path / "incoming/m.tar.error"
    assert "no archive" in note.read_text()
    with target.open("wb", buffering=0) as file:
        file.write(archive.read_bytes())
        assert not note.exists()
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_a_refused_file_can_be_copied_again(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    mount.expect_log("m-v1.tar was not imported", times=1)
    whole = made_tar(tmp_path, "m:v1").read_bytes()
    assert put(mount, "m-v1.tar", whole[:2000]) == errno.EBADMSG
    assert in_incoming(mount) == ["m-v1.tar", "m-v1.tar.error"]
    assert put(mount, "m-v1.tar", whole) == 0
    assert in_incoming(mount) == []
    assert [receipt["state"] for receipt in imports(mount)] == ["refused", "imported"]
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_a_failed_close_is_not_final(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """More bytes may come: they are appended, and the whole is imported."""
    mount = mounted(store)
    mount.expect_log("was not imported")
    whole = made_tar(tmp_path, "m:v1", {"w": os.urandom(300_000)}).read_bytes()
    assert put(mount, "m.tar", whole[:200_000]) == errno.EBADMSG
    with open(mount.path / "incoming/m.tar", "ab") as file:
        file.write(whole[200_000:])
    same(tmp_path / "made/m/v1", store / "m/v1")
    assert in_incoming(mount) == []


def test_what_is_known_to_be_bad_fails_the_next_write(store: Path, mounted: Mount) -> None:
    """The next write fails, for programs that ignore the error of close."""
    mount = mounted(store)
    mount.expect_log("was not imported", times=1)
    content = tar_with(member("../out", b"x")) + bytes(1_000_000)

    def write_on() -> None:
        with open(mount.path / "incoming/m.tar", "wb", 0) as file:
            file.write(content)
            for _ in range(2000):
                file.write(bytes(100_000))
                time.sleep(0.005)
            pytest.fail("no write was refused")

    with pytest.raises(OSError, match="Invalid argument") as raised:
        write_on()
    assert raised.value.errno == errno.EINVAL
    assert "leads out" in (mount.path / "incoming/m.tar.error").read_text()
    assert imports(mount)[-1]["errno"] == "EINVAL"
    nothing_is_staged(mount)


def test_imports_table_and_follow(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    mount.expect_log("bad.tar was not imported", times=1)
    assert imports(mount) == []
    follower = subprocess.Popen(
        [*map(str, imports_command(mount)), "--follow", "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    lines: list[dict[str, object]] = []

    def follow() -> None:
        assert follower.stdout is not None
        lines.extend(json.loads(line) for line in follower.stdout)

    with ended(follower):  # type: ignore[arg-type]
        reader = threading.Thread(target=follow)
        reader.start()
        time.sleep(1.5)
        content = made_tar(tmp_path, "m:v1", {"w": os.urandom(2_000_000)}).read_bytes()
        with slow_copy(mount.path / "incoming/slow.tar", tmp_path / "pipe") as file:
            file.write(content[:1_000_000])
            # Running imports are listed with their progress.
            wait_until(
                lambda: [r for r in imports(mount) if r["received"] >= 900_000],
                20,
                "the progress is told",
                interval=0.3,
            )
            running = imports(mount)[-1]
            assert (running["file"], running["ended"], running["state"]) == ("slow.tar", None, "receiving")
            file.write(content[1_000_000:])
        assert put(mount, "bad.tar", b"bad" * 100) == errno.EINVAL
        wait_until(
            lambda: {line["state"] for line in lines} >= {"receiving", "imported", "refused"}, 20, "all is followed"
        )
    reader.join(10)
    table = run(*imports_command(mount), cwd=ROOT).stdout.splitlines()
    assert table[0].split() == ["Started", "File", "Outcome", "Model", "Received", "Reason"]
    assert "slow.tar" in table[1]
    assert "m:v1" in table[1]
    assert "bad.tar" in table[2]
    assert "no archive" in table[2]
    mount.stop()
    kept = imports(mount)
    assert [(receipt["file"], receipt["state"]) for receipt in kept] == [
        ("slow.tar", "imported"),
        ("bad.tar", "refused"),
    ]
    mount._expectations.clear()
    mount.start()
    assert imports(mount) == kept


# Tags that are taken.


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


# Concurrent uploads.


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
            time.sleep(0.3)
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
        time.sleep(0.05)
    assert len(in_incoming(mount)) == 12
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda upload: upload[0].close(), uploads))
    for number in range(12):
        same(tmp_path / f"made/m{number}/v1", store / f"m{number}/v1")
    assert in_incoming(mount) == []
    nothing_is_staged(mount)


def test_what_an_imported_name_replaces_gives_its_room_back(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
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
    for kind in ("", "xz", "gz"):
        name = f"m{kind}"
        files: dict[str | bytes, bytes | int] = {f"{number:03}": os.urandom(500_000) for number in range(30)}
        model = made(tmp_path, f"{name}:v1", files)
        content = tar_of(model, tmp_path / f"{name}.tar", f"w:{kind}" if kind else "w").read_bytes()
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
        ("tar c -C $m . | pigz -1 > $a", 1400, 100),
        ("tar c -C $m . | xz -9 -T1 > $a", 200, 8),
        ("cd $m && zip -1qr $a .", 300, 50),
    ],
    ids=["gzip", "xz -9", "zip"],
)
def test_memory_is_bounded(store: Path, mounted: Mount, tmp_path: Path, pack: str, zeros: int, noise: int) -> None:
    """Memory stays bounded for 1.5 GiB, even for the format that needs most memory to decode: xz -9 has a window of 64
    MiB. Sizes in MiB."""
    mount = mounted(store)
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
    mount = mounted(store)
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
    mount = mounted(store)
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


# Directories.


def test_folder_is_imported_at_sync(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"w": os.urandom(200_000), "d/e": b"e", "empty/": b""})
    run("cp", "-r", model, mount.path / "incoming/any name")
    time.sleep(1.5)
    assert not (store / "m").exists()
    assert in_incoming(mount) == ["any name"]
    run("sync", mount.path / "incoming/any name")
    same(model, store / "m/v1")
    assert in_incoming(mount) == []
    assert imports(mount)[-1]["tag"] == "m:v1"
    nothing_is_staged(mount)
    assert mount.shows("m:v1")


@pytest.mark.parametrize(
    ("text", "number"),
    [("name: [", errno.EINVAL), ("name: Bad Name\nversion: v1\n", errno.EINVAL), (None, 0)],
    ids=["malformed", "bad tag", "none"],
)
def test_folder_that_is_no_model(store: Path, mounted: Mount, tmp_path: Path, text: str | None, number: int) -> None:
    """sync gets the errno, and the directory stays. A directory without model.yaml is simply not a model."""
    mount = mounted(store)
    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    (folder / "d/w").write_bytes(b"w")
    if text is not None:
        (folder / "model.yaml").write_text(text)
        mount.expect_log("folder was not imported")
    run("cp", "-r", folder, mount.path / "incoming")
    done = subprocess.run(
        ["sync", mount.path / "incoming/folder"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (os.strerror(number) in done.stderr) if number else done.returncode == 0, done.stderr
    same(folder, mount.path / "incoming/folder")
    assert os.listdir(store) == []
    if number:
        assert in_incoming(mount) == ["folder", "folder.error"]
    nothing_is_staged(mount)


def test_folder_of_a_taken_tag(store: Path, mounted: Mount, tmp_path: Path) -> None:
    make_model(store, "m:v1", {"w": b"old"})
    mount = mounted(store)
    mount.expect_log("folder was not imported: m:v1 is in the store")
    run("cp", "-r", made(tmp_path, "m:v1", {"w": b"new"}), mount.path / "incoming/folder")
    done = subprocess.run(
        ["sync", mount.path / "incoming/folder"], capture_output=True, text=True, timeout=30, check=False
    )
    assert "File exists" in done.stderr
    assert (store / "m/v1/w").read_bytes() == b"old"
    assert (mount.path / "incoming/folder/w").read_bytes() == b"new"
    run("rm", "-r", mount.path / "incoming/folder")
    assert in_incoming(mount) == ["folder.error"]


def test_several_folders_at_one_sync(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """`sync incoming/all`, and the layout of by-format/folder with its `latest` files."""
    mount = mounted(store)
    for tag in ("a:v1", "a:v2", "b:v1"):
        made(tmp_path, tag)
    run("cp", "-r", tmp_path / "made", mount.path / "incoming/all")
    run("sync", mount.path / "incoming/all")
    for tag in ("a/v1", "a/v2", "b/v1"):
        same(tmp_path / "made" / tag, store / tag)
    assert (store / "a/latest").read_text() == "v2"


def test_settle(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """A directory is imported after its quiet time. Not while a file is open, and not without model.yaml."""
    mount = mounted(store, options=["--settle", "1.5"])
    model = made(tmp_path, "m:v1", {"w": b"w" * 100_000, "d/e": b"e"})
    run("cp", "-r", made(tmp_path, "busy:v1"), mount.path / "incoming/busy")
    (mount.path / "incoming/unnamed").mkdir()
    shutil.copy(model / "w", mount.path / "incoming/unnamed/w")
    with open(mount.path / "incoming/busy/open", "wb", 0) as file:
        file.write(b"open")
        run("cp", "-r", model, mount.path / "incoming/m")
        begun = time.monotonic()
        assert not (store / "m").exists()
        wait_until((store / "m/v1").exists, 20, "the quiet folder is imported")
        assert time.monotonic() - begun > 1.0
        time.sleep(2.5)
        assert sorted(os.listdir(store)) == ["m"]
        assert in_incoming(mount) == ["busy", "unnamed"]
        file.write(b" and closed")
    same(model, store / "m/v1")
    wait_until((store / "busy/v1/open").exists, 20, "the other one is imported when it is closed")
    shutil.copy(made(tmp_path, "unnamed:v1") / "model.yaml", mount.path / "incoming/unnamed")
    wait_until((store / "unnamed/v1/w").exists, 20, "and the third with its model.yaml")
    assert in_incoming(mount) == []


def test_settle_is_off_by_default_and_waits_for_what_still_comes(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store, options=["--settle", "2"])
    (mount.path / "incoming/m").mkdir()
    shutil.copy(made(tmp_path, "m:v1") / "model.yaml", mount.path / "incoming/m")
    for number in range(6):  # never two quiet seconds
        (mount.path / f"incoming/m/{number}").write_bytes(b"more")
        time.sleep(0.7)
        assert not (store / "m").exists()
    wait_until((store / "m/v1/5").exists, 20, "it is imported")
    assert len(os.listdir(store / "m/v1")) == 7


def test_settle_leaves_a_folder_on_its_way_alone(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """A directory with a temporary name is left alone, however long its copy stalls. It is imported under its final
    name."""
    mount = mounted(store, options=["--settle", "1"])
    run("cp", "-r", made(tmp_path, "m:v1"), mount.path / "incoming/m.part")
    time.sleep(4)
    assert os.listdir(store) == []
    (mount.path / "incoming/m.part/more").write_bytes(b"more")
    run("mv", mount.path / "incoming/m.part", mount.path / "incoming/m")
    wait_until((store / "m/v1/more").exists, 10, "it is imported")
    assert in_incoming(mount) == []


def test_settle_refuses_a_folder_once(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """A directory is refused once. It is not read again every few seconds; only after a change in it."""
    make_model(store, "m:v1", {"w": b"old"})
    mount = mounted(store, options=["--settle", "1"])
    mount.expect_log("m was not imported: m:v1 is in the store", times=2)
    run("cp", "-r", made(tmp_path, "m:v1", {"w": b"new"}), mount.path / "incoming/m")
    wait_until(lambda: imports(mount), 10, "it is refused")
    time.sleep(4)
    assert len(imports(mount)) == 1
    (mount.path / "incoming/m/more").write_bytes(b"more")
    wait_until(lambda: len(imports(mount)) == 2, 10, "it is looked at again")
    time.sleep(4)
    assert len(imports(mount)) == 2


# Checksums that came along.


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


# Archives in directories, and directories with archives in them.


def test_archives_in_folders_are_imported_each_by_itself(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    for number in range(3):
        target = tmp_path / "in" / "deep" / f"m{number}"
        target.mkdir(parents=True)
        shutil.move(made_tar(tmp_path, f"m{number}:v1"), target)
    shutil.move(made_tar(tmp_path, "top:v1"), tmp_path / "in" / "top.tar")
    run("cp", "-r", tmp_path / "in", mount.path / "incoming/")
    assert sorted(os.listdir(store)) == ["m0", "m1", "m2", "top"]
    assert [receipt["file"] for receipt in imports(mount)].count("in/deep/m1/m1-v1.tar") == 1
    run("rsync", "-a", tmp_path / "in", mount.path / "incoming/")
    assert (mount.path / "incoming/in/deep/m1/m1-v1.tar").stat().st_size > 0


@pytest.mark.parametrize("change", ["model.yaml", "weights"])
def test_an_archive_in_a_folder_whose_tag_is_taken_is_refused(
    store: Path, mounted: Mount, tmp_path: Path, change: str
) -> None:
    """Only a file that is no archive of a model is kept unchanged. Copying a model's archive in reports its refusal."""
    time_of = {"creation_time": "2026-02-02T00:00:00+00:00"} if change == "model.yaml" else {}
    make_model(store, "m:v1", {"w": b"old"}, **time_of)
    mount = mounted(store)
    mount.expect_log("in/m-v1.tar was not imported: m:v1 is in the store", times=1)
    (tmp_path / "in").mkdir()
    shutil.move(made_tar(tmp_path, "m:v1"), tmp_path / "in")
    copied = cp("-r", tmp_path / "in", mount.path / "incoming")
    assert copied.returncode == 1
    assert "File exists" in copied.stderr
    assert "is in the store" in (mount.path / "incoming/in/m-v1.tar.error").read_text()


@pytest.mark.parametrize("form", ["w", "w:gz", "w:xz", "zip"])
def test_a_damaged_archive_in_a_folder_is_refused_if_it_is_a_models(
    store: Path, mounted: Mount, tmp_path: Path, form: str
) -> None:
    """Copying a backup in reports the refused archives. A file that may be a model's own is kept unchanged."""
    mount = mounted(store)
    mount.expect_log("in/m.tar.gz was not imported: the archive is", times=1)
    (tmp_path / "in").mkdir()
    whole = tmp_path / "whole"
    model = made(tmp_path, "m:v1", {"w": os.urandom(300_000)})
    if form == "zip":
        run("zip", "-qr", whole, "model.yaml", "w", cwd=model)
        whole = whole.with_suffix(".zip")
    else:
        tar_of(model, whole, form)
    content = whole.read_bytes()
    (tmp_path / "in/m.tar.gz").write_bytes(content[:200_000])
    (tmp_path / "in/cut-early.tar.gz").write_bytes(content[:20])
    copied = cp("-r", tmp_path / "in", mount.path / "incoming")
    assert copied.returncode == 1
    assert copied.stderr.count("Bad message") == 1
    assert "cut short" in (mount.path / "incoming/in/m.tar.gz.error").read_text()
    assert (mount.path / "incoming/in/cut-early.tar.gz").read_bytes() == content[:20]


def test_a_folder_that_lost_an_archive_is_no_whole_model_under_another_name_either(
    store: Path, mounted: Mount, tmp_path: Path
) -> None:
    """An archive that came before the model.yaml was imported by itself, and is missing in the directory."""
    mount = mounted(store)
    incoming = mount.path / "incoming"
    (incoming / "m.new").mkdir()
    run("cp", made_tar(tmp_path, "inner:v1"), incoming / "m.new")
    run("mv", incoming / "m.new", incoming / "m")
    for path in made(tmp_path, "m:v1").iterdir():
        run("cp", path, incoming / "m")
    mount.expect_log("m was not imported: m/inner-v1.tar came before the model.yaml", times=1)
    assert subprocess.run(["sync", incoming / "m"], check=False, timeout=30).returncode == 1
    assert os.listdir(store) == ["inner"]
    # After its removal, the next directory of that name is another one.
    run("rm", "-r", incoming / "m")
    run("cp", "-r", tmp_path / "made/m/v1", incoming / "m")
    run("sync", incoming / "m")
    same(tmp_path / "made/m/v1", store / "m/v1")


@pytest.mark.parametrize("yaml_first", [True, False])
def test_a_model_that_holds_archives_comes_in_whole(
    store: Path, mounted: Mount, tmp_path: Path, yaml_first: bool
) -> None:
    """A model's own .zip, .tar.gz and .pt files are not models. Once the outer model is known, archives of models
    inside it are not imported, either."""
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"d/e": b"e"})
    with zipfile.ZipFile(model / "weights.pt", "w") as file:
        file.writestr("archive/data.pkl", os.urandom(10_000))
    shutil.copy(model / "weights.pt", model / "tokenizer.zip")
    run("tar", "czf", model / "assets.tar.gz", "-C", model / "d", ".")
    (model / "broken.tar").write_bytes(b"not a tar at all")
    if yaml_first:  # otherwise it is an archive in a directory, and is rightly imported by itself
        shutil.copy(made_tar(tmp_path, "inner:v1"), model / "d" / "inner.tar")
    files = sorted(path.relative_to(model) for path in model.rglob("*") if path.is_file() and path.name != "model.yaml")
    files = [Path("model.yaml"), *files] if yaml_first else [*files, Path("model.yaml")]
    for path in files:
        target = mount.path / "incoming/m" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        run("cp", model / path, target)
    run("sync", mount.path / "incoming/m")
    same(model, store / "m/v1")
    assert in_incoming(mount) == []
    nothing_is_staged(mount)
