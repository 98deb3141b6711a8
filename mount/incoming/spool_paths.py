"""SpoolPaths: the directory that holds the files copied into `incoming/`, in the same layout, and the meaning of a path
in it. That depends on the files beside it: a `model.yaml`, or a downloader's control file.

Paths are relative to `incoming/`, which itself is the empty path. Knows no FUSE. Threading: any thread; no state.
"""

from __future__ import annotations

import os

from bentofs.mount.incoming.control_files import has_control_file
from bentofs.mount.incoming.names import NO_ARCHIVE, UploadKind, is_on_its_way, may_be_archive, must_be_archive
from bentofs.mount.incoming.upload import Upload
from bentofs.store.model.model import MODEL_YAML


class SpoolPaths:
    """The paths of one spool."""

    def __init__(self, root: str) -> None:
        """`root`: the spool's directory on disk."""
        self.root = root

    def at(self, path: str) -> str:
        """Return the path on disk of a file or directory."""
        return f"{self.root}/{path}" if path else self.root

    def is_on_its_way(self, path: str) -> bool:
        """Return True if a file of this name is not to be imported yet: its name says so, or a downloader's control
        file lies beside it."""
        return is_on_its_way(path) or has_control_file(self.at(path))

    def judge(self, upload: Upload, path: str) -> None:
        """Decide the kind of an upload by its path. In a directory that is a model, it is a file of that model. A
        downloader's control file is never imported."""
        if upload.file.is_control_file(self.at(path)):
            upload.judge(NO_ARCHIVE)
            return
        folders = path.split("/")[:-1]
        in_model = any(
            os.path.lexists(self.at("/".join([*folders[: depth + 1], MODEL_YAML]))) for depth in range(len(folders))
        )
        is_strict = must_be_archive(path) and not in_model
        # rsync learns of a refusal from the rename, and goes on with its next file. A failed write would end it.
        fails_early = is_strict and not self.is_on_its_way(path)
        upload.judge(UploadKind(may_be_archive(path) and not in_model, is_strict, fails_early))
