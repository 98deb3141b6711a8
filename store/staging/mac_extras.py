"""Files that macOS adds when it packs and copies. They are no part of a model: the same model from Linux has none.

`._x` beside `x` holds the extended attributes of `x` in the AppleDouble format. Finder puts these files into a
directory `__MACOSX` of a zip. `.DS_Store` holds Finder's view settings of a directory. A `._x` that does not begin with
AppleDouble's magic number, or has no `x` beside it, is an ordinary file.

Threading: one thread for each directory, which nobody else changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence

from bentofs.store.storage.base import Entry, Storage
from bentofs.store.util.display import printable

_MAGIC = b"\0\5\x16\7"  # AppleDouble's
_PREFIX = "._"
_FINDERS = ".DS_Store"
_FOLDER_IN_ZIPS = "__MACOSX"
_SHOWN = 3  # names in a sentence
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def without_extras(storage: Storage, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the entries of a model in a store without the files that macOS added. BentoML imports them, and so did
    older releases of bentofs.

    Raises:
        SourceChangedError, StoreUnreadableError: while opening or reading a file.
    """
    if not any(may_be_extra(entry.path.split("/")) for entry in entries):
        return entries
    paths = {entry.path for entry in entries}
    kept = [entry for entry in entries if not _is_stored_extra(storage, entry, paths)]
    needed = {above for entry in kept if not entry.is_folder for above in _folders_above(entry.path)}
    return [entry for entry in kept if not (entry.is_folder and is_of_zips(entry.path)) or entry.path in needed]


def may_be_extra(names: Iterable[str]) -> bool:
    """Tell whether macOS may have added the file with these names on its path, from the top down."""
    return any(name.startswith(_PREFIX) or name in (_FINDERS, _FOLDER_IN_ZIPS) for name in names)


class MacExtras:
    """The files of macOS that were removed from one model."""

    def __init__(self) -> None:
        self._count = 0
        self._shown: list[str] = []

    @property
    def sentence(self) -> str | None:
        """Return a sentence for the user; None if nothing was removed."""
        if not self._count:
            return None
        names = ", ".join(map(printable, self._shown)) + (", ..." if self._count > len(self._shown) else "")
        files = "1 file" if self._count == 1 else f"{self._count:,} files"
        return f"left out {files} that macOS adds: {names}"

    def remove_below(self, folder: int) -> list[str]:
        """Remove the files from a directory and all directories below it. Return their paths.

        Raises:
            OSError: the file system refuses.
        """
        removed: list[str] = []
        self._visit(folder, "", removed)
        return removed

    def remove_from(self, folder: int, path: str, names: Iterable[str]) -> list[str]:
        """Remove the files from one directory, which has this path in the model and holds these names. Return their
        names.

        Raises:
            OSError: the file system refuses.
        """
        found = set(names)
        is_in_zips = _FOLDER_IN_ZIPS in path.split("/")
        extras = [name for name in sorted(found) if _is_extra(folder, name, found, is_in_zips)]
        for name in extras:
            os.unlink(name, dir_fd=folder)
            self._count += 1
            if len(self._shown) < _SHOWN:
                self._shown.append(f"{path}/{name}" if path else name)
        return extras

    def _visit(self, folder: int, path: str, removed: list[str]) -> None:
        with os.scandir(folder) as entries:
            names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        prefix = f"{path}/" if path else ""
        removed += [prefix + name for name in self.remove_from(folder, path, names)]
        for name in sorted(name for name, is_folder in names.items() if is_folder):
            descriptor = os.open(name, _OPEN_FOLDER, dir_fd=folder)
            try:
                self._visit(descriptor, prefix + name, removed)
                is_left = bool(os.listdir(descriptor)) or not is_of_zips(prefix + name)
            finally:
                os.close(descriptor)
            if not is_left:
                os.rmdir(name, dir_fd=folder)


def is_of_zips(path: str) -> bool:
    """Tell whether a directory is Finder's own in a zip, or lies in it. It is removed when it is empty."""
    return _FOLDER_IN_ZIPS in path.split("/")


def _is_extra(folder: int, name: str, names: set[str], is_in_zips: bool) -> bool:
    if not _may_be(name, names.__contains__, is_in_zips):
        return False
    try:
        descriptor = os.open(name, _OPEN_FILE, dir_fd=folder)
    except OSError:  # a link or a socket
        return False
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_file and (name == _FINDERS or os.pread(descriptor, len(_MAGIC), 0) == _MAGIC)
    finally:
        os.close(descriptor)


def _is_stored_extra(storage: Storage, entry: Entry, paths: set[str]) -> bool:
    above, slash, name = entry.path.rpartition("/")
    if entry.identity is None or not _may_be(name, lambda beside: above + slash + beside in paths, is_of_zips(above)):
        return False
    if name == _FINDERS:
        return True
    start = bytearray(min(len(_MAGIC), entry.size))
    if start:
        storage.open_file(entry.source, entry.identity).read_into([memoryview(start)], 0)
    return start == _MAGIC


def _may_be(name: str, is_there: Callable[[str], bool], is_in_zips: bool) -> bool:
    """Tell whether a file with this name is an extra, if its content begins like one. `is_there`: tells whether a name
    is beside it."""
    beside = name.removeprefix(_PREFIX)
    if beside == name:
        return name == _FINDERS
    return is_in_zips or beside == "." or is_there(beside)  # `._.` belongs to the directory itself


def _folders_above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
