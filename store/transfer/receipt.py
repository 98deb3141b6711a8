"""Receipts: the rows of the record of imports (`store.transfer.import_log`).

Threading: functions without state.
"""

from __future__ import annotations

import datetime
import enum
import logging
import os
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

_SESSION_DIGITS = 6  # of a session's random digits, in a request id
RECEIPT_COLUMNS = (  # that `receipt_of` takes, in this order
    "id, change, path, uid, state, size, mtime_ns, received, started, ended, session, tag, creation_time, sha256, "
    "error, errno, (SELECT note FROM notes WHERE receipt=receipts.id)"
)


class ReceiptState(enum.Enum):
    """The state of an import: how far it is, or how it ended."""

    RECEIVING = "receiving"
    IMPORTING = "importing"
    IMPORTED = "imported"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        return self not in (ReceiptState.RECEIVING, ReceiptState.IMPORTING)

    @property
    def successful(self) -> bool:
        return self in (ReceiptState.IMPORTED, ReceiptState.UNCHANGED, ReceiptState.REPLACED)


class Receipt(NamedTuple):
    """One import. `change` grows with every change to any receipt, over all processes."""

    id: int
    change: int
    path: str  # below incoming/
    uid: int  # the uploader's
    state: ReceiptState
    size: int | None  # bytes of the upload, once known
    mtime_ns: int | None  # the mtime that stat gives for the name
    received: int  # bytes so far
    started: datetime.datetime  # UTC
    ended: datetime.datetime | None  # UTC
    session: str  # of the process that imported
    tag: str | None
    creation_time: str | None  # the model's, ISO 8601
    sha256: str | None  # of the upload, hexadecimal
    error: str | None  # the sentence
    errno: str | None  # its name, such as EEXIST
    note: str | None = None  # a sentence on what came in besides the model

    @property
    def request(self) -> str:
        """Return the id that names this import in logs and notes."""
        return request_id(self.session, self.id)


def request_id(session: str, receipt: int) -> str:
    """Return the id that names an import in logs and notes: unique also over stores and machines. `session`:
    `Session.name`, which ends in random digits."""
    return f"{session.rpartition('-')[2][:_SESSION_DIGITS]}-{receipt}"


def receipt_of(row: tuple[Any, ...]) -> Receipt | None:
    """Return a row as a receipt. None, with a warning, for a row that bentofs did not write."""
    number, change, path, uid, state, size, mtime_ns, received, started, ended, session, *texts = row
    try:
        return Receipt(
            int(number),
            int(change),
            os.fsdecode(path),
            int(uid),
            ReceiptState(state),
            None if size is None else int(size),
            None if mtime_ns is None else int(mtime_ns),
            int(received),
            datetime.datetime.fromisoformat(started),
            None if ended is None else datetime.datetime.fromisoformat(ended),
            str(session),
            *(None if text is None else str(text) for text in texts),
        )
    except (ValueError, TypeError) as error:
        log.warning("receipt %r in the record of imports is malformed and left out: %s", number, error)
        return None
