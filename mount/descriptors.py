"""Standard input, output and error that were closed, as by `>&-`: their numbers must not go to what is opened later,
since whatever is written to standard error, as by libfuse, would end up in it."""

from __future__ import annotations

import os
import sys

INPUT, OUTPUT, ERROR = 0, 1, 2


def fill_closed() -> None:
    """Have all three stand for something. What is read from there or written there itself fails, as it should; what is
    only said is lost."""
    for number, flags in ((INPUT, os.O_WRONLY), (OUTPUT, os.O_RDONLY), (ERROR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free, which is this one
    # Python has made nothing of those that were closed.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
