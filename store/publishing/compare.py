"""Compare two models: they are the same if they hold the same files and directories with the same bytes.

Links count as their targets, as everywhere (`store.storage.local_walk`). Times and modes do not count, because
BentoML's own imports do not keep them. Exec bits are compared separately. The files that macOS adds do not count
either: they may be in the store, and imports leave them out.
"""

from __future__ import annotations

from collections.abc import Sequence

from bentofs.store.staging.mac_extras import without_extras
from bentofs.store.storage.base import Entry, Storage

_CHUNK = 256 << 10  # bytes of each file compared at a time


def first_difference(
    left: Storage, left_entries: Sequence[Entry], right: Storage, right_entries: Sequence[Entry]
) -> str | None:
    """Return the first path that is on one side only or differs; None if all are the same. Read bytes only if all
    paths, kinds and sizes agree.

    Raises:
        SourceChangedError: a file was changed during the comparison.
        StoreUnreadableError
    """
    lefts = {entry.path: entry for entry in without_extras(left, left_entries)}
    rights = {entry.path: entry for entry in without_extras(right, right_entries)}
    for path in sorted(lefts.keys() | rights.keys()):
        if path not in lefts or path not in rights or _shape(lefts[path]) != _shape(rights[path]):
            return path
    buffers = bytearray(_CHUNK), bytearray(_CHUNK)
    for path in sorted(lefts):
        if not lefts[path].is_folder and not _same_bytes(left, lefts[path], right, rights[path], buffers):
            return path
    return None


def first_other_exec_bit(left_entries: Sequence[Entry], right_entries: Sequence[Entry]) -> str | None:
    """Return the first file of two equal models that is executable in one of them only; None if there is none."""
    executable = {entry.path: entry.executable for entry in right_entries if not entry.is_folder}
    for entry in sorted(left_entries, key=lambda entry: entry.path):
        if not entry.is_folder and entry.executable != executable.get(entry.path, entry.executable):
            return entry.path
    return None


def _shape(entry: Entry) -> tuple[bool, int]:
    return (entry.is_folder, entry.size)


def _same_bytes(
    left: Storage, left_entry: Entry, right: Storage, right_entry: Entry, buffers: tuple[bytearray, bytearray]
) -> bool:
    if left_entry.identity is None or right_entry.identity is None:
        raise ValueError("directories have no bytes")
    left_file = left.open_file(left_entry.source, left_entry.identity)
    right_file = right.open_file(right_entry.source, right_entry.identity)
    for offset in range(0, left_entry.size, _CHUNK):
        count = min(_CHUNK, left_entry.size - offset)
        left_file.read_into([memoryview(buffers[0])[:count]], offset)
        right_file.read_into([memoryview(buffers[1])[:count]], offset)
        # The bytes beyond `count` come from the previous chunk, which was the same.
        if buffers[0] != buffers[1]:
            return False
    return True
