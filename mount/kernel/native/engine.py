"""The engine that speaks the kernel's FUSE protocol itself, without libfuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bentofs.mount.kernel.mount_table import UnmountError, unmount
from bentofs.mount.kernel.native.device import Device, open_mount
from bentofs.mount.kernel.native.handle_table import HandleTable
from bentofs.mount.kernel.native.handshake import Agreement, shake_hands
from bentofs.mount.kernel.native.passthrough import Passthrough, stack_depth
from bentofs.mount.kernel.native.protocol import InitFlag
from bentofs.mount.kernel.native.server import Caller, Server
from bentofs.mount.kernel.operations import Operations
from bentofs.mount.kernel.workers import Workers
from bentofs.store.util.memory_budget import MemoryBudget


class KernelEngine:
    """Serves one mount over /dev/fuse."""

    def __init__(
        self, mountpoint: str, source: str, options: Sequence[str], store: str | None, budget: MemoryBudget
    ) -> None:
        """`source`: the device that the kernel's mount table shows; `store`: the directory whose files the kernel may
        read itself; `budget`: of the process's memory."""
        self._mountpoint = mountpoint
        self._source = source
        self._options = options
        self._store = store
        self._budget = budget
        self.handles = HandleTable()
        self._caller = Caller()
        self._agreement: Agreement | None = None  # None before the mount
        self._server: Server | None = None  # None before the mount

    @property
    def features(self) -> Sequence[str]:
        """Return the names of the features that were agreed on with the kernel."""
        agreed = self._agreement
        return [flag.name.lower() for flag in InitFlag if flag.name and agreed is not None and flag & agreed.flags]

    @property
    def nodes(self) -> int | None:
        """Return how many files and directories the kernel remembers. None before the mount."""
        return len(self._server.nodes) if self._server is not None else None

    def calling_user(self) -> int:
        """Return the uid of the program whose request this thread serves."""
        return self._caller.uid

    def mount(self, operations: Operations, workers: Workers) -> KernelMount:
        """Mount.

        Raises:
            CannotMountError: the helper or the kernel refused.
        """
        device = open_mount(self._mountpoint, self._source, self._options)
        try:
            agreement = self._agreement = shake_hands(device.descriptor, stack_depth(self._store))
        except BaseException:
            device.close()
            try:
                unmount(self._mountpoint, lazy=True)
            except UnmountError:
                pass  # it is unmounted already
            raise
        passthrough = Passthrough(
            device.descriptor, self.handles, is_agreed=bool(agreement.flags & InitFlag.PASSTHROUGH)
        )
        self._server = Server(device.descriptor, operations, workers, self._caller, passthrough, self._budget)
        return KernelMount(device, self._server)

    def begin(self) -> None:
        """Do nothing: nothing needs a mount that answers."""

    def stop(self) -> None:
        """Do nothing: nothing runs beside the workers."""


class KernelMount:
    """A mount, from INIT until `tear_down`."""

    def __init__(self, device: Device, server: Server) -> None:
        self._device = device
        self._server = server

    def serve(self) -> None:
        """Serve requests until the mount ends."""
        self._server.serve()

    def one_by_one(self) -> Callable[[], bool]:
        """Return a function that serves one request, for one thread. It returns False when the mount has ended."""
        return self._server.one_by_one()

    def watched(self) -> Callable[[], bool]:
        """Return a function that tells whether requests wait for a thread to take them."""
        return self._server.watched()

    def tear_down(self) -> None:
        """Close the device. Call it after all threads have left the device: its number may then become another
        file's."""
        self._device.close()
