"""deflate (RFC 1951) in chunks that are compressed separately and still make one stream.

A chunk ends with a flush, at a byte boundary. It refers only to the last 32 KiB (uncompressed) of the chunk before,
which every reader has in memory at that point. So chunks can be made in parallel, made again from any point, and
concatenated. `END` ends the stream.

ISA-L compresses, and releases Python's lock: 250 to 550 MB/s a core, where zlib's fastest level reaches 40 to 120.
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

CHUNK = 1 << 20  # bytes of content; measured: 256 KiB costs 0.3 % more, 4 MiB saves 0.2 % but waits four times as long
SMALL = 256 << 10  # bytes: shorter files are compressed without a sample, in a tar with their neighbours
MOST_EFFORT = 6
_VERSION = 7  # increase it when a change to this file changes the output bytes
END = b"\x03\x00"  # an empty last block
_RUN = 256 << 10  # bytes of content in a chunk of small files: a random read may have to read all of it
_LEVEL2, _SLOW_STEPS = 2, 4  # in terms of the effort
_SMALL_LEVEL = 3
QUICK_FROM = 8 << 10  # bytes of a single file: for a shorter one, level 1 is no faster
# zlib's memLevel, by level. Small buffers make more Huffman tables, which saves 0.8 % on pickled trees. Level 1 is for
# content that gains nothing from it: large buffers make it 5 to 8 % faster for text, and a quarter for weights.
_MEMORY = {1: 8, 2: 3, 3: 3}
_RAW_WINDOW = -15
# ISA-L 2.32 hashes the third position of a stream from a register that nobody has set: it holds the address of its own
# state (igzip_icf_body_h1_gr_bt.asm, `.write_first_byte`). So the same content now and then gives other bytes at levels
# 1 and 2. A first block of so few bytes is made by other code (igzip_icf_finish.asm), which has no such fault.
_FAULTY_LEVELS = (1, 2)
_FIRST_BLOCK = 16
_SAMPLES = 8
_SAMPLE = 128 << 10  # bytes of each
_SAMPLE_SHARE = 64  # one of this many bytes of a file is enough
_SAMPLE_LEAST = 4 << 10
_ZLIB_FRAME = 6  # bytes around a deflate stream
_WORTH = 0.75
_WINDOW = 32 << 10  # bytes before a chunk that it may refer to: saves the 0.1 to 0.2 % that chunks cost
_WINDOW_SAVES = 0.0015  # of a large file; its sample does not show this, as nothing comes before it
_RUNS_COST = 0.015  # of runs: as short chunks without a window they are 0.4 to 1.2 % larger than their sample
_HOPELESS = 0.9  # if level 1 leaves a larger share, no level is worth it


class Judgement(NamedTuple):
    """The result of a file's sample."""

    effort: int  # see `compress_chunk`
    worth_it: bool


def compress_chunk(content: memoryview, number: int, before: bytes, effort: int) -> bytes:
    """Compress the chunk `number` of a stream that goes on. `before`: the content before it that it may refer to.

    `effort`, from 1 to `MOST_EFFORT`: 1 is ISA-L's level 1. 2 is level 2. 3, 4 and 5 are level 2 with a quarter, a half
    and three quarters of the chunks at level 3. 6 is level 3.
    """
    slow = effort - _LEVEL2
    level = 1 if slow < 0 else 3 if number % _SLOW_STEPS < slow else 2
    return _compress(content, level, before)


def _compress(content: memoryview, level: int, before: bytes = b"", flush: int = isal_zlib.Z_FULL_FLUSH) -> bytes:
    """`flush`: how the output ends."""
    window = (isal_zlib.Z_DEFAULT_STRATEGY, before) if before else ()
    compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, _RAW_WINDOW, _MEMORY[level], *window)
    first = b""
    if level in _FAULTY_LEVELS and not before and len(content) > _FIRST_BLOCK:
        first = compressor.compress(content[:_FIRST_BLOCK]) + compressor.flush(isal_zlib.Z_SYNC_FLUSH)
        content = content[_FIRST_BLOCK:]
    return bytes(first + compressor.compress(content) + compressor.flush(flush))


def compress_small(content: memoryview, _number: int, _before: bytes, effort: int = MOST_EFFORT) -> bytes:
    """Compress content to a whole stream. `effort`: 1 or `MOST_EFFORT`."""
    if effort < MOST_EFFORT and len(content) >= QUICK_FROM:
        return _compress(content, 1, flush=isal_zlib.Z_FINISH)
    return igzip_lib.compress(content, _SMALL_LEVEL, igzip_lib.COMP_DEFLATE)


def sample_ranges(length: int) -> Sequence[tuple[int, int]]:
    """Return the (offset, length) ranges of a sample, spread evenly over a file of `length` bytes."""
    size = min(_SAMPLE, max(_SAMPLE_LEAST, length // _SAMPLE_SHARE // _SAMPLES), length)
    return [((length - size) * number // (_SAMPLES - 1), size) for number in range(_SAMPLES)]


def judge(read: Callable[[int, int], bytes], length: int) -> Judgement:
    """Judge a file of `length` bytes by a sample that `read(offset, size)` reads. The same bytes give the same verdict.
    Half of the sample is enough to recognize hopeless files. Most weights are hopeless.

    The effort is the least at which ISA-L's output is no larger than the output of `pigz -1` and `zip -1` (zlib's level
    1). It is the least effort for weights and text, and a middle one for pickled trees.

    Compression is worth it if it saves a quarter. Weights do not reach that (f32 and f16 save 7 to 8 %, bf16 21 %, int8
    9 to 16 %, packed 4 bits 9 %), and they are read three to ten times faster stored. Text, JSON, vocabularies, pickled
    trees, sparse matrices and tables of integers save a half and more.
    """
    ranges = sample_ranges(length)
    sample, level1 = b"", 0
    for parts in (ranges[::2], ranges[1::2]):
        sample += b"".join(read(*part) for part in parts)
        level1 = len(_compress(memoryview(sample), 1))
        if level1 > len(sample) * _HOPELESS:  # zlib would agree, but take fifteen times as long
            return Judgement(1, False)
    peer = int(len(zlib.compress(sample, 1)) * (1 + _WINDOW_SAVES))
    if level1 <= peer:
        return Judgement(1, level1 <= len(sample) * _WORTH)
    level2 = len(_compress(memoryview(sample), 2))
    return Judgement(_effort_beyond_1(sample, level2, peer), level2 <= len(sample) * _WORTH)


def run_effort(sample: bytes) -> int:
    """Return the least effort at which runs (`run_codec`) are no larger than the output of `pigz -1`.

    `sample`: parts of them."""
    peer = int(len(zlib.compress(sample, 1)) * (1 - _RUNS_COST))
    if len(_compress(memoryview(sample), 1)) <= peer:
        return 1
    return _effort_beyond_1(sample, len(_compress(memoryview(sample), 2)), peer)


def small_effort(samples: Sequence[bytes]) -> int:
    """Return the effort for single small files: 1 if it makes them no larger than `zip -1` does, else `MOST_EFFORT`.

    `samples`: parts of them."""
    peer = sum(len(zlib.compress(sample, 1)) - _ZLIB_FRAME for sample in samples)
    quick = sum(len(compress_small(memoryview(sample), 0, b"", 1)) for sample in samples)
    return 1 if quick <= peer else MOST_EFFORT


def _effort_beyond_1(sample: bytes, level2: int, peer: int) -> int:
    """Return the least effort from 2 on that makes a sample no larger than `peer` bytes. `level2`: its size at 2."""
    if level2 <= peer:
        return _LEVEL2
    level3 = len(_compress(memoryview(sample), 3))
    needed = _SLOW_STEPS * (level2 - peer) / max(1, level2 - level3)
    return min(MOST_EFFORT, _LEVEL2 + math.ceil(needed))


@functools.cache
def codec_name() -> str:
    """Name everything that decides the output bytes. Chunks measured under another name are measured again.

    Versions are not enough: ISA-L chooses its code by the processor. So the name also holds a digest of its output for
    some sample bytes.
    """
    dice = random.Random(1)
    words = [dice.randbytes(dice.randrange(2, 9)).hex().encode() for _ in range(500)]
    text = b" ".join(dice.choice(words) for _ in range(5000))
    view = memoryview(text)
    made = [
        *(_compress(view, level, text[-_WINDOW:]) for level in (1, 2, 3)),
        *(compress_small(view, 0, b"", effort) for effort in (1, MOST_EFFORT)),
    ]
    return (
        f"deflate {_VERSION} isal-{ISAL_VERSION} zlib-{zlib.ZLIB_RUNTIME_VERSION} {CHUNK} {crc32(b''.join(made)):08x}"
    )


def chunk_codec(effort: int) -> Codec:
    """Return the codec of a large file. All formats share it."""
    return Codec(codec_name(), CHUNK, functools.partial(compress_chunk, effort=effort), window=_WINDOW)


def run_codec(effort: int = MOST_EFFORT) -> Codec:
    """Return the codec of headers and small files in a tar, compressed together."""
    return Codec(f"{codec_name()} run {_RUN}", _RUN, functools.partial(compress_chunk, effort=effort))


def small_codec(effort: int = MOST_EFFORT) -> Codec:
    """Return the codec of a single small file."""
    return Codec(f"{codec_name()} small", SMALL, functools.partial(compress_small, effort=effort))
