"""Prepare standard input, output and error.

A closed one, as by `>&-`, must not leave its number to a file that is opened later: text for standard error, such as
libfuse's, would end up in that file. A terminal gets the characters of its locale.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys

INPUT, OUTPUT, ERROR = 0, 1, 2


def fill_closed() -> None:
    """Open /dev/null in place of each closed one. Reads of descriptor 0 and writes to descriptor 1 still fail, as they
    should. Python's prints and messages on standard error are lost."""
    for number, flags in ((INPUT, os.O_WRONLY), (OUTPUT, os.O_RDONLY), (ERROR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free, which is this one
    # Python sets the streams of closed descriptors to None.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def write_in_terminals_charset() -> None:
    """Write to terminals in the locale's charset: bytes of UTF-8 might be control characters there. Files and pipes get
    UTF-8, so names in them keep their bytes."""
    charset = locale.nl_langinfo(locale.CODESET)
    try:
        if codecs.lookup(charset).name in ("utf-8", "ascii"):  # a terminal without any locale most likely has UTF-8
            return
    except LookupError:
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.reconfigure(encoding=charset, errors="backslashreplace")
