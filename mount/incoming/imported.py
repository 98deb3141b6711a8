"""ImportedNames: the names in `incoming/` under which users imported models. Their files are gone from the spool, but
`stat` answers for them while the models exist, so that rsync sends nothing twice. For a moment they can also be read.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

from bentofs.mount.incoming.names import FILE_MODE
from bentofs.mount.incoming.read_back import ReadBack
from bentofs.mount.view.nodes import Attributes, inode_of
from bentofs.mount.view.tree import INCOMING
from bentofs.store.errors import NotFoundError
from bentofs.store.model.tag import Tag
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import Importer
from bentofs.store.transfer.receipt import Receipt
from bentofs.store.util.display import printable


class ImportedNames:
    """The imported names of one `incoming/`. They are free for all users but the one who imported."""

    def __init__(self, importer: Importer, log: ImportLog, read_back: ReadBack) -> None:
        self._importer = importer
        self._log = log
        self.read_back = read_back

    def attributes(self, path: str, uid: int) -> Attributes:
        """Return what `stat` tells a user about a name under which this user imported something.

        Raises:
            NotFoundError: the user imported nothing under it, or its model is gone.
        """
        receipt = self._find(path, uid)
        if receipt is None or receipt.size is None or receipt.mtime_ns is None:
            raise NotFoundError(f"{INCOMING}/{printable(path)} is not there")
        return Attributes(
            FILE_MODE, inode_of(f"/{INCOMING}/{path}"), 1, receipt.size, receipt.mtime_ns, receipt.mtime_ns, uid
        )

    def open(self, path: str, uid: int) -> int | None:
        """Begin to read back a user's import under this path. Return its receipt, or None if its bytes are gone."""
        receipt = self._find(path, uid)
        return receipt.id if receipt is not None and self.read_back.open(receipt.id) else None

    def rename(self, old: str, new: str, uid: int) -> None:
        """Give a user's import another name."""
        receipt = self._log.answer(old, uid)
        if receipt is not None:
            self._log.finish(receipt.id, receipt.state, path=new)

    def forget(self, path: str, uid: int) -> None:
        """Forget a user's import under this path."""
        self._log.forget(path, uid)

    def set_mtime(self, path: str, uid: int, mtime_ns: int) -> None:
        """Set the mtime that `stat` tells a user for the import under this path."""
        self._log.set_mtime(path, uid, mtime_ns)

    def _find(self, path: str, uid: int) -> Receipt | None:
        """Return the receipt of a user's import under this path, while its model exists."""
        receipt = self._log.answer(path, uid)
        if receipt is None or receipt.tag is None or receipt.size is None or receipt.mtime_ns is None:
            return None
        return receipt if self._importer.still_has(Tag.parse(receipt.tag), receipt.creation_time) else None
