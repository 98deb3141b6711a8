"""Request: a request of the kernel. Answer: a reply that can be undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bentofs.mount.kernel.names import decoded
from bentofs.mount.kernel.native.protocol import IN_HEADER


class Request:
    """One request. It is valid until its thread reads the next one: the body lies in the thread's buffer."""

    __slots__ = ("body", "node", "opcode", "thread", "uid", "unique")

    def __init__(self, view: memoryview, size: int) -> None:
        _, self.opcode, self.unique, self.node, self.uid, _, self.thread, _, _ = IN_HEADER.unpack_from(view)
        self.body = view[IN_HEADER.size : size]  # `thread`: the kernel's number of the caller; 0 if it has none

    def name(self, at: int = 0) -> str:
        """Return the name that ends the body, from `at` on."""
        return decoded(bytes(self.body[at:-1]))

    def names(self, at: int) -> tuple[str, str]:
        """Return the two names that end the body, from `at` on."""
        first, second, _ = bytes(self.body[at:]).split(b"\0")
        return decoded(first), decoded(second)


class Answer(NamedTuple):
    """The body of a reply, and a function that undoes the operation if nobody gets the reply."""

    body: bytes
    undo: Callable[[], None]
