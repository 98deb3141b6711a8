"""Names of files as text, whatever the locale of the process.

A file's name is bytes. Python's functions take and give them decoded by the file system encoding (`os.fsdecode`): UTF-8
in most processes, the locale's in the others. Archives, objects on servers and manifests have the same bytes as UTF-8.
Bytes that are not valid stand as surrogates in both.

Threading: functions without state.
"""

from __future__ import annotations

import os
import sys

_ARE_THE_SAME = sys.getfilesystemencoding().lower() == "utf-8"


def local_name(text: str) -> str:
    """Return the name on this machine of what an archive or a server calls `text`.

    Raises:
        UnicodeEncodeError: no bytes can stand for it (where the encoding is UTF-8, only its use raises that).
    """
    return text if _ARE_THE_SAME else os.fsdecode(text.encode("utf-8", "surrogateescape"))


def portable_name(name: str) -> str:
    """Return what archives and servers call the file that has a name on this machine."""
    return name if _ARE_THE_SAME else os.fsencode(name).decode("utf-8", "surrogateescape")
