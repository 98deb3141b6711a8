"""Ask questions that may never be answered, such as a look at a mount whose daemon is stopped. Child processes ask:
the kernel may hold a process for as long as a daemon does not answer."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

Tell = Callable[[bytes], None]
_AT_ONCE = 32
_MOST_HELD = 64  # children that the kernel holds, over all calls
_MOST = 4 << 20  # bytes of one answer
_READ = 1 << 16

_held: list[int] = []  # the pids of killed children that have not ended yet


def ask_all(questions: Sequence[Callable[[Tell], None]], seconds: float) -> list[tuple[bytes, bool]]:
    """Ask all questions. Return, for each, the bytes that it told, and whether it ended within `seconds`.

    Call it while this process has one thread: a question runs in a copy of the process.
    """
    answers: list[tuple[bytes, bool]] = []
    _held[:] = [child for child in _held if os.waitpid(child, os.WNOHANG) == (0, 0)]
    if len(_held) > _MOST_HELD:
        return [(b"", False)] * len(questions)
    for begin in range(0, len(questions), _AT_ONCE):
        answers += _ask(questions[begin : begin + _AT_ONCE], seconds)
    return answers


def _ask(questions: Sequence[Callable[[Tell], None]], seconds: float) -> list[tuple[bytes, bool]]:
    children = [_begin(question) for question in questions]
    told = {pipe: b"" for _, pipe in children}
    waiting = set(told)
    deadline = time.monotonic() + seconds
    try:
        while waiting and (rest := deadline - time.monotonic()) > 0:
            for pipe in select.select(list(waiting), [], [], rest)[0]:
                part = os.read(pipe, _READ)
                told[pipe] += part
                if not part or len(told[pipe]) > _MOST:
                    waiting.discard(pipe)
    finally:
        for child, pipe in children:
            os.close(pipe)
            if pipe in waiting or len(told[pipe]) > _MOST:
                os.kill(child, signal.SIGKILL)
                _held.append(child)  # do not wait: the kernel may hold it until the daemon answers
            else:
                os.waitpid(child, 0)
    return [(told[pipe], pipe not in waiting) for _, pipe in children]


def _begin(question: Callable[[Tell], None]) -> tuple[int, int]:
    """Start a child that asks. Return its pid, and the descriptor from which its answer comes."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.close(receiver)
            question(lambda content: _write(sender, content))
        os._exit(0)
    os.close(sender)
    return child, receiver


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
