"""Checksums that come with uploads: files of SHA-256 sums in `incoming/`, before or after the files that they name.

A sum that is there first is checked before the upload becomes a model. A sum that comes later is compared with the
import. Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time

from bentofs.mount.incoming.ownership import Ownership
from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.read.background_sha256 import ArchiveDigest
from bentofs.store.integrity.sha256sums import ALL_SUMS, MAX_SUMS, NO_SUMS, SUFFIX, read_sums, read_sums_beside
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import StagedImport
from bentofs.store.transfer.receipt import Receipt
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_DIGEST_SECONDS = 60.0  # how long a file of checksums waits for the SHA-256 of an import


class Checksums:
    """The checksums of one `incoming/`."""

    def __init__(self, spool: str, receipts: ImportLog, owners: Ownership) -> None:
        """`spool`: the directory in which uploads lie."""
        self._spool = spool
        self._receipts = receipts
        self._owners = owners
        self._lock = threading.Lock()
        self._digests: dict[int, ArchiveDigest] = {}  # by receipt: still being computed

    def close(self, seconds: float) -> None:
        """Wait at most `seconds` until the SHA-256s of the imports are computed. A missing one stays unknown."""
        until = time.monotonic() + seconds
        with self._lock:
            digests = list(self._digests.values())
        for digest in digests:
            if not digest.wait(max(0.0, until - time.monotonic())):
                digest.stop()

    def await_digest(self, receipt: int, digest: ArchiveDigest) -> None:
        """Store the SHA-256 of an import in its receipt, once it is computed."""
        with self._lock:
            self._digests[receipt] = digest
        digest.when_ended(functools.partial(self._digested, receipt))

    def check(self, path: str, ready: StagedImport, uid: int) -> None:
        """Compare an upload with the checksums that came before it. Only sums of the upload's user or of the mount's
        owner count; otherwise anybody could have it refused.

        Raises:
            DamagedArchiveError: the file has another sum, or the file beside it cannot be read as sums.
        """
        folders, name = path.split("/")[:-1], path.rpartition("/")[2]
        beside = f"{path}{SUFFIX}"
        notes = [(beside, read_sums_beside(self._read(beside, uid), name))]
        for depth in range(len(folders), -1, -1):  # a file further up also names the directories below it
            note = "/".join([*folders[:depth], ALL_SUMS])
            stated = read_sums(self._read(note, uid)).by_path.get("/".join([*folders[depth:], name]))
            notes.append((note, frozenset() if stated is None else frozenset([stated])))
        for note, allowed in notes:
            if allowed and (ready.sha256 is None or ready.sha256() not in allowed):
                raise DamagedArchiveError(f"its SHA-256 is not the one in {printable(note)}: copy it again")

    def check_imported(self, path: str, uid: int, place: str) -> None:
        """Compare the sums in a file with earlier imports. `place`: where the file lies, maybe still under another
        name.

        Raises:
            DamagedArchiveError: an imported file has another sum, or a file of sums beside an imported file cannot be
                read as sums.
        """
        folder, _, note = path.rpartition("/")
        content = self._read(path, uid, place)
        stated = {name: frozenset([digest]) for name, digest in read_sums(content).by_path.items()}
        if note.endswith(SUFFIX):
            of = note.removesuffix(SUFFIX)
            if self._answer(path.removesuffix(SUFFIX), uid) is not None:
                stated[of] = read_sums_beside(content, of)
        for name, allowed in stated.items():
            imported = self._imported_as(f"{folder}/{name}" if folder else name, uid) if allowed else None
            if imported is not None and imported.sha256 is None:
                log.warning("%s is not compared with %s: its SHA-256 is not known", printable(name), printable(path))
            elif imported is not None and imported.sha256 not in allowed:
                raise DamagedArchiveError(
                    f"{printable(name)} was imported, but it is not the file that {printable(path)} is of: its SHA-256 "
                    f"is {imported.sha256}"
                )

    def _imported_as(self, path: str, uid: int) -> Receipt | None:
        """Return the receipt of a user's import under this path, once its SHA-256 is computed. For the mount's owner,
        return any user's."""
        imported = self._answer(path, uid)
        with self._lock:
            digest = self._digests.get(imported.id) if imported is not None else None
        if digest is None:
            return imported
        digest.wait(_DIGEST_SECONDS)
        return self._answer(path, uid)

    def _answer(self, path: str, uid: int) -> Receipt | None:
        return self._receipts.answer(path, None if uid == self._owners.user else uid)

    def _digested(self, receipt: int, sha256: str | None) -> None:
        if sha256 is None:
            log.info("the SHA-256 of an imported upload was not computed: the mount ends, or the upload cannot be read")
        else:
            self._receipts.set_sha256(receipt, sha256)
        with self._lock:
            self._digests.pop(receipt, None)

    def _read(self, path: str, uid: int, place: str | None = None) -> bytes:
        """Return the content of a file of checksums. Return nothing if there is no such file, or if it belongs to
        anybody but the user or the mount's owner. `place`: where it lies, if not at its path."""
        try:
            with open(f"{self._spool}/{place or path}", "rb") as file:
                owner = self._owners.of(os.fstat(file.fileno()))
                return file.read(MAX_SUMS) if owner in (uid, self._owners.user) else b""
        except OSError as error:
            if error.errno not in NO_SUMS:
                log.warning("%s cannot be read, so no checksum was compared: %s", printable(path), error.strerror)
            return b""
