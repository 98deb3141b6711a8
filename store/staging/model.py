"""A model that is being staged: files and directories written below one new directory, checked and synced.

The unpacker passes the members of an archive in any order. No member can reach outside the directory: every file is
made anew there (openat, O_EXCL, O_NOFOLLOW), and no link is ever made. Links are replaced at the end by copies of their
targets (`store.staging.links`).

Threading: one thread stages a model. Other threads digest and fsync its files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bentofs.store.errors import UnsafeMemberError
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, ModelInfo
from bentofs.store.staging.file import KnownFiles, StagedFile, StagedFileWriter
from bentofs.store.staging.fsync_batch import Syncer
from bentofs.store.staging.hashing import Digester
from bentofs.store.staging.limits import Counts, Limits
from bentofs.store.staging.links import Links
from bentofs.store.staging.mac_extras import MacExtras, may_be_extra
from bentofs.store.staging.member_paths import local_path, member_parts
from bentofs.store.staging.model_root import find_top, read_model_yaml
from bentofs.store.staging.tree import READ_FILE, StagedTree, bad_name, twice
from bentofs.store.storage.base import Identity
from bentofs.store.util.display import printable
from bentofs.store.util.fs import FOLDER, remove_tree, writing

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Staged(NamedTuple):
    """A model that is ready to be published: checked and synced."""

    path: str  # the directory that holds model.yaml
    info: ModelInfo
    files: Mapping[str, StagedFile]  # by path below `path`; empty if there are too many to keep
    left_out: str | None = None  # a sentence about files that came with the model but are no part of it


class StagedModel:
    """A directory that is being filled. Every method may raise these errors:

    UnsafeMemberError: a path leads out of the model, or is in use already, or cannot be a file's name.
    TooBigError: the model exceeds the limits, or is so much larger than the archive that it is a bomb.
    NoSpaceError, StoreUnwritableError: the file system refuses.
    DamagedArchiveError: an earlier file does not have the expected CRC-32.
    """

    def __init__(
        self,
        path: str,
        limits: Limits | None = None,
        *,
        umask: int = 0o022,
        has_sha256: bool = True,
        on_model_yaml: Callable[[ModelInfo, bytes], None] | None = None,
        on_file: Callable[[str, StagedFile], None] = lambda _path, _file: None,
    ) -> None:
        """Make the directory `path`, which must not exist yet.

        `has_sha256`: False to leave out the SHA-256s of the files. `on_file`: called with each file and its path, as
        soon as it is complete; from any thread.
        `umask`: permissions that files and directories do not get. `on_model_yaml`: called with the model.yaml as soon
        as the model is known; an exception of it ends the staging. For a model in a top directory, it is called at the
        end only, since the archive may still bring a model.yaml above it.
        """
        self._path = path
        self._limits = limits or Limits()
        self._folder_mode = 0o777 & ~umask | 0o700
        self._file_mode = 0o666 & ~umask | 0o600
        self._program_mode = 0o777 & ~umask | 0o600
        self._has_sha256 = has_sha256
        self._on_model_yaml = on_model_yaml
        self._on_file = on_file
        self._counts = Counts(self._limits, None)
        self._begin()

    def _begin(self) -> None:
        self._counts = Counts(self._limits, self.archive_read)
        with writing(self._path):
            self._tree = StagedTree(self._path, self._folder_mode, self._counts.add_member)
        self._may_have_extras = False
        self._extras = MacExtras()
        self._files = KnownFiles()
        self._links = Links()
        self._info: ModelInfo | None = None
        self._digester = Digester()
        self._syncer = Syncer(self._tree.root)
        self._is_open = True

    @property
    def archive_read(self) -> Callable[[], int] | None:
        """Return the function that tells how many bytes of the archive were read; None if there is no archive."""
        return self._counts.archive_read

    @archive_read.setter
    def archive_read(self, archive_read: Callable[[], int] | None) -> None:
        self._counts.archive_read = archive_read

    @property
    def max_members(self) -> int:
        """The maximum number of files and directories."""
        return self._limits.members

    def folder(self, path: str) -> None:
        """Make a directory and the directories above it, unless they exist."""
        path = local_path(path)
        parts = member_parts(path)
        self._refuse_links(parts, path)
        self._tree.enter(parts, path)

    def file(self, path: str, executable: bool = False, *, replaces: bool = False) -> StagedFileWriter:
        """Return the writer of a new file; the directories above it are made. `replaces`: the new file replaces an
        existing one, because newer files may be appended to tars. A model.yaml is only replaced by an equal one."""
        path = local_path(path)
        parts = member_parts(path)
        if not parts:
            raise UnsafeMemberError(f"the archive holds a file without a name, {printable(path)!r}: make it again")
        if not (replaces and parts[-1] != MODEL_YAML and self._links.give_way("/".join(parts))):
            self._refuse_links(parts, path)
        self._digester.check()
        return self._new_file(parts, executable, replaces=replaces)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link. A copy of its target replaces it at the end; the target may come later."""
        self._link(local_path(path), local_path(target), is_hard=False)

    def hard_link(self, path: str, target: str) -> None:
        """Add a hard link to the file whose path in the archive is `target`. A copy of the file replaces the link at
        the end; the file may come later."""
        self._link(local_path(path), "/".join(member_parts(local_path(target))), is_hard=True)

    def pass_over(self, count: int) -> None:
        """Count bytes that came out of the archive but are no part of the model."""
        self._counts.pass_over(count)

    def make_executable(self, path: str) -> bool:
        """Make a written file executable; False if there is no such file."""
        path = "/".join(member_parts(local_path(path)))
        try:
            descriptor = os.open(path, READ_FILE, dir_fd=self._tree.root)
        except OSError:
            return False
        look = os.fstat(descriptor)
        if not stat.S_ISREG(look.st_mode):
            os.close(descriptor)
            return False
        with writing(path):
            os.fchmod(descriptor, self._program_mode)
            look = os.fstat(descriptor)
            self._digester.hand_over(lambda: self._files.renew(path, Identity.of(look)))
            self._syncer.file(descriptor, look.st_size)
        return True

    def restart(self) -> None:
        """Remove all staged files, and begin anew."""
        self.discard()
        self._begin()

    def finish(self, meanwhile: Callable[[Staged], None] = lambda _staged: None) -> Staged:
        """Replace the links, find the model, and wait until all of it is synced to disk. `meanwhile`: called with the
        model while the disk writes.

        Raises:
            NotAModelError: there is no model.yaml at its place, or it holds no tag.
            BadModelError: the model.yaml is malformed.
            StoreError: the errors of all methods, and the errors of `on_model_yaml`.
        """
        self._links.replace(self)
        self._digester.drain()
        with writing(self._path):
            self._leave_out_extras()
            top = find_top(self._tree)
            model = os.open(top or ".", FOLDER, dir_fd=self._tree.root)
            try:
                os.fchmod(model, self._folder_mode)
            finally:
                os.close(model)
        info = self._info or self._take_model_yaml(
            read_model_yaml(self._tree, f"{top}/{MODEL_YAML}" if top else MODEL_YAML)
        )
        path = os.path.join(self._path, top) if top else self._path
        staged = Staged(path, info, self._files.below(top), self._extras.sentence)
        meanwhile(staged)
        with writing(self._path):
            self._syncer.finish()
        self._close()
        return staged

    def discard(self) -> None:
        """Remove everything, at any stage. It may be called again, and after `finish`."""
        self._close()
        remove_tree(self._path)

    # The tree in which links are replaced (`store.staging.links.LinkTree`).

    def look(self, path: str) -> os.stat_result | None:
        """Return the stat at a path; None if nothing is there."""
        return self._tree.look(path)

    def names(self, path: str) -> list[str]:
        """List a directory."""
        return self._tree.names(path)

    def make_folder(self, path: str) -> None:
        """Make a directory."""
        self._tree.enter(member_parts(path), path)

    def copy_file(self, path: str, target: str) -> None:
        """Copy a file."""
        self._digester.check()
        with writing(path):
            descriptor = os.open(path, READ_FILE, dir_fd=self._tree.root)
        try:
            look = os.fstat(descriptor)
            with self._new_file(member_parts(target), bool(look.st_mode & stat.S_IXUSR)) as file:
                file.copy_range(descriptor, 0, look.st_size)
            self._digester.drain()  # it reads from the descriptor
        finally:
            os.close(descriptor)

    def _link(self, path: str, target: str, *, is_hard: bool) -> None:
        parts = member_parts(path)
        if not parts or "\0" in target:
            raise UnsafeMemberError(
                f"the archive holds a link without a name or target, {printable(path)!r}: make it again"
            )
        self._counts.add_member()
        if self._is_known_link("/".join(parts), target, is_hard=is_hard):
            return
        self._refuse_links(parts, path)
        path = "/".join(parts)
        if self.look(path) is not None:
            raise twice(path)
        self._tree.enter(parts[:-1], path)
        self._links.add(path, target, is_hard=is_hard)

    def _is_known_link(self, path: str, target: str, *, is_hard: bool) -> bool:
        """Tell whether a link is there already, or leads to itself: tar writes such a link for a file given twice."""
        if is_hard and path == target:
            return path in self._links or self._tree.has_file(path)
        return self._links.has(path, target, is_hard=is_hard) or (
            is_hard and self._tree.have_same_content(path, target, self.pass_over)
        )

    def _refuse_links(self, parts: list[str], path: str) -> None:
        """Refuse to write through a link, or over one."""
        if self._links:
            for length in range(1, len(parts) + 1):
                if "/".join(parts[:length]) in self._links:
                    if length == len(parts):
                        raise twice(path)
                    raise UnsafeMemberError.in_archive(printable(path), "which would be written through a link")

    def _new_file(self, parts: list[str], executable: bool, *, replaces: bool = False) -> StagedFileWriter:
        path = "/".join(parts)
        folder = self._tree.enter(parts[:-1], path)
        self._counts.add_member()
        before = None
        with writing(path):
            try:
                descriptor = os.open(parts[-1], _NEW_FILE, 0o600, dir_fd=folder)
            except FileExistsError:
                if not replaces:
                    raise twice(path) from None
                before = self._remove_old(parts, path)
                folder = self._tree.enter(parts[:-1], path)
                descriptor = os.open(parts[-1], _NEW_FILE, 0o600, dir_fd=folder)
            except OSError as error:
                raise bad_name(path, error) from None
            os.fchmod(descriptor, self._program_mode if executable else self._file_mode)
        self._may_have_extras = self._may_have_extras or may_be_extra(parts)
        file = StagedFileWriter(
            path,
            descriptor,
            self._digester,
            self._syncer,
            self._counts.grow,
            self._keep,
            has_sha256=self._has_sha256,
        )
        if before is not None:
            file.expect_small(MAX_MODEL_YAML, lambda content: _refuse_another(path, before, content))
        elif path == MODEL_YAML:
            file.expect_small(MAX_MODEL_YAML, self._take_model_yaml)
        return file

    def _remove_old(self, parts: list[str], path: str) -> bytes | None:
        """Remove a file that a new one of the same name replaces. Return its content if it may be the model's
        model.yaml."""
        folder = self._tree.enter(parts[:-1], path)
        if not self._tree.has_file(path) or not self._tree.has_name(folder, parts[-1]):
            raise twice(path)
        self._digester.drain()  # so that it does not report the old file after the new one
        for link in sorted(self._links.take_hard_links_to(path)):
            self._links.count_copy()
            self.copy_file(path, link)
        content = read_model_yaml(self._tree, path) if parts[-1] == MODEL_YAML and len(parts) <= 2 else None
        os.unlink(path, dir_fd=self._tree.root)
        return content

    def _keep(self, path: str, file: StagedFile) -> None:
        """Keep a complete file. It is called in the digester's thread, or while that has no job of this file."""
        self._files[path] = file
        self._on_file(path, file)

    def _leave_out_extras(self) -> None:
        """Remove the files that macOS added. This is done at the end, since a `._x` may come before its `x`."""
        if self._may_have_extras:
            for path in self._extras.remove_below(self._tree.root):
                self._files.forget(path)

    def _take_model_yaml(self, content: bytes) -> ModelInfo:
        self._info = ModelInfo.learn(content)
        if self._on_model_yaml is not None:
            self._on_model_yaml(self._info, content)
        return self._info

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._digester.close()
            self._syncer.abandon()
            self._tree.close()
            self._files = KnownFiles()  # `Staged` has them; this object may live until cyclic garbage is collected


def _refuse_another(path: str, before: bytes, content: bytes) -> None:
    if content != before:
        raise UnsafeMemberError(
            f"the archive holds {printable(path)!r} twice, with different content: keep one of them"
        )
