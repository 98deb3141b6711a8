"""Standard input, output and error as this process was given them.

Those that were closed, as by `>&-`, must not leave their numbers to what is opened later: whatever is written to
standard error, as by libfuse, would end up in it. A terminal gets the characters of its locale.
"""

from __future__ import annotations

import codecs
import io
import locale
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


def write_in_terminals_charset() -> None:
    """Have terminals get text in the locale's charset, in which bytes of UTF-8 might be control characters. Files and
    pipes get UTF-8, so that names in them are the bytes that they are."""
    charset = locale.nl_langinfo(locale.CODESET)
    try:
        if codecs.lookup(charset).name in ("utf-8", "ascii"):  # a terminal without any locale most likely has UTF-8
            return
    except LookupError:
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.reconfigure(encoding=charset, errors="backslashreplace")
