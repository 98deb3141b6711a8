"""Helpers to compress archives without a store: immediate measurements, and readers of the results."""

import bz2
import gzip
import io
import lzma
import zipfile
from array import array
from collections.abc import Callable, Mapping

from bentofs.store.formats.pieces import Piece, read_bytes
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Codec, Measured, Name
from bentofs.store.formats.write.deflate import chunk_codec
from bentofs.store.formats.write.members import Deflated, Member, Packing
from bentofs.store.formats.write.registry import Contents


def fail_on_wrong(name: Name) -> None:
    raise AssertionError(f"{name} came out otherwise than measured")


class OnTheSpot:
    """Measurements made when a part is first asked for."""

    def __init__(self, on_wrong: Callable[[Name], None] = fail_on_wrong) -> None:
        self.maker = ChunkMaker(on_wrong)
        self._known: dict[Name, Measured] = {}

    def measure(self, part: str, codecs: Mapping[str, Codec], contents: Contents) -> Measured:
        names = {each: (each, codec.name) for each, codec in codecs.items()}
        if names[part] not in self._known:
            sizes = {each: array("I") for each in codecs}
            for each, content in contents(codecs):
                made = codecs[each].encode(content, len(sizes[each]), b"")
                sizes[each].append(codecs[each].size_of(made))
            self._known |= {names[each]: Measured(names[each], sizes[each], each) for each in codecs}
        return self._known[names[part]]

    def deflated(self, name: str, content: Piece, effort: int) -> Deflated:
        codec = chunk_codec(effort)
        sizes = array("I")
        for number, (_, start, stop) in enumerate(codec.units(content, 0, content.length)):
            before = read_bytes(content, max(0, start - codec.window), min(start, codec.window))
            sizes.append(len(codec.encode(memoryview(read_bytes(content, start, stop - start)), number, before)))
        return Deflated(Measured((name, codec.name), sizes, name), effort)

    def packed(self, member: Member, packing: Packing | int) -> Member:
        """Return a member with a packing.

        `packing`: a `Packing`, or the effort for chunks of its own.
        """
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
