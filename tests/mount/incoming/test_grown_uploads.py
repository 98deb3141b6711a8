"""Uploads that are extended before their bytes come. Nothing is imported before all bytes have come, in any order and
over crashes. Files whose zeros were left out on purpose still come in."""

import contextlib
import errno
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bentofs.store.transfer.receipt import ReceiptState
from tests.harness import Mounted, run
from tests.incoming import area_of, cp, made, record, same, spooled, tar_of
from tests.interop.uploads import execute

Mount = Callable[..., Mounted]

WEIGHTS = 1 << 20
_NEVER_CAME = "bytes never came, from byte"


@dataclass(frozen=True)
class Sent:
    """A model to upload as a plain tar, which has no checksum over its content."""

    mount: Mounted
    model: Path
    archive: Path
    content: bytes

    @property
    def target(self) -> Path:
        return self.mount.path / "incoming" / self.archive.name

    @property
    def in_store(self) -> Path:
        return self.mount.store / self.model.parent.name / self.model.name

    def expect_refusals(self) -> None:
        self.mount.expect_log(f"{self.archive.name} was not imported: [0-9,]+ of its [0-9,]+ {_NEVER_CAME}")

    def is_imported(self) -> None:
        same(self.model, self.in_store)
        assert self.archive.name not in os.listdir(self.mount.path / "incoming")
        assert list(area_of(self.mount.store).glob("sessions/*/ranges/*")) == []

    def is_refused(self) -> None:
        assert not self.in_store.exists()
        kept = {path.name: path for path in spooled(area_of(self.mount.store))}
        assert kept[self.archive.name].stat().st_size == len(self.content)
        assert _NEVER_CAME in (self.mount.path / f"incoming/{self.archive.name}.error").read_text()
        last = record(self.mount)[0]
        assert (last.path, last.state, last.errno) == (self.archive.name, ReceiptState.REFUSED, "EBADMSG")
        assert last.error is not None
        assert _NEVER_CAME in last.error


_numbers = itertools.count(1)


def sent_to(mount: Mounted, scratch: Path) -> Sent:
    name = f"m{next(_numbers)}"
    files: dict[str | bytes, bytes | int] = {"w": random.Random(name).randbytes(WEIGHTS), "z": bytes(600_000)}
    model = made(scratch, f"{name}:v1", files)
    archive = tar_of(model, scratch / f"{name}.tar")
    return Sent(mount, model, archive, archive.read_bytes())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    base = tmp_path_factory.mktemp("grown")
    store = base / "bentoml/models"
    store.mkdir(parents=True)
    with Mounted(store, base / "mount") as mount:
        yield mount


@pytest.fixture
def sent(shared: Mounted, tmp_path: Path) -> Sent:
    return sent_to(shared, tmp_path)


@pytest.fixture
def sent_alone(store: Path, mounted: Mount, tmp_path: Path) -> Sent:
    """Return an upload to its own mount."""
    return sent_to(mounted(store), tmp_path)


def parts_of(content: bytes, count: int) -> list[tuple[int, bytes]]:
    """Return offsets and bytes, of odd sizes."""
    step = len(content) // count + 1
    return [(at, content[at : at + step]) for at in range(0, len(content), step)]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Yield a descriptor. Its close fails as the file system says."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write(path: Path, *parts: tuple[int, bytes], length: int | None = None) -> int:
    """Set a file's length, if one is given, and write parts of it. Return 0, or the errno of the close."""
    try:
        with opened(path) as descriptor:
            if length is not None:
                os.ftruncate(descriptor, length)
            for at, part in parts:
                assert os.pwrite(descriptor, part, at) == len(part)
    except OSError as error:
        return error.errno or -1
    return 0


def restart(mount: Mounted) -> None:
    mount.stop()
    mount._expectations.clear()
    mount.start()


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1], [1, 2, 0], [2, 1, 0]])
@pytest.mark.parametrize("grows", ["at first", "by writes"])
def test_completed_in_any_order(sent: Sent, grows: str, order: list[int]) -> None:
    parts = parts_of(sent.content, 3)
    length = len(sent.content) if grows == "at first" or 2 not in order[:2] else None
    sent.expect_refusals()
    assert write(sent.target, *(parts[number] for number in order[:2]), length=length) == errno.EBADMSG
    sent.is_refused()
    assert write(sent.target, parts[order[2]]) == 0
    sent.is_imported()


def test_many_parts_in_any_order(sent: Sent) -> None:
    parts = parts_of(sent.content, 500)
    random.Random(2).shuffle(parts)
    sent.expect_refusals()
    for number in range(0, 500, 100):
        assert write(sent.target, *parts[number : number + 100]) == (0 if number == 400 else errno.EBADMSG)
    sent.is_imported()


def test_grown_after_its_bytes_came(sent: Sent) -> None:
    """An upload extended by its name, then truncated to its last byte, can be resumed like any other."""
    sent.expect_refusals()
    sent.mount.expect_log(f"{sent.archive.name} was not imported: the archive is cut short")
    assert write(sent.target, (0, sent.content[:700_000])) == errno.EBADMSG
    os.truncate(sent.target, len(sent.content))
    assert write(sent.target, (800_000, sent.content[800_000:])) == errno.EBADMSG
    sent.is_refused()
    os.truncate(sent.target, 700_000)
    assert write(sent.target, (700_000, sent.content[700_000:])) == 0
    sent.is_imported()


@pytest.mark.parametrize("is_whole", [False, True])
def test_zeros_first(sent: Sent, is_whole: bool) -> None:
    """Zeros written first are not content, however many. Downloaders allocate files this way."""
    parts = parts_of(sent.content, 20)
    with contextlib.suppress(OSError), opened(sent.target) as descriptor:
        for at in range(0, 20 << 20, 1 << 20):
            os.pwrite(descriptor, bytes(1 << 20), at)
        os.ftruncate(descriptor, len(sent.content))
        for at, part in parts[: None if is_whole else 10]:
            os.pwrite(descriptor, part, at)
    if not is_whole:
        sent.expect_refusals()
        sent.is_refused()
        assert write(sent.target, *parts[10:]) == 0
    sent.is_imported()


def test_room_is_no_content(sent: Sent) -> None:
    sent.expect_refusals()
    descriptor = os.open(sent.target, os.O_RDWR | os.O_CREAT, 0o644)
    os.posix_fallocate(descriptor, 0, len(sent.content))
    assert os.fstat(descriptor).st_size == len(sent.content)
    os.pwrite(descriptor, sent.content[:500_000], 0)
    with pytest.raises(OSError, match="Bad message"):
        os.close(descriptor)
    sent.is_refused()
    assert write(sent.target, (500_000, sent.content[500_000:])) == 0
    sent.is_imported()


def test_a_zip_has_checksums_that_tell(shared: Mounted, tmp_path: Path) -> None:
    """Zeros that were left out count as written. Any other missing bytes are reported as missing."""
    model = made(tmp_path, "zip:v1", {"a": b"a" * 100_000, "z": bytes(100_000)})
    run("zip", "-q", "-0", "-r", tmp_path / "m.zip", ".", cwd=model)
    content = (tmp_path / "m.zip").read_bytes()
    sent = Sent(shared, model, tmp_path / "m.zip", content)
    zeros = content.index(bytes(100_000))
    parts = (zeros + 100_000, content[zeros + 100_000 :]), (0, content[:zeros])
    assert write(sent.target, *parts, length=len(content)) == 0
    sent.is_imported()
    run("rm", "-r", sent.in_store)
    sent = Sent(shared, model, tmp_path / "n.zip", content)
    sent.expect_refusals()
    letters = content.index(b"a" * 100_000) + 5000
    parts = (letters + 5000, content[letters + 5000 :]), (0, content[:letters])
    assert write(sent.target, *parts) == errno.EBADMSG
    sent.is_refused()
    sent.target.unlink()


@pytest.mark.parametrize("where", ["", "folder/"])
def test_killed_and_gone_on_with(sent_alone: Sent, where: str) -> None:
    sent, mount = sent_alone, sent_alone.mount
    parts = parts_of(sent.content, 4)
    target = mount.path / "incoming" / where / "m.tar"
    target.parent.mkdir(exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT)
    os.ftruncate(descriptor, len(sent.content))
    os.pwrite(descriptor, parts[1][1], parts[1][0])
    os.pwrite(descriptor, parts[0][1], 0)
    mount.process.send_signal(signal.SIGKILL)
    mount.process.wait(20)
    mount.kill()
    with contextlib.suppress(OSError):
        os.close(descriptor)
    mount.start()
    assert [receipt.state for receipt in record(mount)] == [ReceiptState.INTERRUPTED]
    mount.expect_log(f"{where}m.tar was not imported: [0-9,]+ of its [0-9,]+ {_NEVER_CAME}")
    assert write(target, parts[3]) == errno.EBADMSG
    assert os.listdir(mount.store) == []
    restart(mount)
    assert write(target, parts[2]) == 0
    sent.is_imported()


def test_after_the_machine_went_down(sent_alone: Sent) -> None:
    """Bytes written before a power loss may not be on disk. All must come again."""
    sent, mount = sent_alone, sent_alone.mount
    sent.expect_refusals()
    assert write(sent.target, (0, sent.content[:500_000]), length=len(sent.content)) == errno.EBADMSG
    mount.stop()
    (session,) = area_of(mount.store).glob("sessions/*")
    session.rename(session.with_name(f"01234567{session.name[8:]}"))
    mount.start()
    assert write(sent.target, (500_000, sent.content[500_000:])) == errno.EBADMSG
    sent.is_refused()
    assert write(sent.target, (0, sent.content[:500_000])) == 0
    sent.is_imported()


def test_an_upload_of_a_release_that_kept_no_ranges(sent_alone: Sent) -> None:
    sent, mount = sent_alone, sent_alone.mount
    sent.expect_refusals()
    assert write(sent.target, (0, sent.content[:500_000]), length=600_000) == errno.EBADMSG
    mount.stop()
    mount._expectations.clear()
    (session,) = area_of(mount.store).glob("sessions/*")
    run("rm", "-r", session / "ranges")
    mount.start()
    assert write(sent.target, (500_000, sent.content[500_000:])) == 0
    sent.is_imported()


def test_a_file_of_a_folder(sent_alone: Sent) -> None:
    sent, mount = sent_alone, sent_alone.mount
    weights = (sent.model / "w").read_bytes()
    folder = mount.path / "incoming/m"
    run("cp", "-r", sent.model, folder)
    (folder / "w").unlink()
    assert write(folder / "w", (0, weights[:5000]), length=len(weights)) == 0
    for _ in range(2):
        mount.expect_log("m was not imported: m/w was made longer, and not all of its bytes came")
        assert execute("sync", folder).returncode == 1
        assert not sent.in_store.exists()
        restart(mount)
    assert write(folder / "w", (5000, weights[5000:])) == 0
    run("sync", folder)
    sent.is_imported()


@pytest.mark.parametrize(
    "command",
    [
        ["cp", "--sparse=always"],
        ["rsync", "-aS"],
        ["rsync", "-aS", "--inplace"],
        ["rsync", "-a", "--preallocate"],
        ["rsync", "-aS", "--partial-dir=.rsync-partial"],
    ],
    ids=" ".join,
)
def test_zeros_left_out_on_purpose(sent: Sent, command: list[str]) -> None:
    done = execute(*command, sent.archive, f"{sent.target.parent}/")
    assert done.returncode == 0, done
    sent.is_imported()


def test_zeros_that_nobody_can_tell_from_a_gap(sent: Sent, tmp_path: Path) -> None:
    """The note says how to copy a sparse file. cp leaves out its holes and says nothing."""
    sent.expect_refusals()
    holes = tmp_path / "holes" / sent.archive.name
    holes.parent.mkdir()
    run("cp", "--sparse=always", sent.archive, holes)
    assert cp(holes, sent.target.parent).returncode == 1
    sent.is_refused()
    assert "cp --sparse=never" in sent.target.with_name(f"{sent.archive.name}.error").read_text()
    assert cp("--sparse=never", holes, sent.target.parent).returncode == 0
    sent.is_imported()


@pytest.mark.parametrize("tool", ["cp -r", "rsync -aS"])
def test_holes_in_the_files_of_a_folder(sent: Sent, tool: str) -> None:
    """A directory's files may have holes, like a database's. The copying tool sets their final length."""
    with (sent.model / "data.mdb").open("wb") as file:
        file.write(b"x" * 5000)
        file.seek(1 << 20)
        file.write(b"y" * 5000)
        file.truncate(2 << 20)
    folder = sent.mount.path / "incoming" / sent.archive.stem
    folder.mkdir()
    run(*tool.split(), f"{sent.model}/.", folder)
    run("sync", folder)
    sent.is_imported()


def test_what_is_removed_leaves_no_ranges(sent: Sent) -> None:
    sent.expect_refusals()
    for _ in range(2):
        assert write(sent.target, (0, sent.content[:5000]), length=len(sent.content)) == errno.EBADMSG
        sent.target.unlink()
    assert list(area_of(sent.mount.store).glob("sessions/*/ranges/*")) == []


def _fill_until_refused(descriptor: int) -> None:
    """Write junk until a write fails."""
    for _ in range(200):
        os.write(descriptor, b"This is no archive.\n" * 4000)
        time.sleep(0.05)  # a slow writer: the refusal comes while it writes


def test_grown_after_a_write_was_refused(shared: Mounted) -> None:
    """bsdtar sets a file's full length after a write that failed. The reason of the refusal is told, not the gap."""
    shared.expect_log("junk.tar was not imported: .")
    descriptor = os.open(shared.path / "incoming/junk.tar", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="Invalid argument"):
        _fill_until_refused(descriptor)
    os.ftruncate(descriptor, 20_000_000)
    with pytest.raises(OSError, match="Invalid argument"):
        os.close(descriptor)
    last = record(shared)[0]
    assert (last.path, last.state, last.errno) == ("junk.tar", ReceiptState.REFUSED, "EINVAL")
    assert last.error is not None
    assert _NEVER_CAME not in last.error
