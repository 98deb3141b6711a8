"""Walk of a model's directory on this machine: its files, its directories, and the targets of its links.

Directories are opened below a descriptor, without following links. A link is replaced by its target if the target lies
within the model, or if the user has allowed links that lead out.
"""

from __future__ import annotations

import functools
import os
import stat
import time
from collections.abc import Callable

from bentofs.store.errors import BadModelError, SourceChangedError, UnsafeMemberError
from bentofs.store.storage.base import Identity
from bentofs.store.storage.entries import Entries, EntriesBuilder
from bentofs.store.storage.timestamps import is_settled

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
MAX_MEMBERS = 1_000_000  # files and directories in one model; no real model comes near
MAX_LINKED = 10_000  # of them reached through links, which can multiply the entries
MAX_DEPTH = 100  # nested directories; each one holds a descriptor open during the walk


class Walk:
    """One walk of a model's directory."""

    def __init__(
        self,
        root: str,
        model: str,
        open_folder: Callable[[str], int],
        show: Callable[[str], str],
        *,
        follow_links: bool,
    ) -> None:
        """`root`: of the store; `model`: the model's directory below it; `open_folder`: opens a directory below the
        root, without leaving it; `show`: formats a path below the root for errors; `follow_links`: also follow links
        that lead out of the model."""
        self._root = root
        self._model = model
        self._open_folder = open_folder
        self._show_in_store = show
        self._follow_links = follow_links
        self._entries = EntriesBuilder(model)
        self._linked = 0  # entries reached through links
        self._within_links = 0  # number of links followed to the current position
        self._newest = 0
        self._looks: dict[str, Identity] = {}  # of the directories

    @functools.cached_property
    def _real(self) -> str:
        """The model's real path, with which link targets are compared: links may lead to the store itself."""
        return os.path.realpath(os.path.join(self._root, self._model))

    def run(self, folder: int) -> tuple[Entries, int]:
        """Do what `Storage.walk` does. `folder`: a descriptor of the model's directory."""
        started_ns = time.time_ns()
        self._visit(folder, "", self._model, [])
        # Names that changed within a tick of the walk left the same times.
        settled = all(is_settled(look.ctime_ns, started_ns) for look in self._looks.values())
        return self._entries.build(self._looks if settled and not self._linked else None), self._newest

    def _visit(self, folder: int, path: str, source: str, above: list[tuple[int, int]]) -> None:
        look = os.fstat(folder)
        here = (look.st_dev, look.st_ino)
        if here in above:
            raise UnsafeMemberError(
                f"{self._show(path)} is a link to a directory around it: links must not make a cycle"
            )
        if len(above) >= MAX_DEPTH:
            raise BadModelError(f"{self._show(path)} lies more than {MAX_DEPTH} directories deep")
        self._newest = max(self._newest, look.st_ctime_ns)
        self._looks[path] = Identity.of(look)
        above.append(here)
        with os.scandir(folder) as found:
            for entry in found:
                name = entry.name
                try:
                    look = entry.stat(follow_symlinks=False)
                    self._take(folder, name, look, f"{path}/{name}" if path else name, f"{source}/{name}", above)
                except FileNotFoundError:
                    below = self._show(f"{path}/{name}" if path else name)
                    raise SourceChangedError(f"{below} vanished while the model was looked at") from None
        above.pop()

    def _take(
        self, folder: int, name: str, look: os.stat_result, path: str, source: str, above: list[tuple[int, int]]
    ) -> None:
        if len(self._entries) >= MAX_MEMBERS:
            raise BadModelError(f"{self._show('')} holds more than {MAX_MEMBERS:,} files and directories")
        if self._within_links:
            self._linked += 1
            if self._linked > MAX_LINKED:
                of = self._show("")
                raise BadModelError(f"{of} holds more than {MAX_LINKED:,} files and directories behind links")
        if look.st_ctime_ns > self._newest:
            self._newest = look.st_ctime_ns
        if stat.S_ISREG(look.st_mode):
            self._entries.add(path, False, bool(look.st_mode & stat.S_IXUSR), Identity.of(look), source)
        elif stat.S_ISDIR(look.st_mode):
            self._entries.add(path, True, True, None, source)
            below = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            try:
                self._visit(below, path, source, above)
            finally:
                os.close(below)
        elif stat.S_ISLNK(look.st_mode):
            self._take_link(path, source, above)
        else:
            raise UnsafeMemberError(
                f"{self._show(path)} is a device, socket or pipe: archives hold files and directories"
            )

    def _take_link(self, path: str, source: str, above: list[tuple[int, int]]) -> None:
        """Add the target of a link in place of the link."""
        at = source if source.startswith("/") else os.path.join(self._root, source)
        target = os.path.realpath(at)
        inside = target == self._real or target.startswith(self._real + "/")
        if not inside and not self._follow_links:
            raise UnsafeMemberError(
                f"{self._show(path)} is a link that leads out of the model: replace it by the file, "
                "or mount with --follow-links"
            )
        try:
            look = os.lstat(target)
        except OSError:
            raise UnsafeMemberError(f"{self._show(path)} is a link that leads nowhere: remove it") from None
        is_below = inside and not self._follow_links
        real_source = f"{self._model}{target[len(self._real) :]}" if is_below else target
        if stat.S_ISLNK(look.st_mode):  # realpath stops at a loop and returns a link
            raise UnsafeMemberError(f"{self._show(path)} is a link to itself: remove it")
        self._within_links += 1
        if stat.S_ISDIR(look.st_mode):
            self._newest = max(self._newest, look.st_ctime_ns)
            self._entries.add(path, True, True, None, real_source)
            below = self._open_folder(real_source) if is_below else os.open(target, FOLDER | os.O_NOFOLLOW)
            try:
                self._visit(below, path, real_source, above)
            finally:
                os.close(below)
        else:
            self._take(-1, "", look, path, real_source, above)
        self._within_links -= 1

    def _show(self, path: str) -> str:
        return self._show_in_store(f"{self._model}/{path}" if path else self._model)
