"""UploadState: the one state of an upload, and the transitions that are allowed.

| state | meaning | next |
|---|---|---|
| RECEIVING | bytes may come; nothing is decided | all but PUBLISHING, IMPORTED |
| CHECKING | its program finished it; the bytes are being checked | RECEIVING, CHECKED, REMOVED, REPLACED |
| CHECKED | the bytes are checked, the outcome is not told yet | all but IMPORTED |
| KEPT | it is no archive, and stays as a file | RECEIVING, CHECKING, REFUSED, REMOVED, REPLACED, CLOSED |
| REFUSED | its program was told why it is no model | RECEIVING, CHECKING, KEPT, REMOVED, REPLACED, CLOSED |
| PUBLISHING | its model goes into the store; no byte may change | IMPORTED, REFUSED, REMOVED, REPLACED |
| IMPORTED | its model is in the store | CLOSED |
| REMOVED | it lost its name, and no other file has it | CLOSED |
| REPLACED | it lost its name to another file | CLOSED |
| CLOSED | it is forgotten, and its descriptor is closed | |
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class UploadState(enum.Enum):
    """The state of an upload."""

    RECEIVING = "receiving"
    CHECKING = "checking"
    CHECKED = "checked"
    KEPT = "kept"
    REFUSED = "refused"
    PUBLISHING = "publishing"
    IMPORTED = "imported"
    REMOVED = "removed"
    REPLACED = "replaced"
    CLOSED = "closed"

    @property
    def has_lost_name(self) -> bool:
        return self in (UploadState.REMOVED, UploadState.REPLACED)

    @property
    def takes_bytes(self) -> bool:
        """True if programs may change the bytes. A file without a name keeps its writers."""
        return self not in (UploadState.PUBLISHING, UploadState.IMPORTED, UploadState.CLOSED)

    @property
    def is_decided(self) -> bool:
        """True if the bytes have not changed since their outcome became known."""
        return self in (UploadState.CHECKED, UploadState.REFUSED, UploadState.PUBLISHING, UploadState.IMPORTED)


class IllegalTransitionError(RuntimeError):
    """An upload was to change its state in a way that the table does not allow."""


def _table() -> Mapping[UploadState, frozenset[UploadState]]:
    state = UploadState
    nameless = {state.REMOVED, state.REPLACED}
    return {
        state.RECEIVING: frozenset({state.CHECKING, state.KEPT, state.REFUSED, *nameless, state.CLOSED}),
        state.CHECKING: frozenset({state.RECEIVING, state.CHECKED, *nameless}),
        state.CHECKED: frozenset(
            {state.RECEIVING, state.CHECKING, state.KEPT, state.REFUSED, state.PUBLISHING, *nameless, state.CLOSED}
        ),
        state.KEPT: frozenset({state.RECEIVING, state.CHECKING, state.REFUSED, *nameless, state.CLOSED}),
        state.REFUSED: frozenset({state.RECEIVING, state.CHECKING, state.KEPT, *nameless, state.CLOSED}),
        state.PUBLISHING: frozenset({state.IMPORTED, state.REFUSED, *nameless}),
        state.IMPORTED: frozenset({state.CLOSED}),
        state.REMOVED: frozenset({state.CLOSED}),
        state.REPLACED: frozenset({state.CLOSED}),
        state.CLOSED: frozenset(),
    }


ALLOWED = _table()


def moved(old: UploadState, new: UploadState) -> UploadState:
    """Return the new state.

    Raises:
        IllegalTransitionError: the table does not allow it.
    """
    if new not in ALLOWED[old]:
        raise IllegalTransitionError(f"an upload cannot go from {old.value} to {new.value}")
    return new
