"""Engine: speaks to the kernel for one mount. All engines call the same operations (`mount.kernel.operations`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from bentofs.mount.kernel.operations import Handles, Operations
from bentofs.mount.kernel.workers import Workers
from bentofs.store.util.memory_budget import MemoryBudget


class EngineName(Enum):
    """The values of `--engine`."""

    KERNEL = "kernel"  # the kernel's FUSE protocol, spoken over /dev/fuse
    LIBFUSE2 = "libfuse2"  # libfuse 2, through fusepy


# No other engine steps in by itself where this one cannot serve: a program would meet other promises (SEMANTICS.md)
# without anybody's choice, and libfuse 2 is seldom installed. The error names the option instead.
DEFAULT_ENGINE = EngineName.KERNEL


class EngineMount(Protocol):
    """An engine's mount, until `tear_down`."""

    def serve(self) -> None:
        """Serve requests until the mount ends."""

    def one_by_one(self) -> Callable[[], bool]:
        """Return a function that serves one request, for one thread. It returns False when the mount has ended."""

    def watched(self) -> Callable[[], bool]:
        """Return a function that tells whether requests wait for a thread to take them."""

    def tear_down(self) -> None:
        """Free the mount's resources. Call it when no thread serves any more."""


class Engine(Protocol):
    """Serves one mount."""

    @property
    def handles(self) -> Handles:
        """Return the open files of the tree."""

    @property
    def features(self) -> Sequence[str]:
        """Return the names of the kernel's features in use, once mounted. Empty if the engine cannot tell."""

    @property
    def nodes(self) -> int | None:
        """Return how many files and directories the kernel remembers. None if the engine cannot tell."""

    def calling_user(self) -> int:
        """Return the uid of the program whose request this thread serves."""

    def mount(self, operations: Operations, workers: Workers) -> EngineMount:
        """Mount.

        Raises:
            CannotMountError: the text says why.
        """

    def begin(self) -> None:
        """Start the work that needs a mount that answers."""

    def stop(self) -> None:
        """Stop the threads that run beside the workers."""


def new_engine(
    name: EngineName,
    mountpoint: str,
    source: str,
    options: Sequence[str],
    store: str | None,
    budget: MemoryBudget,
) -> Engine:
    """Return the engine of this name for a mountpoint.

    `source`: the device that the kernel's mount table shows; `options`: as in `mount -o`;
    `store`: the directory whose files the kernel may read itself, if the engine supports it; `budget`: of the
    process's memory.

    libfuse is loaded only if its engine is chosen: it may not be installed.
    """
    if name is EngineName.KERNEL:
        from bentofs.mount.kernel.native.engine import KernelEngine

        return KernelEngine(mountpoint, source, options, store, budget)
    from bentofs.mount.kernel.libfuse2.engine import Libfuse2Engine

    return Libfuse2Engine(mountpoint, source, options)
