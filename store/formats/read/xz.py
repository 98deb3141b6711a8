"""Reading of the uncompressed xz streams that `xz.py` lays out: four times as fast as liblzma.

Only streams whose first block has a header like ours are read here. Everything in them is compared: headers,
checksums, index and footer.

Threading: one thread per stream.
"""

from __future__ import annotations

from collections.abc import Iterator

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.read.cursor import Cursor
from bentofs.store.formats.write.xz import (
    CHECK_LENGTH,
    CHUNK,
    END,
    STREAM_HEADER,
    block_header,
    block_padding,
    block_record,
    chunk_header,
    compressed_length,
)
from bentofs.store.formats.write.xz_index import IndexSums
from bentofs.store.util.buffer_pool import BUFFER, BufferPool

_RUN = BUFFER // (CHUNK + 3) * CHUNK  # bytes of content read at once
_MAX_HEADER = 32  # bytes of a block's header
_COMPARED = 64 << 10  # bytes of the index compared at once


def is_laid_out_here(cursor: Cursor) -> bool:
    """Tell whether `stored_content` can read the stream at the cursor. The place does not change."""
    begin = len(STREAM_HEADER)
    seen = cursor.peek(begin + _MAX_HEADER)
    if not seen.startswith(STREAM_HEADER) or len(seen) == begin:
        return False
    try:
        _content_length(seen[begin : begin + 4 * seen[begin] + 4])
    except DamagedArchiveError:
        return False
    return True


def stored_content(cursor: Cursor) -> Iterator[memoryview]:
    """Yield the content of the stream at the cursor. Leave the cursor at the stream's end.

    Raises, while iterated:
        DamagedArchiveError: the stream differs from the output of `xz.py` for the content, or ends too early.
        CancelledError: see `ArrivingFile.read_into`.
    """
    cursor.position += len(STREAM_HEADER)
    index, buffers = IndexSums(), BufferPool()
    while (size := _exactly(cursor, 1)) != b"\0":  # b"\0" begins the index
        length = _content_length(size + _exactly(cursor, 4 * size[0] + 3))
        yield from _block(cursor, length, buffers)
        index.add(block_record(length))
    cursor.position -= 1
    head, end = index.ends()
    if _exactly(cursor, len(head)) != head:
        raise _damaged("its index")
    crc, left = 0, index.length
    while left:
        records = _exactly(cursor, min(_COMPARED, left))
        crc = crc32(records, crc)
        left -= len(records)
    if crc != index.crc or _exactly(cursor, len(end)) != end:
        raise _damaged("its index")


def _block(cursor: Cursor, length: int, buffers: BufferPool) -> Iterator[memoryview]:
    crc = 0
    for at in range(0, length, _RUN):
        content = _chunks(cursor, min(_RUN, length - at), buffers.take(), first=at == 0)
        crc = crc32(content, crc)
        yield content
        del content  # or its buffer would not come back before the next one is taken
    wanted = END + block_padding(length) + crc.to_bytes(CHECK_LENGTH, "little")
    if _exactly(cursor, len(wanted)) != wanted:
        raise _damaged("the checksum of a block")


def _chunks(cursor: Cursor, length: int, buffer: memoryview, *, first: bool) -> memoryview:
    """Read the next `length` bytes of content, a few whole chunks, into a buffer."""
    lengths = [min(CHUNK, length - at) for at in range(0, length, CHUNK)]
    run = buffer[: length + 3 * len(lengths)]
    cursor.fill(run)
    at = 0
    for number, size in enumerate(lengths):
        start = at + 3 * (number + 1)
        if run[start - 3 : start] != chunk_header(first and number == 0, size):
            raise _damaged("a chunk's header")
        if number:
            run[3 + at : 3 + at + size] = run[start : start + size]
        at += size
    return run[3 : 3 + length]


def _content_length(header: bytes) -> int:
    """Return the content length in a block's header, in bytes."""
    _, rest = _number(header[2:])
    length, _ = _number(rest)
    if header != block_header(compressed_length(length), length):
        raise _damaged("a block's header")
    return length


def _number(encoded: bytes) -> tuple[int, bytes]:
    """Decode a multibyte integer (`xz.number`). Return it and the bytes after it."""
    value = 0
    for at, byte in enumerate(encoded[:9]):
        value |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            return value, encoded[at + 1 :]
    raise _damaged("a block's header")


def _exactly(cursor: Cursor, count: int) -> bytes:
    content = bytearray(count)
    cursor.fill(memoryview(content))
    return bytes(content)


def _damaged(what: str) -> DamagedArchiveError:
    return DamagedArchiveError.damaged(f"{what} is wrong in its xz data")
