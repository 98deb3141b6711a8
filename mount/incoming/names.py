"""The meaning of names in `incoming/`: a file that is still being written, an archive, or a note beside a file.

Paths are below `incoming/`.
"""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple

from bentofs.store.integrity.sha256sums import ALL_SUMS, SUFFIX

FILE_MODE = stat.S_IFREG | 0o644  # of all files in incoming/
ERROR_SUFFIX = ".error"

# Programs write under these names, and rename the file once it is whole: browsers, WinSCP, wget's front ends.
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".filepart", ".tmp", ".temp", "~")
_RSYNC = re.compile(r"\.(.+)\.\w{6}", re.DOTALL)  # receiver.c, get_tmpname: .name.XXXXXX
_ARCHIVES = (
    ".bentomodel",
    *(".tar", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".tgz", ".txz", ".tbz2", ".tbz", ".tzst"),
    ".zip",
)


class UploadKind(NamedTuple):
    """The kind of a file, by its path and the files beside it."""

    is_archive: bool  # it is to be imported
    is_strict: bool  # it must hold a model
    fails_early: bool  # a known error already fails a write


NO_ARCHIVE = UploadKind(is_archive=False, is_strict=False, fails_early=False)


def is_on_its_way(path: str) -> bool:
    """Return True if a file of this name is not imported before it is renamed. rsync's --delay-updates and
    --partial-dir use directories that begin with a dot."""
    return any(part.startswith(".") for part in path.split("/")) or path.lower().endswith(_UNFINISHED)


def is_rsyncs(path: str) -> bool:
    """Return True if rsync writes a file, or keeps an interrupted one, under this name."""
    folder, _, name = path.rpartition("/")
    return _RSYNC.fullmatch(name) is not None or any(part.startswith(".") for part in folder.split("/"))


def is_note(path: str) -> bool:
    """Return True if the file says something about other files: checksums, or the reason of a refusal."""
    return path.endswith((ERROR_SUFFIX, SUFFIX)) or os.path.basename(path) == ALL_SUMS


def may_be_archive(path: str) -> bool:
    """Return True if a file may be a model's archive. At the top, any name will do. Further down the name must say so,
    because files of a directory that is a model may lie there."""
    final = final_path(path)
    return not is_note(final) and ("/" not in final or final.lower().endswith(_ARCHIVES))


def must_be_archive(path: str) -> bool:
    """Return True if it is an error that the file is no archive. A model's own files may be zip and tar files, too."""
    final = final_path(path)
    return not is_note(final) and ("/" not in final or final.lower().endswith(".bentomodel"))


def final_path(path: str) -> str:
    """Return the path that a file on its way will probably get."""
    folder, _, name = path.rpartition("/")
    temporary = _RSYNC.fullmatch(name)
    if temporary is not None:
        name = temporary[1]
    else:
        suffix = next((suffix for suffix in _UNFINISHED if name.lower().endswith(suffix) and name != suffix), "")
        name = name[: len(name) - len(suffix)]
    folders = [part for part in folder.split("/") if part and not part.startswith(".")]
    return "/".join([*folders, name])
