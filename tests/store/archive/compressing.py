"""What it takes to compress archives without a store: measurements made on the spot, and readers of the results."""

import bz2
import gzip
import io
import lzma
import zipfile
from array import array
from collections.abc import Callable, Iterable

from store.archive.chunk_maker import ChunkMaker
from store.archive.chunks import Codec, Measured, Name
from store.archive.deflate import chunk_codec
from store.archive.formats import Unit
from store.archive.members import Deflated, Member, Packing
from store.archive.pieces import Piece, read_bytes


def fail_on_wrong(name: Name) -> None:
    raise AssertionError(f"{name} came out otherwise than measured")


class OnTheSpot:
    """Measures when it is first asked for a part."""

    def __init__(self, on_wrong: Callable[[Name], None] = fail_on_wrong) -> None:
        self.maker = ChunkMaker(on_wrong)
        self._known: dict[Name, Measured] = {}

    def measure(self, part: str, codec: Codec, units: Iterable[Unit]) -> Measured:
        name = (part, codec.name)
        if name not in self._known:
            self._known[name] = Measured(name, self._sizes(codec, units), part)
        return self._known[name]

    def _sizes(self, codec: Codec, units: Iterable[Unit]) -> "array[int]":
        sizes = [
            codec.size_of(
                codec.encode(
                    memoryview(read_bytes(content, start, stop - start)),
                    number,
                    read_bytes(content, max(0, start - codec.window), min(start, codec.window)),
                )
            )
            for number, (content, start, stop) in enumerate(units)
        ]
        return array("I", sizes)

    def deflated(self, name: str, content: Piece, effort: int) -> Deflated:
        codec = chunk_codec(effort)
        cuts = range(0, content.length, codec.chunk)
        units = [Unit(content, start, min(start + codec.chunk, content.length)) for start in cuts]
        return Deflated(self.measure(name, codec, units), effort)

    def packed(self, member: Member, packing: Packing | int) -> Member:
        """`packing`: one of those, or the effort of chunks of its own."""
        if isinstance(packing, int):
            if member.content is None:
                return member
            return member._replace(packing=self.deflated(member.path, member.content, packing))
        return member._replace(packing=packing)


def unpack_zip(archive: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return [(info.filename, opened.read(info)) for info in opened.infolist()]


DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar.gz": gzip.decompress,
    "tar.xz": lambda archive: lzma.decompress(archive, lzma.FORMAT_XZ),
    "bentomodel": lambda archive: lzma.decompress(archive, lzma.FORMAT_XZ),
    "tar.bz2": bz2.decompress,
}
