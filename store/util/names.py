"""File names as text, in any locale of the process.

A file's name is bytes. Python decodes them by the file system encoding (`os.fsdecode`): UTF-8 in most processes, the
locale's encoding in the others. Archives, objects on servers and manifests always use UTF-8. Invalid bytes become
surrogates in both.

Threading: functions without state.
"""

from __future__ import annotations

import os
import sys

_ARE_THE_SAME = sys.getfilesystemencoding().lower() == "utf-8"


def local_name(text: str) -> str:
    """Return the name on this machine for the name `text` in an archive or on a server.

    Raises:
        UnicodeEncodeError: no bytes can represent it (with UTF-8 as the encoding, only using the name raises this).
    """
    return text if _ARE_THE_SAME else os.fsdecode(text.encode("utf-8", "surrogateescape"))


def portable_name(name: str) -> str:
    """Return the name in archives and on servers for a file name of this machine."""
    return name if _ARE_THE_SAME else os.fsencode(name).decode("utf-8", "surrogateescape")
