"""A model is replaced while readers have it open: old bytes, then ESTALE; never an early end, never new bytes."""

import errno
import os
import random
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines import LIBFUSE2, cases_by_engine
from tests.harness import Mounted, make_model, run, wait_until
from tests.waiting import let_a_change_be_seen

SIZE = 4 << 20
REPLACEMENTS = {"equal": SIZE, "smaller": 1 << 20, "larger": 8 << 20}


@dataclass
class Bytes:
    """The bytes that a reader got, up to the end of the file or an error."""

    content: bytes
    error: str | None

    def only(self, fill: bytes) -> bool:
        """Tell whether all bytes of weights are of one generation; headers and checksums are in between."""
        other = b"B" if fill == b"A" else b"A"
        return self.content.count(other) < 1000


def read_on(descriptor: int) -> Bytes:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, 100_000)
        except OSError as error:
            return Bytes(b"".join(parts), errno.errorcode[error.errno or 0])
        if not part:
            return Bytes(b"".join(parts), None)
        parts.append(part)


def open_and_read(path: Path) -> Bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        return Bytes(b"", errno.errorcode[error.errno or 0])
    try:
        return read_on(descriptor)
    finally:
        os.close(descriptor)


def weights(fill: bytes, size: int) -> dict[str | bytes, bytes | int]:
    return {"weights.bin": fill * size}


def replace(store: Path, tag: str, fill: bytes, size: int) -> None:
    """Replace a model like `bentoml models delete` and a new save, with the same creation time and mtimes."""
    name, version = tag.split(":")
    folder = store / name / version
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    aside = store.parent / "aside"
    folder.rename(aside)
    make_model(store, tag, weights(fill, size))
    for file, mtime_ns in times.items():
        os.utime(folder / file, ns=(mtime_ns, mtime_ns))
    shutil.rmtree(aside)


# The options make fills countable, and make the daemon read the files. Readers of files that the kernel reads itself
# get all old bytes.
STORED = ("--compression", "never", "--no-passthrough")
SHOWN = ("m-v1.bentomodel", "m-v1.tar", "m-v1.tar.gz", "m-v1.zip", "files/weights.bin")


@cases_by_engine("shown", SHOWN, ["m-v1.tar", "files/weights.bin"])
def test_replaced_under_readers(
    store: Path, mounted: Callable[..., Mounted], shown: str, engine: tuple[str, ...]
) -> None:
    for name in REPLACEMENTS:
        make_model(store, f"{name}:v1", weights(b"A", SIZE))
    mount = mounted(store, options=[*STORED, *engine])
    paths = {name: mount.path / "models" / name / "v1" / shown.replace("m-", f"{name}-") for name in REPLACEMENTS}
    old_sizes = {name: path.stat().st_size for name, path in paths.items()}
    halfway = {name: os.open(path, os.O_RDONLY) for name, path in paths.items()}
    whole = {name: os.open(path, os.O_RDONLY) for name, path in paths.items()}
    for name in REPLACEMENTS:
        assert len(os.read(halfway[name], 1 << 20)) == 1 << 20
        assert read_on(whole[name]).error is None  # all pages are in the kernel's cache now

    for name, size in REPLACEMENTS.items():
        replace(store, f"{name}:v1", b"B", size)
    let_a_change_be_seen()

    for name, path in paths.items():
        new_size = path.stat().st_size
        assert (new_size == old_sizes[name]) == (name == "equal")
        new = os.open(path, os.O_RDONLY)
        content = read_on(new)
        assert content.error is None
        assert len(content.content) == new_size == os.fstat(new).st_size
        assert content.only(b"B")

        rest = read_on(halfway[name])
        assert rest.only(b"A")
        # Pages that the other reader left in the cache are old bytes. The whole file may be cached.
        assert rest.error == "ESTALE" or (1 << 20) + len(rest.content) == old_sizes[name]
        os.lseek(whole[name], 0, os.SEEK_SET)
        again = read_on(whole[name])
        assert again.only(b"A")
        assert again.error == "ESTALE" or len(again.content) == old_sizes[name]
        os.posix_fadvise(whole[name], 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError, match="Stale file handle"):
            os.pread(whole[name], 100_000, SIZE // 2)
        assert read_on(os.open(path, os.O_RDONLY)).content == content.content
    for descriptor in [*halfway.values(), *whole.values()]:
        os.close(descriptor)


@cases_by_engine("shown", SHOWN, ["m-v1.tar"])
def test_opened_right_after_a_replacement(
    store: Path, mounted: Callable[..., Mounted], shown: str, engine: tuple[str, ...]
) -> None:
    """The kernel still trusts its cached attributes of the old model: whatever the answer, never a mixture."""
    names = ("read", "closed")
    for name in names:
        make_model(store, f"{name}:v1", weights(b"A", SIZE))
    mount = mounted(store, options=[*STORED, *engine])
    paths = {name: mount.path / "models" / name / "v1" / shown.replace("m-", f"{name}-") for name in names}
    for fill, size in ((b"B", SIZE), (b"A", SIZE // 2)):
        for name, path in paths.items():
            old = os.open(path, os.O_RDONLY)
            os.read(old, 1 << 20)
            if name == "closed":
                os.close(old)
            replace(store, f"{name}:v1", fill, size)
            content = open_and_read(path)
            assert content.only(b"A") or content.only(b"B")
            assert content.error == "ESTALE" or (content.only(fill) and len(content.content) >= size)
        let_a_change_be_seen()
        for path in paths.values():
            settled = Bytes(path.read_bytes(), None)
            assert settled.only(fill)
            assert len(settled.content) >= size


@cases_by_engine(
    "shown",
    ["models/m/v1/m-v1.tar", "by-format/tar/m/m-v1.tar", "models/m/v1/files/weights.bin"],
    ["models/m/v1/m-v1.tar"],
)
def test_model_deleted_and_made_again_under_a_reader(
    store: Path, mounted: Callable[..., Mounted], shown: str, engine: tuple[str, ...]
) -> None:
    """The name was gone in between: only the reader held the old node."""
    make_model(store, "m:v1", weights(b"A", SIZE))
    make_model(store, "m:v0", {}, latest=False)  # so that the directory around it stays
    mount = mounted(store, options=["--no-passthrough", *engine])
    path = mount.path / shown
    old = os.open(path, os.O_RDONLY)
    os.read(old, 4096)
    shutil.rmtree(store / "m" / "v1")
    wait_until(lambda: not path.exists(), 10, "the deleted model is gone")
    make_model(store, "m:v1", weights(b"B", SIZE // 2))
    wait_until(path.exists, 10, "the new model is shown")
    content = open_and_read(path)
    if content.error == "ENOENT":  # with libfuse2, an open may meet the moment in which the old node leaves the name
        content = open_and_read(path)
    assert content.error is None
    assert content.only(b"B")
    assert len(content.content) == path.stat().st_size
    rest = read_on(old)
    os.close(old)
    assert rest.only(b"A")
    assert rest.error == "ESTALE"


def test_a_slow_lookup_that_ends_after_the_replacement(store: Path, mounted: Callable[..., Mounted]) -> None:
    """Two lookups run at once, and the first began before the change. The reported size fits the bytes."""
    many: dict[str | bytes, bytes | int] = {f"{number:05}": b"x" for number in range(20_000)}
    make_model(store, "m:v1", many)
    make_model(store.parent / "other", "m:v1", many | {"more.bin": 5_000_000})
    mount = mounted(store)
    path = mount.path / "by-format/tar/m/m-v1.tar"
    sizes = {path.stat().st_size}
    for _ in range(2):
        path.stat()
        let_a_change_be_seen()
        looker = threading.Thread(target=lambda: [path.stat() for _ in range(3)])
        looker.start()
        time.sleep(0.1)  # let the lookups begin: each reads 20,000 files' times
        os.rename(store / "m/v1", store.parent / "aside")
        os.rename(store.parent / "other/m/v1", store / "m/v1")
        os.rename(store.parent / "aside", store.parent / "other/m/v1")
        content = open_and_read(path)
        looker.join()
        assert content.error in (None, "ESTALE")
        if content.error is None:
            sizes.add(len(content.content))
        let_a_change_be_seen()
        assert len(path.read_bytes()) == path.stat().st_size
        sizes.add(path.stat().st_size)
        with tarfile.open(path) as tar:
            assert len(tar.getnames()) in (20_001, 20_002)
    assert len(sizes) == 2


def test_nothing_outside_of_the_mount_is_ever_unlinked(store: Path, mounted: Callable[..., Mounted]) -> None:
    """The mount is taken away under a process that goes on in it. Its path now holds another program's files."""
    make_model(store, "m:v1", weights(b"A", SIZE))
    mount = mounted(store, options=LIBFUSE2)
    folder = os.open(mount.path / "models/m/v1", os.O_RDONLY)
    held = os.open("m-v1.tar", os.O_RDONLY, dir_fd=folder)
    run("fusermount", "-u", "-z", mount.path)
    theirs = mount.path / "models/m/v1/m-v1.tar"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    replace(store, "m:v1", b"B", SIZE // 2)
    let_a_change_be_seen()
    with suppress(OSError):
        os.stat("m-v1.tar", dir_fd=folder)
    time.sleep(0.5)  # let the daemon do what it must not do
    assert theirs.read_text() == "precious"
    os.close(held)
    os.close(folder)
    assert mount.process.wait(15) == 0
    shutil.rmtree(mount.path / "models")


@pytest.mark.parametrize("attempt", range(5))
def test_sigterm_while_paths_are_being_detached(store: Path, mounted: Callable[..., Mounted], attempt: int) -> None:
    """Readers hold old models, lookups of the new ones detach the old ones, and the signal comes in between."""
    tags = [f"m{number}:v1" for number in range(20)]
    for tag in tags:
        make_model(store, tag, weights(b"A", 200_000))
    mount = mounted(store, options=LIBFUSE2)
    paths = [mount.archive(tag, ".tar") for tag in tags]
    held = [os.open(path, os.O_RDONLY) for path in paths]
    for descriptor in held:
        os.pread(descriptor, 1000, 0)
    for tag in tags:
        replace(store, tag, b"B", 300_000)
    let_a_change_be_seen()

    def look(path: Path) -> None:
        with suppress(OSError):
            path.stat()

    lookers = [threading.Thread(target=look, args=(path,), daemon=True) for path in paths]
    try:
        for looker in lookers:
            looker.start()
        time.sleep(attempt * 0.003)  # another moment at each attempt
        os.kill(mount.pid, signal.SIGTERM)
        assert mount.process.wait(15) == 0, mount.log()
    finally:
        for descriptor in held:
            with suppress(OSError):  # the mount has gone
                os.close(descriptor)
    for looker in lookers:
        looker.join(15)
        assert not looker.is_alive()
    mount.stop()  # nothing stays mounted, and the log holds nothing serious


def test_same_bytes_over_remounts(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"a.bin": os.urandom(5_000_000), "b/c.bin": os.urandom(70_000), "empty/": b""})
    mount = mounted(store)
    shown = [path for path in sorted((mount.path / "models/m/v1").iterdir()) if path.is_file()]
    first = {path.name: path.read_bytes() for path in shown}
    inodes = {path.name: path.stat().st_ino for path in shown}
    assert len(first) == 9
    mount.stop()
    mount.start()
    assert {path.name: path.read_bytes() for path in shown} == first
    assert {path.name: path.stat().st_ino for path in shown} == inodes


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_replaced_under_a_reader_of_what_is_compressed(
    store: Path, mounted: Callable[..., Mounted], suffix: str
) -> None:
    """A compressed archive's size changes with its replacement."""

    def words(seed: int) -> dict[str | bytes, bytes | int]:
        dice = random.Random(seed)
        choice = [dice.randbytes(4).hex().encode() for _ in range(1000)]
        return {"text": b" ".join(dice.choices(choice, k=700_000)), "small": b"%d" % seed}

    folder = make_model(store, "m:v1", words(1))
    mount = mounted(store)
    path = mount.archive("m:v1", suffix)
    old = path.read_bytes()
    assert len(old) == path.stat().st_size < 4 << 20
    with path.open("rb", buffering=0) as reader:
        assert reader.read(100_000) == old[:100_000]
        shutil.rmtree(folder)
        make_model(store, "m:v1", words(2))
        let_a_change_be_seen()
        new = path.read_bytes()
        assert len(new) == path.stat().st_size
        assert new != old
        run("gzip" if suffix == ".tar.gz" else "unzip", "-t", path)
        rest = read_on(reader.fileno())
        assert old[100_000:].startswith(rest.content)
        assert rest.error == "ESTALE" or len(rest.content) == len(old) - 100_000
