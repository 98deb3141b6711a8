"""Decompression of zstd (RFC 8878) block by block: the library cannot tell an end from a cut, and does not bound its
output.

Threading: one thread per cursor.
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from bentofs.store.errors import DamagedArchiveError, NotAModelError, TooBigError
from bentofs.store.formats.read.cursor import Cursor, cut_short, trailing
from bentofs.store.formats.read.detect import ZSTD_MAGIC, is_skippable
from bentofs.store.formats.read.growing_file import LITTLE_MEMORY, MOST_MEMORY

_LITTLE_WINDOW, _MAX_WINDOW = 8 << 20, 64 << 20  # bytes
_BLOCK = 128 << 10  # bytes that a block may hold or expand to at most
_LOSS = "its zstd data has no end"


def zstd_content(cursor: Cursor) -> Iterator[bytes]:
    """Yield the content of all frames from the cursor on.

    Raises, while iterated:
        NotAModelError: it needs a dictionary.
        DamagedArchiveError, TooBigError, CancelledError: see `store.formats.read.decode.open_stream`.
    """
    while head := cursor.exactly(4):
        if is_skippable(head):
            length = int.from_bytes(cursor.whole(4, _LOSS), "little")
            if length and not cursor.has_all(length):
                raise cut_short(_LOSS)
            cursor.position += length
        elif head == ZSTD_MAGIC:
            yield from _frame(cursor, head)
        else:
            raise trailing("zstd")


def _frame(cursor: Cursor, magic: bytes) -> Iterator[bytes]:
    head = magic + cursor.whole(1, _LOSS)
    try:
        # Read all bytes that may belong to the header; the frame's first block has at least three bytes.
        cursor.position -= len(head)
        head = cursor.exactly(18)
        length = zstandard.frame_header_size(head)
        frame = zstandard.get_frame_parameters(head)
        cursor.position += length - len(head)
        if frame.window_size > _MAX_WINDOW:
            raise TooBigError(
                f"the archive needs a zstd window of {frame.window_size >> 20:,} MiB, and {_MAX_WINDOW >> 20} MiB are "
                f"allowed: make it with --long={_MAX_WINDOW.bit_length() - 1} at most, and a level below 22"
            )
        if frame.dict_id:
            raise NotAModelError(
                "the archive is compressed with a zstd dictionary, which is not in it: compress it without one"
            )
        cursor.arriving.take_memory(LITTLE_MEMORY if frame.window_size <= _LITTLE_WINDOW else MOST_MEMORY)
        decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        yield decoder.decompress(head[:length])
        is_last = False
        while not is_last:
            header = cursor.whole(3, _LOSS)
            fields = int.from_bytes(header, "little")
            is_last, kind, size = bool(fields & 1), fields >> 1 & 3, fields >> 3
            if size > _BLOCK:
                raise DamagedArchiveError.damaged("a zstd block is too long")
            yield decoder.decompress(header + cursor.whole(1 if kind == 1 else size, _LOSS))
        if frame.has_checksum:
            yield decoder.decompress(cursor.whole(4, _LOSS))
        if not decoder.eof:
            raise DamagedArchiveError.damaged("a zstd frame does not end where it says")
    except zstandard.ZstdError as error:
        raise DamagedArchiveError.damaged(f"zstd says '{error}'") from None
