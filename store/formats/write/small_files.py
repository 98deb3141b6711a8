"""Small files: a tar compresses them together, in runs with the headers; a zip compresses each separately.

Measuring them for one format also measures them for the other, so they are read once for both.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence

from bentofs.store.formats.pieces import PieceList, read_bytes
from bentofs.store.formats.write.chunks import Codec
from bentofs.store.formats.write.deflate import run_codec, small_codec
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.stretches import Stretches
from bentofs.store.formats.write.tar import lay_out_tar, tar_spans

RUNS, FILES = "runs", "small"  # names of the parts: of a tar, and of a zip


class SmallFiles:
    """The small files of one model, between its large ones."""

    def __init__(self, members: Sequence[Member], mtime: int) -> None:
        self._members = members
        self._mtime = mtime

    @functools.cached_property
    def tar(self) -> PieceList:
        """Return the tar of all members, not compressed."""
        return lay_out_tar(self._members, self._mtime)

    @functools.cached_property
    def stretches(self) -> Stretches:
        """Return the stretches of a compressed tar."""
        return Stretches(self._members, self._mtime)

    def codecs(self) -> Mapping[str, Codec]:
        """Return the codec of each part."""
        return {RUNS: run_codec(), FILES: small_codec()}

    def chunks(self, parts: Collection[str]) -> Iterator[tuple[str, memoryview]]:
        """Yield the contents of the chunks of some parts, in order within each part. Each file is read once."""
        if RUNS in parts:
            yield from self._runs(with_files=FILES in parts)
        else:
            for member in self._members:
                if member.content and member.packing is Packing.SMALL:
                    yield FILES, memoryview(read_bytes(member.content, 0, member.size))

    def _runs(self, *, with_files: bool) -> Iterator[tuple[str, memoryview]]:
        """Yield every run, followed by the files that end in it if `with_files` is set."""
        files = (
            (span.content, span.content + span.member.size)
            for span in (tar_spans(self._members, self._mtime) if with_files else ())
            if span.member.content and span.member.packing is Packing.SMALL
        )
        file = next(files, None)
        before = memoryview(b"")  # the start of a file that continues
        for stretch in self.stretches:
            for run in run_codec().units(self.tar, stretch.start, stretch.stop) if stretch.how is Packing.SMALL else ():
                content = memoryview(bytearray(len(before) + run.stop - run.start))
                content[: len(before)] = before
                self.tar.read_into([content[len(before) :]], run.start)
                yield RUNS, content[len(before) :]
                begin = run.start - len(before)
                while file is not None and file[1] <= run.stop:
                    yield FILES, content[file[0] - begin : file[1] - begin]
                    file = next(files, None)
                before = content[file[0] - begin :] if file is not None else content[:0]
