"""Helpers to compress archives without a store: immediate measurements, and readers of the results."""

import bz2
import gzip
import io
import lzma
import zipfile
from array import array
from collections.abc import Callable, Mapping, Sequence

from bentofs.store.formats.pieces import PieceList, read_bytes
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Measured, Name
from bentofs.store.formats.write.deflate import MOST_EFFORT, chunk_codec
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.plan import Deflated, Plan, Results
from bentofs.store.formats.write.registry import Format


def fail_on_wrong(name: Name) -> None:
    raise AssertionError(f"{name} came out otherwise than measured")


class OnTheSpot:
    """Measures a plan at once, without an index. Every large member is worth compressing, at the effort that its path
    has in `efforts`."""

    def __init__(self, efforts: Mapping[str, int] | None = None) -> None:
        self.maker = ChunkMaker(fail_on_wrong)
        self.efforts = efforts or {}
        self._known: dict[Name, Measured] = {}

    def lay_out(self, kind: Format, members: Sequence[Member], mtime: int, packings: Sequence[Packing]) -> PieceList:
        """Lay out a compressed archive."""
        assert kind.plan is not None
        assert kind.compress is not None
        plan = kind.plan(members, mtime, packings)
        return kind.compress(plan, self.results(plan), self.maker)

    def results(self, plan: Plan) -> Results:
        name = (plan.wanted, plan.parts[plan.wanted].codec(MOST_EFFORT).name)
        if name not in self._known:
            part = plan.parts[plan.wanted]
            codec = part.codec(MOST_EFFORT)
            sizes = array("I")
            for number, (start, stop) in enumerate(part.ranges(plan)):
                content = memoryview(read_bytes(plan.tar, start, stop - start))
                sizes.append(codec.size_of(codec.encode(content, number, b"")))
            self._known[name] = Measured(name, sizes, plan.wanted)
        return Results(
            self._known[name], MOST_EFFORT, {number: self._deflated(plan.members[number]) for number in plan.large}
        )

    def _deflated(self, member: Member) -> Deflated:
        path, content = member.path, member.content
        assert content is not None
        effort = self.efforts.get(path, 1)
        codec = chunk_codec(effort)
        name = (path, codec.name)
        if name not in self._known:
            sizes = array("I")
            for number, (_, start, stop) in enumerate(codec.units(content, 0, content.length)):
                before = read_bytes(content, max(0, start - codec.window), min(start, codec.window))
                sizes.append(len(codec.encode(memoryview(read_bytes(content, start, stop - start)), number, before)))
            self._known[name] = Measured(name, sizes, path)
        return Deflated(self._known[name], effort)


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
