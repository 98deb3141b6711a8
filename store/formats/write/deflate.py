"""deflate (RFC 1951) in chunks that are compressed apart and still make one stream.

A chunk ends with a flush, on a byte, and takes of the one before only what any reader has at hand by then: its last
32 KiB, uncompressed. So chunks can be made in parallel, made again from any point, and put one behind another; `END`
ends the stream.

Compressed by ISA-L, which releases Python's lock: 250 to 550 MB/s a core, where zlib's fastest level makes 40 to 120.
"""

from __future__ import annotations

import functools
import math
import random
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from isal import ISAL_VERSION, igzip_lib, isal_zlib

from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.write.chunks import Codec

CHUNK = 1 << 20  # bytes of content; measured: 256 KiB costs 0.3 % more, 4 MiB saves 0.2 % and four times the wait
SMALL = 256 << 10  # bytes: what is shorter is compressed without a sample, and in a tar together with its neighbours
MOST_EFFORT = 6
_VERSION = 5  # raised whenever other bytes come out because of what stands in this file
END = b"\x03\x00"  # a last block with nothing in it
_RUN = 256 << 10  # bytes of content in a chunk of small files, all of which a random read may have to open
_LEVEL2, _SLOW_STEPS = 2, 4  # of the effort
_SMALL_LEVEL = 3
_MEMORY = 3  # zlib's memLevel: small buffers make more Huffman tables, which saves 0.8 % on pickled trees
_RAW_WINDOW = -15
_SAMPLES = 8
_SAMPLE = 128 << 10  # bytes, each
_SAMPLE_SHARE = 64  # of a file, one in so many bytes is enough
_SAMPLE_LEAST = 4 << 10
_WORTH = 0.75
_WINDOW = 32 << 10  # bytes before a chunk that it may refer to: saves 0.1 to 0.2 %, which chunks would cost otherwise
_WINDOW_SAVES = 0.0015  # of a large file, what its sample does not show: it has nothing before it
_HOPELESS = 0.9  # what level 1 leaves more of does not become worth it at any level


class Verdict(NamedTuple):
    """What a sample says of a file."""

    effort: int  # see `compress_chunk`
    worth_it: bool


def compress_chunk(content: memoryview, number: int, before: bytes, effort: int) -> bytes:
    """The chunk of this number in a stream that goes on; `before`: the content before it, as far as it may refer to it.

    `effort`, from 1 to `MOST_EFFORT`: ISA-L's level 1, its level 2, that with a quarter, a half, three quarters of the
    chunks at its level 3, and level 3.
    """
    slow = effort - _LEVEL2
    level = 1 if slow < 0 else 3 if number % _SLOW_STEPS < slow else 2
    return _compress(content, level, before)


def _compress(content: memoryview, level: int, before: bytes = b"") -> bytes:
    window = (isal_zlib.Z_DEFAULT_STRATEGY, before) if before else ()
    compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, _RAW_WINDOW, _MEMORY, *window)
    return bytes(compressor.compress(content) + compressor.flush(isal_zlib.Z_FULL_FLUSH))


def compress_small(content: memoryview, _number: int, _before: bytes) -> bytes:
    """A whole stream."""
    return igzip_lib.compress(content, _SMALL_LEVEL, igzip_lib.COMP_DEFLATE)


def sample_ranges(length: int) -> Sequence[tuple[int, int]]:
    """Where to take the sample of a file of so many bytes: (offset, length), spread evenly over it."""
    size = min(_SAMPLE, max(_SAMPLE_LEAST, length // _SAMPLE_SHARE // _SAMPLES), length)
    return [((length - size) * number // (_SAMPLES - 1), size) for number in range(_SAMPLES)]


def judge(read: Callable[[int, int], bytes], length: int) -> Verdict:
    """What a sample says of a file of so many bytes, taken by `read(offset, size)`: the same for the same bytes. Half
    of it is enough to see what is hopeless, as most weights are.

    The effort is the least at which ISA-L comes out no larger than `pigz -1` and `zip -1`, which are zlib's level
    1: the least there is on weights and text, a middle one on pickled trees.

    It is worth it where a quarter is saved. Weights do not reach that (f32 and f16 save 7 to 8 %, bf16 21 %, int8 9 to
    16 %, packed 4 bits 9 %) and are read three to ten times faster stored; text, JSON, vocabularies, pickled trees,
    sparse matrices and tables of integers save a half and more.
    """
    ranges = sample_ranges(length)
    sample, level1 = b"", 0
    for parts in (ranges[::2], ranges[1::2]):
        sample += b"".join(read(*part) for part in parts)
        level1 = len(_compress(memoryview(sample), 1))
        if level1 > len(sample) * _HOPELESS:  # zlib would take fifteen times as long to agree
            return Verdict(1, False)
    peer = int(len(zlib.compress(sample, 1)) * (1 + _WINDOW_SAVES))
    if level1 <= peer:
        return Verdict(1, level1 <= len(sample) * _WORTH)
    level2, level3 = (len(_compress(memoryview(sample), level)) for level in (2, 3))
    needed = _SLOW_STEPS * (level2 - peer) / max(1, level2 - level3)
    return Verdict(min(MOST_EFFORT, _LEVEL2 + max(0, math.ceil(needed))), level2 <= len(sample) * _WORTH)


@functools.cache
def codec_name() -> str:
    """Names everything that decides which bytes come out: chunks measured under another name are measured again.

    Versions are not enough, since ISA-L chooses its code by the processor: a digest of what it makes of some bytes is
    in the name, too.
    """
    dice = random.Random(1)
    words = [dice.randbytes(dice.randrange(2, 9)).hex().encode() for _ in range(500)]
    text = b" ".join(dice.choice(words) for _ in range(5000))
    view = memoryview(text)
    made = [*(_compress(view, level, text[-_WINDOW:]) for level in (1, 2, 3)), compress_small(view, 0, b"")]
    return (
        f"deflate {_VERSION} isal-{ISAL_VERSION} zlib-{zlib.ZLIB_RUNTIME_VERSION} {CHUNK} {crc32(b''.join(made)):08x}"
    )


def chunk_codec(effort: int) -> Codec:
    """Of a large file, which all formats share."""
    return Codec(codec_name(), CHUNK, functools.partial(compress_chunk, effort=effort), window=_WINDOW)


def run_codec() -> Codec:
    """Of headers and small files in a tar, together."""
    return Codec(f"{codec_name()} run {_RUN}", _RUN, functools.partial(compress_chunk, effort=MOST_EFFORT))


def small_codec() -> Codec:
    """Of a small file by itself."""
    return Codec(f"{codec_name()} small", SMALL, compress_small)
