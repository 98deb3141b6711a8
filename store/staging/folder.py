"""Staging of an uploaded directory in place: it is checked, given a model's modes, and synced.

Nothing is copied. Threading: one thread stages a directory that nobody else changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from bentofs.store.errors import BadModelError, NotAModelError, TooBigError, UnsafeMemberError
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, ModelInfo
from bentofs.store.staging.file import KnownFiles, StagedFile
from bentofs.store.staging.fsync_batch import Syncer
from bentofs.store.staging.hashing import RunningDigest
from bentofs.store.staging.limits import Limits
from bentofs.store.staging.mac_extras import MacExtras, is_of_zips
from bentofs.store.staging.model import Staged
from bentofs.store.storage.base import Identity
from bentofs.store.storage.local_walk import MAX_DEPTH
from bentofs.store.util.display import printable
from bentofs.store.util.fs import FOLDER, writing

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


OnModelYaml = Callable[[ModelInfo, bytes], None]


def stage_folder(
    path: str, limits: Limits, umask: int, on_model_yaml: OnModelYaml, *, has_sha256: bool = True
) -> Staged:
    """Make a directory that holds a model ready to be published.

    `on_model_yaml`: called with the model.yaml before anything is changed; an exception of it ends the work.
    `has_sha256`: False to leave out the SHA-256s of the files.

    Raises:
        NotAModelError, BadModelError: its model.yaml is missing or malformed.
        UnsafeMemberError: something in it is neither a file nor a directory.
        TooBigError: it exceeds the limits.
        NoSpaceError, StoreUnwritableError: the file system refuses.
    """
    with writing(path):
        return _StagedFolder(path, limits, umask, on_model_yaml, has_sha256).run()


class _StagedFolder:
    """One call of `stage_folder`."""

    def __init__(self, path: str, limits: Limits, umask: int, on_model_yaml: OnModelYaml, has_sha256: bool) -> None:
        self._path = path
        self._has_sha256 = has_sha256
        self._on_model_yaml = on_model_yaml
        self._limits = limits
        self._umask = umask
        self._members = 0
        self._expanded = 0
        self._files = KnownFiles()
        self._extras = MacExtras()

    def run(self) -> Staged:
        root = os.open(self._path, FOLDER)
        syncer = Syncer(root)
        try:
            content = self._model_yaml(root)
            info = ModelInfo.learn(content)
            self._on_model_yaml(info, content)
            self._visit(root, "", syncer)
            syncer.finish()
        except BaseException:
            syncer.abandon()
            raise
        finally:
            os.close(root)
        return Staged(self._path, info, self._files.below(""), self._extras.sentence)

    def _model_yaml(self, root: int) -> bytes:
        try:
            descriptor = os.open(MODEL_YAML, _FILE, dir_fd=root)
        except FileNotFoundError:
            raise NotAModelError("there is no model.yaml in the directory, so it is not a model") from None
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(MAX_MODEL_YAML + 1)
        if len(content) > MAX_MODEL_YAML:
            raise BadModelError(f"the model.yaml is larger than {MAX_MODEL_YAML:,} bytes: make it smaller")
        return content

    def _visit(self, folder: int, path: str, syncer: Syncer) -> None:
        if path.count("/") >= MAX_DEPTH - 1:
            raise UnsafeMemberError(f"{printable(path[:200])} lies more than {MAX_DEPTH} directories deep")
        self._own(folder)
        os.fchmod(folder, 0o777 & ~self._umask | 0o700)
        with os.scandir(folder) as found:
            names = {entry.name for entry in found}
        for name in sorted(names.difference(self._extras.remove_from(folder, path, names))):
            self._members += 1
            if self._members > self._limits.members:
                raise TooBigError(f"the directory holds more than {self._limits.members:,} files and directories")
            below = f"{path}/{name}" if path else name
            look = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(look.st_mode):
                descriptor = os.open(name, FOLDER, dir_fd=folder)
                try:
                    self._visit(descriptor, below, syncer)
                    is_left = not is_of_zips(below) or bool(os.listdir(descriptor))
                finally:
                    os.close(descriptor)
                if not is_left:
                    os.rmdir(name, dir_fd=folder)
            elif stat.S_ISREG(look.st_mode):
                descriptor = os.open(name, _FILE, dir_fd=folder)
                try:
                    size = self._take(descriptor, below)
                except BaseException:
                    os.close(descriptor)
                    raise
                syncer.file(descriptor, size)  # which closes it
            else:
                raise UnsafeMemberError(
                    f"{printable(below)} in the directory is neither a file nor a directory: remove it"
                )

    def _own(self, descriptor: int) -> os.stat_result:
        """Make a file or directory of another user ours, so that the other user cannot change it. Return its stat."""
        look = os.fstat(descriptor)
        if look.st_uid != os.geteuid():
            os.fchown(descriptor, os.geteuid(), os.getegid())
        return look

    def _take(self, descriptor: int, path: str) -> int:
        program = self._own(descriptor).st_mode & stat.S_IXUSR
        os.fchmod(descriptor, (0o777 if program else 0o666) & ~self._umask | 0o600)
        look = os.fstat(descriptor)
        self._expanded += look.st_size
        if self._expanded > self._limits.expanded:
            raise TooBigError(f"the directory holds more than {self._limits.expanded:,} bytes")
        digest = RunningDigest(has_sha256=self._has_sha256)
        digest.update_from(descriptor, 0, look.st_size)
        self._files[path] = StagedFile(look.st_size, *digest.result(), Identity.of(look))
        return look.st_size
