"""Runs: tries to stage an upload, each in a thread of its own, and how many of them there are at once.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable

from bentofs.mount.incoming.decoder_memory import DecoderMemory
from bentofs.mount.incoming.upload_reader import Arriving
from bentofs.store.errors import PostponedError, StoreError
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.transfer.importer import StagedImport
from bentofs.store.util.memory_budget import MemoryBudget

_EARLY_RUNS = 4  # uploads that are staged while they arrive
_LATE_RUNS = 2  # that are staged once all is there: these wait for nobody else, so each gets its turn

Stage = Callable[[ArrivingFile], StagedImport]


class Slots:
    """How many uploads are staged at once, and what memory they share."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.memory = DecoderMemory(budget)
        self.early = threading.Semaphore(_EARLY_RUNS)
        self.late = threading.Semaphore(_LATE_RUNS)


class Run:
    """One try to stage an upload, in a thread of its own."""

    def __init__(self, descriptor: int, stage: Stage, slot: threading.Semaphore, memory: DecoderMemory) -> None:
        """The run gives `slot` back when it ends."""
        self._own_descriptor = os.dup(descriptor)
        self._memory = memory
        self.arriving = Arriving(self._own_descriptor, memory)
        self._stage = stage
        self._slot = slot
        self._lock = threading.Lock()
        self._abandoned = False
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="staging", daemon=True)
        self.result: StagedImport | None = None
        self.error: BaseException | None = None

    @property
    def was_postponed(self) -> bool:
        """Whether it has ended since there was no memory for it, and another run must do all of it at the end."""
        return isinstance(self.error, PostponedError)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def outcome(self) -> StagedImport:
        """What was staged; raises what went wrong."""
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise RuntimeError("staging has not ended")
        return self.result

    def take(self) -> StagedImport | None:
        """What was staged, which is no longer the run's."""
        with self._lock:
            result, self.result = self.result, None
            return result

    def abandon(self, error: StoreError) -> None:
        """Nobody wants it any more: it ends as soon as it can, and leaves nothing. Does not wait for that."""
        self.arriving.cancel()
        with self._lock:
            self._abandoned = True
            ended, result, self.result = self._ended, self.result, None
            self.error = self.error or error
        if ended and result is not None:
            threading.Thread(target=result.discard, name="discard", daemon=True).start()

    def _work(self) -> None:
        result: StagedImport | None = None
        error: BaseException | None = None
        try:
            result = self._stage(self.arriving)
        except BaseException as failed:  # handed to whoever waits for the outcome
            error = failed
            _clear_frames(failed)
        finally:
            os.close(self._own_descriptor)
            self._memory.give_back(self.arriving)
            self._slot.release()
        with self._lock:
            self._ended = True
            if not self._abandoned:
                self.result, self.error = result, error
                return
        if result is not None:
            result.discard()


def _clear_frames(error: BaseException | None) -> None:
    """Have an exception, which may be kept for long, not keep a decoder and its memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
