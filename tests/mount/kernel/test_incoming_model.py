"""Random sequences of what tools, BentoML and other programs do to a mount and its store, against a model of
`mount/SEMANTICS.md` in memory. `test_seeded_faults.py` shows that it finds faults.

A campaign: BENTOFS_SEQUENCES=2000 BENTOFS_STEPS=30 .venv/bin/python -m pytest tests/mount/kernel/test_incoming_model.py
"""

import contextlib
import errno
import functools
import io
import itertools
import os
import random
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.harness import Mounted, make_model, wait_until
from tests.incoming import cp, tar_of
from tests.waiting import let_a_change_be_seen

SEQUENCES = int(os.environ.get("BENTOFS_SEQUENCES", "10"))
STEPS = int(os.environ.get("BENTOFS_STEPS", "15"))

TAGS = ["a:v1", "a:v2", "b:v1"]
LETTERS = ["X", "Y"]
FORMS = ["tar", "zip"]
NAMES = ["one.tar", "two.bentomodel", "folder/three.zip"]
HIDDEN = [".four", "folder/.five", "six.part"]
SIZE = 60_000  # bytes of the file in each model


@dataclass(frozen=True)
class Archive:
    """One model as a file."""

    tag: str
    letter: str
    content: bytes = field(repr=False)
    path: Path


@dataclass
class Reader:
    """A program that has a model's tar open."""

    descriptor: int
    content: bytes  # of the whole file


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[Archive]:
    made = []
    for tag in TAGS:
        for letter in LETTERS:
            scratch = tmp_path_factory.mktemp("archives")
            model = make_model(scratch, tag, files(letter))
            tar_of(model, scratch / "m.tar")
            with zipfile.ZipFile(scratch / "m.zip", "w") as packed:
                for path in sorted(model.iterdir()):
                    packed.write(path, path.name)
            made += [
                Archive(tag, letter, (scratch / f"m.{form}").read_bytes(), scratch / f"m.{form}") for form in FORMS
            ]
    return made


@pytest.fixture(params=["kernel"])
def mount(request: pytest.FixtureRequest, store: Path, mounted: Callable[..., Mounted]) -> Mounted:
    mount = mounted(store, options=["--engine", request.param, "--compression", "never"], limit=36_000)
    mount.allow_log("was not imported: ")
    return mount


def files(letter: str) -> dict[str | bytes, bytes | int]:
    return {"w.bin": _content(letter)}


def write_in_pieces(archive: Archive, target: Path) -> int:
    """Write in pieces of an odd size, like Python's `shutil`."""
    return _errno_of(lambda: _write(target, archive.content, os.O_TRUNC))


def copy(archive: Archive, target: Path) -> int:
    return cp(archive.path, target).returncode


def rsync(archive: Archive, target: Path) -> int:
    return _status("rsync", "-I", str(archive.path), str(target))


def dd(archive: Archive, target: Path) -> int:
    return _status("dd", f"if={archive.path}", f"of={target}", "bs=10k", "status=none")


def backwards(archive: Archive, target: Path) -> int:
    """Write the second half first, like a download over several connections."""

    def write() -> None:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        half = len(archive.content) // 2
        try:
            os.pwrite(descriptor, archive.content[half:], half)
            os.pwrite(descriptor, archive.content[:half], 0)
        finally:
            os.close(descriptor)

    return _errno_of(write)


TOOLS = [write_in_pieces, copy, rsync, dd, backwards]


class Machine(RuleBasedStateMachine):
    """The real state of a mount, beside the expected one."""

    mount: Mounted
    archives: list[Archive]
    numbers: ClassVar[Iterator[int]] = itertools.count(1)
    tars: ClassVar[dict[tuple[str, str], bytes]] = {}  # the mount's tars, by tag and letter

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, bytes] = {}  # files in incoming/
        self.imported: dict[str, Archive] = {}  # names that `stat` answers although they are not listed
        self.unsure: set[str] = set()  # names whose model was deleted: they answer again if it comes back
        self.models: dict[str, str] = {}  # letters by tag
        self.unmarked: set[str] = set()  # models that lost BentoML's mark: no archive of their tags is taken
        self.readers: list[Reader] = []
        # Use a new directory: the record of imports still answers for names whose model comes back.
        self.incoming = self.mount.path / "incoming" / f"sequence-{next(self.numbers)}"
        (self.incoming / "folder").mkdir(parents=True)

    def teardown(self) -> None:
        for reader in self.readers:
            os.close(reader.descriptor)
        subprocess.run(["rm", "-rf", self.incoming], timeout=60, check=True)
        for folder in Path(self.mount.store).iterdir():
            shutil.rmtree(folder)
        self.models.clear()
        self._wait_until_shown()

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 11), tool=st.sampled_from(TOOLS))
    def send(self, name: str, number: int, tool: Callable[[Archive, Path], int]) -> None:
        archive = self.archives[number]
        failed = bool(tool(archive, self.incoming / name))
        assert failed == (not self._arrives(name, archive))

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 11), share=st.floats(0.1, 0.9))
    def send_a_part(self, name: str, number: int, share: float) -> None:
        content = self.archives[number].content
        content = content[: int(len(content.rstrip(b"\0")) * share)]  # a tar without its zeros at the end is whole
        assert _errno_of(lambda: _write(self.incoming / name, content, os.O_TRUNC)) == errno.EBADMSG
        self.kept[name] = content

    @precondition(lambda self: any(self._unfinished()))
    @rule(data=st.data(), by_rsync=st.booleans())
    def send_the_rest(self, data: st.DataObject, by_rsync: bool) -> None:
        name, archive = data.draw(st.sampled_from(list(self._unfinished())))
        target = self.incoming / name
        if by_rsync:
            failed = _status("rsync", "--append", "--inplace", str(archive.path), str(target))
        else:
            rest = archive.content[len(self.kept[name]) :]
            failed = _errno_of(lambda: _write(target, rest, os.O_APPEND))
        assert bool(failed) == (not self._arrives(name, archive))

    @rule(name=st.sampled_from(HIDDEN), number=st.integers(0, 11))
    def write_under_another_name(self, name: str, number: int) -> None:
        content = self.archives[number].content
        _write(self.incoming / name, content, os.O_TRUNC)
        self.kept[name] = content

    @precondition(lambda self: any(self._hidden()))
    @rule(data=st.data(), number=st.integers(0, 11))
    def remove_an_open_file(self, data: st.DataObject, number: int) -> None:
        """Write another file under its name. Who has the removed one open still sees it."""
        name = data.draw(st.sampled_from(self._hidden()))
        path, old, new = self.incoming / name, self.kept[name], self.archives[number].content
        descriptor = os.open(path, os.O_RDONLY)
        try:
            path.unlink()
            _write(path, new, 0)
            self.kept[name] = new
            look = os.fstat(descriptor)
            assert (look.st_size, look.st_nlink) == (len(old), 0)
            assert os.pread(descriptor, len(old) + 1, 0) == old
        finally:
            os.close(descriptor)

    @precondition(lambda self: any(self._hidden()))
    @rule(data=st.data(), new=st.sampled_from(NAMES + HIDDEN))
    def rename(self, data: st.DataObject, new: str) -> None:
        old = data.draw(st.sampled_from(self._hidden()))
        failed = _errno_of(lambda: (self.incoming / old).rename(self.incoming / new))
        if new == old:
            assert not failed
            return
        content = self.kept[old]
        if new in HIDDEN:
            assert not failed
            assert (self.incoming / new).read_bytes() == content  # before a listing tells the kernel of the name
            self.kept[new] = self.kept.pop(old)
            return
        archive = next((archive for archive in self.archives if archive.content == content), None)
        if archive is None:
            assert failed == errno.EBADMSG
            return
        assert bool(failed) == (not self._fits(archive))
        if not failed:
            del self.kept[old]
            self._arrives(new, archive)

    @precondition(lambda self: any(self._hidden()))
    @rule(data=st.data(), share=st.floats(0, 1), by_handle=st.booleans())
    def cut(self, data: st.DataObject, share: float, *, by_handle: bool) -> None:
        name = data.draw(st.sampled_from(self._hidden()))
        # The first member's name stays. If nobody can tell the rest from any file, it is a file of its directory.
        # A tar without the zeros at its end is whole.
        length = max(3000, int(len(self.kept[name].rstrip(b"\0")) * share))
        if length < len(self.kept[name]):
            if by_handle:
                with open(self.incoming / name, "r+b") as file:
                    os.ftruncate(file.fileno(), length)
            else:
                os.truncate(self.incoming / name, length)
            self.kept[name] = self.kept[name][:length]

    @precondition(lambda self: self.kept or self.imported)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted([*self.kept, *self.imported])))
        (self.incoming / name).unlink()
        if name in self.kept:
            del self.kept[name]
        else:
            del self.imported[name]
        if name not in self.unsure:
            assert (self.incoming / name).exists() == (name in self.imported)

    @rule(tag=st.sampled_from(TAGS), letter=st.sampled_from(LETTERS))
    def save_by_bentoml(self, tag: str, letter: str) -> None:
        if tag not in self.models:
            make_model(Path(self.mount.store), tag, files(letter))
            self.models[tag] = letter
            self._wait_until_shown()

    @precondition(lambda self: self.models)
    @rule(data=st.data(), offset=st.integers(0, SIZE))
    def delete_by_bentoml(self, data: st.DataObject, offset: int) -> None:
        tag = data.draw(st.sampled_from(sorted(self.models)))
        names = self._remove_model(tag)
        self._wait_until_shown()
        for name in names - set(self.kept):
            path = self.incoming / name
            wait_until(functools.partial(_is_free, path), 5, "the name is free")
        self._all_read_on(offset)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), letter=st.sampled_from(LETTERS), offset=st.integers(0, SIZE))
    def replace_by_bentoml(self, data: st.DataObject, letter: str, offset: int) -> None:
        """Delete a model and save another one under its tag, before anybody looks."""
        tag = data.draw(st.sampled_from(sorted(self.models)))
        self._in_mount(tag).stat()
        self._remove_model(tag)
        make_model(Path(self.mount.store), tag, files(letter))
        self.models[tag] = letter
        self._is_seen_without_a_look(tag)
        self._all_read_on(offset)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), letter=st.sampled_from(LETTERS), in_place=st.booleans(), offset=st.integers(0, SIZE))
    def edit(self, data: st.DataObject, letter: str, offset: int, *, in_place: bool) -> None:
        """Change a file of a model behind the mount's back, or put another one in its place. Keep size and mtime."""
        tag = data.draw(st.sampled_from(sorted(self.models)))
        if letter == self.models[tag]:
            return
        self._forget_names(tag)
        self._in_mount(tag).stat()
        file = self._in_store(tag)
        look = file.stat()
        target = file if in_place else file.with_name("w.new")
        with open(target, "r+b" if in_place else "wb") as changed:
            changed.write(_content(letter))
        os.utime(target, ns=(look.st_atime_ns, look.st_mtime_ns))
        if not in_place:
            target.replace(file)
            self.unmarked.add(tag)  # its directory has another mtime
        self.models[tag] = letter
        self._all_read_on(offset)  # at once: the mount knows of nothing yet
        self._is_seen_without_a_look(tag)
        self._all_read_on(offset)

    @precondition(lambda self: self.models and len(self.readers) < 5)
    @rule(data=st.data(), offset=st.integers(0, SIZE))
    def begin_to_read(self, data: st.DataObject, offset: int) -> None:
        tag = data.draw(st.sampled_from(sorted(self.models)))
        descriptor = os.open(self.mount.archive(tag, ".tar"), os.O_RDONLY)
        content = self.mount.archive(tag, ".tar").read_bytes()
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            member = tar.extractfile("w.bin")
            assert member is not None
            assert member.read() == files(self.models[tag])["w.bin"]
        assert content == self.tars.setdefault((tag, self.models[tag]), content)
        self.readers.append(Reader(descriptor, content))
        self._all_read_on(offset)

    @precondition(lambda self: self.readers)
    @rule(offset=st.integers(0, SIZE))
    def read_on(self, offset: int) -> None:
        self._all_read_on(offset)

    @precondition(lambda self: self.readers)
    @rule()
    def end_reading(self) -> None:
        os.close(self.readers.pop(0).descriptor)

    @invariant()
    def names_and_bytes(self) -> None:
        found = {
            str(path.relative_to(self.incoming))
            for path in self.incoming.rglob("*")
            if path.suffix != ".error" and not path.is_dir()
        }
        assert found == set(self.kept)
        for name, content in self.kept.items():
            assert (self.incoming / name).read_bytes() == content
            # A file that waits for its decision is shown shorter, so that every tool sends it again: by up to 512
            # bytes, or by the run of equal bytes at its end.
            least = min(len(content) - 512, len(content.rstrip(content[-1:])) - 1)
            assert least <= (self.incoming / name).stat().st_size <= len(content)
        for name, archive in self.imported.items():
            if name not in self.kept:
                assert (self.incoming / name).stat().st_size == len(archive.content)

    @invariant()
    def models_in_the_store(self) -> None:
        assert self._shown() == set(self.models)
        for tag, letter in self.models.items():
            assert self._in_mount(tag).read_bytes() == files(letter)["w.bin"]

    def _all_read_on(self, offset: int) -> None:
        for reader in self.readers:
            os.posix_fadvise(reader.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.fstat(reader.descriptor).st_size == len(reader.content)
            try:
                content = os.pread(reader.descriptor, 20_000, offset)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
            else:
                assert content == reader.content[offset : offset + 20_000]

    def _arrives(self, name: str, archive: Archive) -> bool:
        """Tell whether an archive sent whole becomes a model, and update the expected state."""
        if not self._fits(archive):
            self.kept[name] = archive.content
            return False
        self.kept.pop(name, None)
        self.imported[name] = archive
        self.models[archive.tag] = archive.letter
        return True

    def _fits(self, archive: Archive) -> bool:
        return archive.tag not in self.unmarked and self.models.get(archive.tag, archive.letter) == archive.letter

    def _unfinished(self) -> Iterator[tuple[str, Archive]]:
        for name, content in self.kept.items():
            for archive in self.archives:
                if name in NAMES and len(content) < len(archive.content) and archive.content.startswith(content):
                    yield name, archive

    def _hidden(self) -> list[str]:
        return sorted(name for name in self.kept if name in HIDDEN)

    def _in_store(self, tag: str) -> Path:
        return Path(self.mount.store) / tag.replace(":", "/") / "w.bin"

    def _in_mount(self, tag: str) -> Path:
        return self.mount.path / "models" / tag.replace(":", "/") / "files" / "w.bin"

    def _is_seen_without_a_look(self, tag: str) -> None:
        """Check that the first look after a change is told the new file, however long the kernel may believe the old
        one. A `stat` before the change makes it believe: after a read, it asks the daemon anyway."""
        let_a_change_be_seen()
        shown, true = self._in_mount(tag).stat(), self._in_store(tag).stat()
        assert (shown.st_size, shown.st_mtime_ns, shown.st_ctime_ns) == (
            true.st_size,
            true.st_mtime_ns,
            true.st_ctime_ns,
        )

    def _remove_model(self, tag: str) -> set[str]:
        """Delete a model like BentoML does. The directory of its name stays. Return the names under which it came."""
        shutil.rmtree(self._in_store(tag).parent)
        del self.models[tag]
        self.unmarked.discard(tag)
        return self._forget_names(tag)

    def _forget_names(self, tag: str) -> set[str]:
        """Expect nothing any more of the names under which a model came. Return them."""
        names = {name for name, archive in self.imported.items() if archive.tag == tag}
        for name in names:
            del self.imported[name]
        self.unsure |= names
        return names

    def _shown(self) -> set[str]:
        root = self.mount.path / "models"
        found = set()
        for name in os.listdir(root):
            with contextlib.suppress(FileNotFoundError):  # removed just now
                found |= {
                    f"{name}:{version}" for version in os.listdir(root / name) if not version.startswith("latest")
                }
        return found

    def _wait_until_shown(self) -> None:
        paths = {tag: self.mount.path / "models" / tag.replace(":", "/") for tag in TAGS}

        def is_seen() -> bool:
            return self._shown() == set(self.models) == {tag for tag, path in paths.items() if path.exists()}

        wait_until(is_seen, 10, "the change of the store is seen")


def _content(letter: str) -> bytes:
    return random.Random(letter).randbytes(SIZE)


def _is_free(path: Path) -> bool:
    return not path.exists()


def _write(target: Path, content: bytes, flags: int) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | flags)
    try:
        for begin in range(0, len(content), 7919):
            os.write(descriptor, content[begin : begin + 7919])
    finally:
        os.close(descriptor)


def _errno_of(work: Callable[[], object]) -> int:
    try:
        work()
    except OSError as error:
        return error.errno or -1
    return 0


def _status(*command: str) -> int:
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def test_what_a_mount_shows_is_what_semantics_says(mount: Mounted, archives: list[Archive]) -> None:
    Machine.mount, Machine.archives = mount, archives
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
            derandomize=SEQUENCES <= 10,
            database=None,
        ),
    )
