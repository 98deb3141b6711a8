"""The states of an upload: the verbs of `Upload` reach every transition of the table, and no other one happens."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from bentofs.mount.incoming.names import UploadKind
from bentofs.mount.incoming.receipts import Receipts, UploadReceipt
from bentofs.mount.incoming.staging_run import Slots, Stager
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.incoming.upload_file import UploadFile
from bentofs.mount.incoming.upload_state import ALLOWED, IllegalTransitionError, UploadState, moved
from bentofs.mount.incoming.written_ranges import WrittenRanges
from bentofs.store.errors import CancelledError, DamagedArchiveError
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.util.memory_budget import MemoryBudget

Transition = tuple[UploadState, UploadState]
STATES = list(UploadState)


class Bench:
    """One upload with two bytes, and the transitions that it has made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[Transition] = []
        self.while_staging: Callable[[], object] = lambda: None
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        file = UploadFile(descriptor, WrittenRanges(str(folder / "ranges"), 0, is_new=True))
        receipt = UploadReceipt(Receipts(Mock(), "session"))
        self.upload = Upload("m.tar", file, os.geteuid(), receipt, Stager(self._stage, Slots(MemoryBudget())))
        self.upload.judge(UploadKind(is_archive=True, is_strict=True, fails_early=True))
        move_to = self.upload._move_to

        def noted(state: UploadState) -> None:
            before = self.upload.state
            move_to(state)
            self.made.append((before, state))

        monkeypatch.setattr(self.upload, "_move_to", noted)
        self.write()

    def _stage(self, arriving: ArrivingFile, _on_model: Callable[[], None]) -> Mock:
        arriving.length()
        self.while_staging()
        return Mock()

    def write(self) -> None:
        self.upload.write(memoryview(b"xx"), 0)

    def check(self) -> None:
        with self.upload.deciding():
            self.upload.staged()

    def check_while(self, meanwhile: Callable[[], object]) -> None:
        """Check the bytes while another thread does something."""
        self.while_staging = meanwhile
        try:
            self.upload.write(memoryview(b"x"), 1)  # the next check stages anew
            with pytest.raises(CancelledError):
                self.check()
        finally:
            self.while_staging = lambda: None

    def refuse(self) -> None:
        self.upload.refuse(DamagedArchiveError("it is damaged"), is_shown=True)

    def remove(self) -> None:
        self.upload.lose_name(UploadState.REMOVED, "removed")

    def replace(self) -> None:
        self.upload.lose_name(UploadState.REPLACED, "replaced")

    def refuse_after(self, lose_name: Callable[[], None]) -> None:
        lose_name()
        self.refuse()


Verb = Callable[[Bench], object]
VERBS: dict[str, Verb] = {
    "write": Bench.write,
    "truncate": lambda bench: bench.upload.truncate(1),
    "check": Bench.check,
    "check, and be written meanwhile": lambda bench: bench.check_while(bench.write),
    "check, and be removed meanwhile": lambda bench: bench.check_while(bench.remove),
    "check, and be replaced meanwhile": lambda bench: bench.check_while(bench.replace),
    "keep": lambda bench: bench.upload.keep(),
    "refuse": Bench.refuse,
    "take": lambda bench: bench.upload.take(),
    "import": lambda bench: bench.upload.mark_imported(),
    "remove": Bench.remove,
    "replace": Bench.replace,
    "remove, then refuse": lambda bench: bench.refuse_after(bench.remove),
    "replace, then refuse": lambda bench: bench.refuse_after(bench.replace),
    "stop": lambda bench: bench.upload.stop(),
    "close": lambda bench: bench.upload.close(),
}
MOST_VERBS = 6  # that lead from a new upload to any state


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Bench]]:
    made: list[Bench] = []

    def new() -> Bench:
        made.append(Bench(tmp_path, monkeypatch))
        return made[-1]

    yield new
    for one in made:
        if one.upload.state is not UploadState.CLOSED:
            one.upload.stop()
            one.upload.file.close()


def test_the_verbs_make_every_transition_of_the_table_and_no_other(bench: Callable[[], Bench]) -> None:
    """Walk from a new upload by all verbs, until no verb leads to a state that was not seen."""
    made: set[Transition] = set()
    ways: list[tuple[str, ...]] = [()]
    seen = {UploadState.RECEIVING}
    while ways:
        way = ways.pop(0)
        assert len(way) < MOST_VERBS
        for name, verb in VERBS.items():
            one = bench()
            for step in way:
                VERBS[step](one)
            before = one.upload.state
            try:
                verb(one)
            except IllegalTransitionError:
                assert one.upload.state is before, f"{name} failed, but changed the state"
            except (CancelledError, OSError):
                pass  # no error of the table: the verb itself refuses
            made.update(one.made)
            if one.upload.state not in seen:
                seen.add(one.upload.state)
                ways.append((*way, name))
    assert made == {(old, new) for old in STATES for new in ALLOWED[old]}
    assert seen | {UploadState.CHECKING} == set(STATES)


@pytest.mark.parametrize("old", STATES)
def test_what_the_table_does_not_allow_is_an_error(old: UploadState) -> None:
    for new in STATES:
        if new in ALLOWED[old]:
            assert moved(old, new) is new
        else:
            with pytest.raises(IllegalTransitionError, match=f"from {old.value} to {new.value}"):
                moved(old, new)


def test_a_model_that_is_being_published_goes_on_without_its_name(bench: Callable[[], Bench]) -> None:
    one = bench()
    one.check()
    one.upload.take()
    one.remove()
    assert one.upload.state is UploadState.PUBLISHING
    with pytest.raises(CancelledError):
        one.write()
    one.upload.mark_imported()
    with one.upload.deciding():
        assert one.upload.is_imported, "a second close is told of the import"


@pytest.mark.parametrize("lose", [Bench.remove, Bench.replace])
def test_a_refused_model_whose_name_is_gone_has_no_name(bench: Callable[[], Bench], lose: Verb) -> None:
    one = bench()
    one.check()
    one.upload.take()
    lose(one)
    one.refuse()
    assert one.upload.state.has_lost_name
    with pytest.raises(CancelledError), one.upload.deciding():
        pass
