"""Tune this process for many open files and many long-lived objects."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
from contextlib import suppress

_ALLOCATIONS = 10_000  # objects made minus objects freed between two garbage collections; Python's default is 700
_DESCRIPTORS = 1023  # open in a busy daemon: files being read, uploads, requests under way


def collect_seldom() -> None:
    """Make Python collect cyclic garbage less often. There is hardly any, and each full collection of a large store's
    objects stops every reader for a tenth of a second."""
    gc.freeze()  # loaded modules live as long as the process
    gc.set_threshold(_ALLOCATIONS)


def allow_many_files() -> None:
    """Raise the limit of open files: models that are being read need many, and each request under way a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The kernel's table of open files grows by doubling. Once there are threads, each growth makes an open wait for
    # milliseconds. The table never shrinks, so make it grow now.
    with suppress(OSError), open(os.devnull) as any_file:  # a lower limit is no error
        os.close(fcntl.fcntl(any_file, fcntl.F_DUPFD_CLOEXEC, _DESCRIPTORS))
