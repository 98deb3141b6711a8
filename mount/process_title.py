"""What other users of the machine can read of this process: secrets among its arguments are painted over.

Linux shows the memory in which the arguments came, and lets the process write to it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress

_ARGUMENTS = 47  # where /proc/self/stat has the start of the arguments, counted from 0; their end is next


def hide(secrets: Iterable[str]) -> None:
    """Replace secrets by asterisks in what `ps` shows. Where that is not possible, nothing happens."""
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[_ARGUMENTS - 2]), int(fields[_ARGUMENTS - 1])
        if not 0 < start < end:
            return
        content = ctypes.string_at(start, end - start)
        hidden = content
        for secret in secrets:
            raw = os.fsencode(secret)
            if raw:
                hidden = hidden.replace(raw, b"*" * len(raw))
        if hidden != content:
            ctypes.memmove(start, hidden, len(hidden))
