"""UploadFacts: the name, owner, kind, mark and receipt of an upload.

Knows no FUSE. Threading: any thread reads. Names and kinds change in threads that hold the spool's lock or decide the
upload.
"""

from __future__ import annotations

from typing import NamedTuple

from bentofs.mount.incoming.names import NO_ARCHIVE, UploadKind
from bentofs.mount.incoming.receipts import UploadReceipt
from bentofs.mount.incoming.undecided import UndecidedMark
from bentofs.mount.incoming.upload_file import UploadFile
from bentofs.store.publishing.base import Outcome


class Became(NamedTuple):
    """The model that an upload became."""

    tag: str
    outcome: Outcome
    note: str | None  # a sentence on what came in besides the model


class UploadFacts:
    """The facts about one upload, apart from its state."""

    def __init__(self, path: str, file: UploadFile, uid: int, receipt: UploadReceipt) -> None:
        self.uid = uid
        self.file = file
        self.receipt = receipt
        self.inode = file.status().st_ino
        self.mark = UndecidedMark(file.fileno())
        self._path = path
        self._kind = NO_ARCHIVE
        self._became: Became | None = None
        self._is_touched = False
        self._may_replace = True

    @property
    def path(self) -> str:
        """Return the path below `incoming/`."""
        return self._path

    @property
    def kind(self) -> UploadKind:
        """Return the kind, as it was last judged."""
        return self._kind

    @property
    def became(self) -> Became | None:
        """Return the model that it became; None if it is none."""
        return self._became

    @property
    def may_replace(self) -> bool:
        """True if it may replace another model of its tag, in mounts that overwrite."""
        return self._may_replace

    @property
    def is_touched(self) -> bool:
        """True if a program set its times to now: `touch` does so to make an empty file."""
        return self._is_touched

    def rename(self, path: str) -> None:
        """Note the new path of the file."""
        self._path = path

    def judge(self, kind: UploadKind) -> None:
        """Set the kind (`SpoolPaths.judge`)."""
        self._kind = kind

    def note_model(self, became: Became) -> None:
        """Note the model that it becomes."""
        self._became = became

    def touch(self) -> None:
        """Note that a program set the times to now."""
        self._is_touched = True

    def replace_nothing(self) -> None:
        """Let this upload replace no other model, until a program writes to it."""
        self._may_replace = False

    def allow_replacing(self) -> None:
        """Let this upload replace another model: a program writes to it now."""
        self._may_replace = True
