"""One chunk of deflate is the same bytes at each call, on which the sizes of archives rest."""

import random
import zlib
from collections.abc import Callable

import pytest
from isal import isal_zlib

from bentofs.store.formats.write import deflate

_PADDING = bytes(deflate.QUICK_FROM)


def _small(content: memoryview, effort: int) -> bytes:
    return deflate.compress_small(memoryview(bytes(content) + _PADDING), 0, b"", effort)


def _chunk(content: memoryview, effort: int) -> bytes:
    return deflate.compress_chunk(content, 0, b"", effort)


@pytest.mark.parametrize(
    ("compress", "effort"), [*((_chunk, effort) for effort in range(1, deflate.MOST_EFFORT + 1)), (_small, 1)]
)
def test_a_chunk_is_the_same_wherever_its_compressor_lies(
    compress: Callable[[memoryview, int], bytes], effort: int
) -> None:
    """ISA-L hashes one position from the address of its state. Then a first match is found or not: with one address of
    some thousand, for each content."""
    dice = random.Random(effort)
    contents = []
    for _ in range(8000):
        first = dice.randbytes(12)
        again = [dice.randbytes(9) + first[skipped:] for skipped in range(3)]
        contents.append(memoryview(b"".join([first, dice.randbytes(30), *again, dice.randbytes(300)])))
    held: list[object] = []
    made = set()
    for _ in range(6):
        made.add(tuple(compress(content, effort) for content in contents))
        held += [isal_zlib.compressobj(1) for _ in range(5)]  # so that the next compressors lie elsewhere
    assert len(made) == 1
    for content, chunk in zip(contents[:100], made.pop()[:100], strict=True):
        assert zlib.decompressobj(-15).decompress(chunk).removesuffix(_PADDING) == content
