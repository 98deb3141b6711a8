"""StagingRun: one attempt to stage an upload, in its own thread; and the limits on how many run at once.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

from bentofs.mount.incoming.decoder_memory import DecoderMemory
from bentofs.mount.incoming.upload_reader import UploadReader
from bentofs.store.errors import PostponedError
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.transfer.importer import StagedImport
from bentofs.store.util.memory_budget import MemoryBudget
from bentofs.store.util.threads import run_beside

_EARLY_RUNS = 4  # uploads that are staged while they arrive
_LATE_RUNS = 2  # uploads that are staged once they are whole: they wait for nobody else, so each gets its turn

# Stages a file, and calls the function once the file is known to hold a model.
Stage = Callable[[ArrivingFile, Callable[[], None]], StagedImport]


class Slots:
    """The limits on uploads that are staged at once, and the memory that they share."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.memory = DecoderMemory(budget)
        self.early = threading.Semaphore(_EARLY_RUNS)
        self.late = threading.Semaphore(_LATE_RUNS)


class Stager:
    """Starts the runs that stage uploads."""

    def __init__(self, stage: Stage, slots: Slots) -> None:
        self._stage = stage
        self._slots = slots

    def early(self, descriptor: int) -> StagingRun | None:
        """Start a run that follows a writer. Return None if too many others run, or if no thread can begin now."""
        if not self._slots.early.acquire(blocking=False):
            return None
        with suppress(RuntimeError):
            return self._start(descriptor, self._slots.early, None)
        return None

    def late(self, descriptor: int, length: int) -> StagingRun:
        """Start a run on a file that is whole, once there is a slot. `length`: of the file in bytes."""
        self._slots.late.acquire()
        return self._start(descriptor, self._slots.late, length)

    def _start(self, descriptor: int, slot: threading.Semaphore, length: int | None) -> StagingRun:
        try:
            run = StagingRun(descriptor, self._stage, slot, self._slots.memory)
            if length is not None:
                run.arriving.finish(length)
            run.start()
        except BaseException:
            slot.release()
            raise
        return run


class StagingRun:
    """One attempt to stage an upload, in its own thread."""

    def __init__(self, descriptor: int, stage: Stage, slot: threading.Semaphore, memory: DecoderMemory) -> None:
        """`slot`: already taken; the run gives it back when it ends."""
        self._own_descriptor = os.dup(descriptor)
        self._memory = memory
        self.arriving = UploadReader(self._own_descriptor, memory)
        self._stage = stage
        self._slot = slot
        self._lock = threading.Lock()
        self._found_model = threading.Event()
        self._abandoned = False
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="staging", daemon=True)
        self.result: StagedImport | None = None
        self.error: BaseException | None = None

    @property
    def holds_model(self) -> bool:
        """True if the run has found a `model.yaml` in the place where a model has it."""
        return self._found_model.is_set()

    @property
    def was_postponed(self) -> bool:
        """True if the run has ended because there was no memory for it. Another run must then stage everything at the
        end."""
        return isinstance(self.error, PostponedError)

    def start(self) -> None:
        try:
            self._thread.start()
        except BaseException:
            os.close(self._own_descriptor)
            raise

    def wait(self) -> None:
        self._thread.join()

    def outcome(self) -> StagedImport:
        """Return the staged import, or raise the run's error."""
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise RuntimeError("staging has not ended")
        return self.result

    def take(self) -> StagedImport | None:
        """Return the staged import, which then belongs to the caller. Return None if there is none."""
        with self._lock:
            result, self.result = self.result, None
            return result

    def abandon(self, error: BaseException) -> None:
        """Tell the run that nobody wants its result. It ends as soon as it can, and leaves nothing. This does not wait
        for the end."""
        self.arriving.cancel()
        with self._lock:
            self._abandoned = True
            ended, result, self.result = self._ended, self.result, None
            self.error = self.error or error
        if ended and result is not None:
            run_beside(result.discard, "discard")

    def _work(self) -> None:
        result: StagedImport | None = None
        error: BaseException | None = None
        try:
            result = self._stage(self.arriving, self._found_model.set)
        except BaseException as failed:  # raised to the thread that waits for the outcome
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
    """Clear the frames of an exception. It may be kept for long, and would keep a decoder and its memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
