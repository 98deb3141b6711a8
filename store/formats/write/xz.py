"""xz around a tar, with *uncompressed* LZMA2 chunks: BentoML calls it `.bentomodel`. (Compressed: `xz_blocks.py`.)

BentoML opens every `.bentomodel` with `compression="xz"`. Its own export spends minutes to save a few percent of a
model's weights. A stream of uncompressed chunks is valid xz (The .xz File Format 1.1.0, sections 2 to 4; LZMA2 chunks
as in liblzma's lzma2_decoder.c), and its layout is pure arithmetic.

A chunk carries at most 65,536 bytes after a three-byte header. Only 65,533 are used, so that chunks lie on a grid of
64 KiB. A block fills 64 cells of the grid, including its header and checksum. So it is 4 MiB long in the file.
"""

from __future__ import annotations

import functools
import struct

from bentofs.store.formats.crc32 import crc32, crc32_of, crc32_of_repeated
from bentofs.store.formats.pieces import Generated, Literal, Piece, PieceList, Repeated, Slice
from bentofs.store.formats.write.frames import Frames, Template

CELL = 1 << 16
CHUNK = CELL - 3  # bytes of content in a cell
CELLS = 64  # in a block
_FIRST, _NEXT = b"\x01", b"\x02"  # uncompressed chunk: with and without a dictionary reset
END = b"\x00"
CHECK_LENGTH = 4
_STREAM_FLAGS = b"\x00\x01"  # CRC-32
_LZMA2 = b"\x21\x01\x08"  # filter ID, size of properties, dictionary of 64 KiB, which every decoder accepts
STREAM_HEADER = b"\xfd7zXZ\x00" + _STREAM_FLAGS + struct.pack("<I", crc32(_STREAM_FLAGS))
_FOOTER_LENGTH = 12


def lay_out_xz(content: Piece) -> PieceList:
    """Lay out the xz stream of `content`."""
    template, _ = _full_block()
    frames = Frames(content, template)
    tail_start = frames.count * template.content_length
    tail_length = content.length - tail_start
    pieces = PieceList([Literal(STREAM_HEADER), frames])
    if tail_length:
        for piece in _tail_block(content, tail_start, tail_length):
            pieces.append(piece)
    for piece in end_of_stream(content.length):
        pieces.append(piece)
    return pieces


def end_of_stream(content_length: int) -> list[Piece]:
    """Return the pieces after the last block of `content_length` bytes of content."""
    template, record = _full_block()
    count, tail = divmod(content_length, template.content_length)
    return index_and_footer(count + bool(tail), (record, count), _tail_record(tail) if tail else b"")


def xz_length(content_length: int) -> int:
    """Return the length of the stream for `content_length` bytes of content, without laying it out."""
    template, record = _full_block()
    count, tail = divmod(content_length, template.content_length)
    blocks = count * template.length
    records = len(record) * count
    if tail:
        blocks += stored_length(_unpadded_size(tail))
        records += len(_tail_record(tail))
    index = 1 + len(number(count + bool(tail))) + records
    return len(STREAM_HEADER) + blocks + stored_length(index) + 4 + _FOOTER_LENGTH


@functools.cache
def full_block_header() -> bytes:
    """Return the header of every block except the last."""
    header = b""
    for _ in range(4):  # the header holds the content's size, which depends on the header's length
        compressed = CELLS * CELL - len(header) - CHECK_LENGTH
        header = block_header(compressed, compressed - 3 * CELLS - len(END))
    return header


@functools.cache
def _full_block() -> tuple[Template, bytes]:
    """Return the layout of a whole block, and its record in the index."""
    header = full_block_header()
    template = Template()
    template.add_literal(header)
    for cell in range(CELLS):
        length = CELL - len(header) - 3 - len(END) - CHECK_LENGTH if cell == CELLS - 1 else CHUNK
        template.add_literal(chunk_header(cell == 0, length))
        template.add_content(length)
    template.add_literal(END)
    template.add_checksum()
    return template, number(template.length) + number(template.content_length)


def _tail_block(content: Piece, start: int, length: int) -> list[Piece]:
    """Lay out the last block, which is shorter."""
    pieces: list[Piece] = [Literal(block_header(compressed_length(length), length))]
    for at in range(0, length, CHUNK):
        size = min(CHUNK, length - at)
        pieces += [Literal(chunk_header(at == 0, size)), Slice(content, start + at, size)]

    @functools.cache
    def checksum() -> bytes:
        return struct.pack("<I", crc32_of(content, start, length))

    return [*pieces, Literal(END + block_padding(length)), Generated(CHECK_LENGTH, checksum)]


def index_and_footer(block_count: int, repeated: tuple[bytes, int], rest: bytes) -> list[Piece]:
    """Lay out the end of a stream. `repeated`: the first record and its count; `rest`: the other records."""
    record, count = repeated
    head = b"\x00" + number(block_count)
    length = len(head) + len(record) * count + len(rest)
    rest += bytes(stored_length(length) - length)
    checksum = crc32(rest, crc32_of_repeated(record, count, crc32(head)))
    backward = struct.pack("<I", (stored_length(length) + 4) // 4 - 1) + _STREAM_FLAGS
    footer = struct.pack("<I", crc32(backward)) + backward + b"YZ"
    return [Literal(head), Repeated(record, count), Literal(rest + struct.pack("<I", checksum) + footer)]


def block_header(compressed: int, uncompressed: int, lzma2: bytes = _LZMA2) -> bytes:
    """Return a block header. `lzma2`: the filter's ID, the size of its properties, and the properties."""
    fields = b"\xc0" + number(compressed) + number(uncompressed) + lzma2  # 0xc0: both sizes are present, one filter
    length = stored_length(1 + len(fields) + 4)
    header = bytes([length // 4 - 1]) + fields
    header += bytes(length - 4 - len(header))
    return header + struct.pack("<I", crc32(header))


def block_padding(length: int) -> bytes:
    """Return the padding between data and checksum of a block with `length` bytes of content."""
    return bytes(-_unpadded_size(length) % 4)


def chunk_header(first: bool, length: int) -> bytes:
    """Return the header of a chunk with `length` bytes. `first`: it is the first in its block."""
    return (_FIRST if first else _NEXT) + struct.pack(">H", length - 1)


def compressed_length(length: int) -> int:
    """Return the bytes of LZMA2 data for `length` bytes of content in one block."""
    return length + 3 * -(-length // CHUNK) + len(END)


def _unpadded_size(length: int) -> int:
    """Return a tail block's size as in the index: without the padding."""
    compressed = compressed_length(length)
    return len(block_header(compressed, length)) + compressed + CHECK_LENGTH


def _tail_record(length: int) -> bytes:
    return number(_unpadded_size(length)) + number(length)


def stored_length(length: int) -> int:
    """Round up to four bytes, like everything in xz."""
    return length + -length % 4


def number(value: int) -> bytes:
    """Encode a multibyte integer (section 1.2): seven bits a byte, low bits first."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
