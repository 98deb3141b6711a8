"""Directories of a model that is being staged: made and opened one below the other, never through a link.

Threading: one thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from bentofs.store.errors import UnsafeMemberError
from bentofs.store.util.display import printable
from bentofs.store.util.fs import FOLDER, writing
from bentofs.store.util.names import local_name

_COMPARED = 1 << 20  # bytes compared at a time
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StagedTree:
    """The directories below one new directory. It keeps the directories around the last member open."""

    def __init__(self, path: str, folder_mode: int, count_member: Callable[[], None]) -> None:
        """Make the directory `path`. `count_member`: called for each directory that is made below it."""
        os.mkdir(path, 0o700)
        self.root = os.open(path, FOLDER)
        self._folder_mode = folder_mode
        self._count_member = count_member
        self._above: list[tuple[str, int]] = []  # name and descriptor of each directory around the last member
        self._folds = self._file_system_folds_names()

    def close(self) -> None:
        """Close all descriptors."""
        self._leave_to(0)
        os.close(self.root)

    def enter(self, parts: list[str], path: str) -> int:
        """Return the descriptor of a directory, which is made unless it exists. The descriptor stays open until the
        next call. `path`: the member's, for errors."""
        same = 0
        while same < min(len(parts), len(self._above)) and self._above[same][0] == parts[same]:
            same += 1
        self._leave_to(same)
        for name in parts[same:]:
            self._above.append((name, self._folder_in(self._above[-1][1] if self._above else self.root, name, path)))
        return self._above[-1][1] if self._above else self.root

    def look(self, path: str) -> os.stat_result | None:
        """Return the stat at a path, links not followed; None if nothing is there."""
        try:
            return os.stat(path or ".", dir_fd=self.root, follow_symlinks=False)
        except OSError:
            return None

    def has_file(self, path: str) -> bool:
        """Tell whether a file is at a path."""
        look = self.look(path)
        return look is not None and stat.S_ISREG(look.st_mode)

    def names(self, path: str) -> list[str]:
        """List a directory."""
        with writing(path):
            descriptor = os.open(path, FOLDER, dir_fd=self.root)
            try:
                return os.listdir(descriptor)
            finally:
                os.close(descriptor)

    def has_name(self, folder: int, name: str) -> bool:
        """Tell whether a directory holds exactly this name, not another name that the file system treats as equal."""
        return not self._folds or name in os.listdir(folder)

    def have_same_content(self, path: str, other: str, compared: Callable[[int], None]) -> bool:
        """Tell whether two files exist and have the same content. `compared`: called before bytes are compared."""
        if not (self.has_file(path) and self.has_file(other)):
            return False
        files = [os.open(each, READ_FILE, dir_fd=self.root) for each in (path, other)]
        try:
            sizes = [os.fstat(file).st_size for file in files]
            for offset in range(0, sizes[0] if sizes[0] == sizes[1] else 0, _COMPARED):
                compared(min(_COMPARED, sizes[0] - offset))
                if os.pread(files[0], _COMPARED, offset) != os.pread(files[1], _COMPARED, offset):
                    return False
            return sizes[0] == sizes[1]
        finally:
            for file in files:
                os.close(file)

    def _leave_to(self, depth: int) -> None:
        while len(self._above) > depth:
            os.close(self._above.pop()[1])

    def _folder_in(self, folder: int, name: str, path: str) -> int:
        with writing(path):
            try:
                os.mkdir(name, 0o700, dir_fd=folder)
                is_new = True
            except FileExistsError:
                is_new = False
                if not self.has_name(folder, name):
                    raise twice(path) from None
            except OSError as error:
                raise bad_name(path, error) from None
            if is_new:
                self._count_member()
            try:
                descriptor = os.open(name, FOLDER, dir_fd=folder)
            except NotADirectoryError:
                raise UnsafeMemberError.in_archive(
                    printable(path), "but also a file in the place of a directory around it"
                ) from None
            if is_new:
                os.fchmod(descriptor, self._folder_mode)
        return descriptor

    def _file_system_folds_names(self) -> bool:
        """Tell whether the file system treats names that differ by case or by Unicode form as equal."""
        name, *others = map(local_name, ("case-\u00e9", "CASE-\u00c9", "case-e\u0301"))
        os.mkdir(name, dir_fd=self.root)
        try:
            return any(self.look(other) is not None for other in others)
        finally:
            os.rmdir(name, dir_fd=self.root)


def twice(path: str) -> UnsafeMemberError:
    """Return the error for a path that exists already."""
    return UnsafeMemberError(
        f"the archive holds {printable(path)!r} twice, or a second name that this file system takes "
        "for the same: rename one"
    )


def bad_name(path: str, error: OSError) -> Exception:
    """Translate an error of making a file or directory with this name."""
    if error.errno in (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG):
        return UnsafeMemberError.in_archive(printable(path), "a name that this file system does not take")
    return error
