"""The memory that the decoders of uploads share."""

import functools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from bentofs.mount.incoming.decoder_memory import DecoderMemory
from bentofs.store.errors import CancelledError, PostponedError
from bentofs.store.formats.read.growing_file import LITTLE_MEMORY, MOST_MEMORY
from bentofs.store.util.memory_budget import MemoryBudget
from tests.harness import wait_until


@dataclass(eq=False)
class Upload:
    """A staged upload, as the memory budget sees it."""

    memory: DecoderMemory
    is_whole: bool
    stopped: CancelledError | None = None
    outcome: list[str] = field(default_factory=list)

    def postpone(self) -> None:
        if not self.is_whole:
            self.stopped = PostponedError("later")

    def check(self) -> None:
        if self.stopped is not None:
            raise self.stopped

    def take(self, amount: int) -> threading.Thread:
        """Take memory in a new thread. On return the thread has ended, or it waits."""
        thread = threading.Thread(target=self._take, args=(amount,))
        thread.start()
        thread.join(0.1)
        return thread

    def _take(self, amount: int) -> None:
        try:
            self.memory.take(self, amount)
            self.outcome.append("has it")
        except PostponedError:
            self.outcome.append("postponed")
        except CancelledError:
            self.outcome.append("cancelled")


def test_little_is_there_for_all_that_are_staged_at_once() -> None:
    memory = DecoderMemory(MemoryBudget())
    for _ in range(6):
        memory.take(Upload(memory, is_whole=False), LITTLE_MEMORY)


def test_what_is_there_instead_of_what_was_taken_before() -> None:
    memory = DecoderMemory(MemoryBudget())
    upload = Upload(memory, is_whole=True)
    for amount in (LITTLE_MEMORY, MOST_MEMORY, MOST_MEMORY, LITTLE_MEMORY):
        memory.take(upload, amount)


@pytest.mark.parametrize(("first", "second"), [(MOST_MEMORY, LITTLE_MEMORY), (LITTLE_MEMORY, MOST_MEMORY)])
def test_nobody_waits_for_one_that_still_arrives(first: int, second: int) -> None:
    memory = DecoderMemory(MemoryBudget())
    arriving, other, whole = Upload(memory, False), Upload(memory, False), Upload(memory, True)
    memory.take(arriving, first)
    other.take(second).join(10)
    assert other.outcome == ["postponed"]
    waiting = whole.take(second)
    assert (whole.outcome, type(arriving.stopped)) == ([], PostponedError)
    late = Upload(memory, False)
    late.take(LITTLE_MEMORY).join(10)
    assert late.outcome == ["postponed"], "nor does anybody come before one that waits"
    memory.give_back(arriving)
    waiting.join(10)
    assert whole.outcome == ["has it"]


def _have_it(uploads: list[Upload], count: int) -> bool:
    return sum(len(upload.outcome) for upload in uploads) == count


def test_one_that_is_whole_is_waited_for() -> None:
    memory = DecoderMemory(MemoryBudget())
    uploads = [Upload(memory, True) for _ in range(3)]
    threads = [upload.take(MOST_MEMORY) for upload in uploads]
    for count in range(1, 4):
        wait_until(functools.partial(_have_it, uploads, count), 10, "the next one has it")
        memory.give_back(next(upload for upload in uploads if upload.outcome and upload in memory._taken))
    assert [upload.outcome for upload in uploads] == [["has it"]] * 3
    assert [upload.stopped for upload in uploads] == [None] * 3
    for thread in threads:
        thread.join(10)


def test_one_that_waits_is_cancelled() -> None:
    memory = DecoderMemory(MemoryBudget())
    memory.take(Upload(memory, True), MOST_MEMORY)
    upload = Upload(memory, True)
    thread = upload.take(LITTLE_MEMORY)
    assert upload.outcome == []
    upload.stopped = CancelledError("gone")
    memory.look_again()
    thread.join(10)
    assert upload.outcome == ["cancelled"]


def test_nothing_stays_reserved_when_many_end_at_once() -> None:
    budget = MemoryBudget()
    memory = DecoderMemory(budget)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def take_and_give_back(_number: int) -> None:
        for _ in range(500):
            upload = Upload(memory, is_whole=True)
            memory.take(upload, LITTLE_MEMORY)
            memory.give_back(upload)

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(take_and_give_back, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert budget.usage().decoders == 0


def test_one_that_is_postponed_reserves_nothing() -> None:
    budget = MemoryBudget()
    memory = DecoderMemory(budget)
    arriving = Upload(memory, is_whole=False)
    memory.take(arriving, LITTLE_MEMORY)
    memory.take(Upload(memory, is_whole=False), LITTLE_MEMORY)
    with pytest.raises(PostponedError):
        memory.take(arriving, MOST_MEMORY)
    assert budget.usage().decoders == LITTLE_MEMORY
