"""Small files: a tar compresses them together, in runs with the headers; a zip compresses each separately.

Measuring them for one format also measures them for the other, so they are read once for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bentofs.store.formats.write.deflate import run_codec, small_codec
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.plan import Part, Plan, Range, grid
from bentofs.store.formats.write.stretches import Stretches
from bentofs.store.formats.write.tar import tar_spans

RUNS, FILES = "runs", "small"  # names of the parts: of a tar, and of a zip


def plan_small_files(members: Sequence[Member], mtime: int, packings: Sequence[Packing], wanted: str) -> Plan:
    """Return the plan of a `.tar.gz`, which wants `RUNS`, or of a `.zip`, which wants `FILES`."""
    parts = {
        RUNS: Part(run_codec(), lambda: _runs(members, mtime, packings)),
        FILES: Part(small_codec(), lambda: _files(members, mtime, packings)),
    }
    return Plan(members, mtime, packings, wanted, parts)


def _runs(members: Sequence[Member], mtime: int, packings: Sequence[Packing]) -> Iterator[Range]:
    step = run_codec().chunk
    for stretch in Stretches(members, mtime, packings):
        if stretch.packing is Packing.SMALL:
            yield from grid(stretch.start, stretch.stop, step)


def _files(members: Sequence[Member], mtime: int, packings: Sequence[Packing]) -> Iterator[Range]:
    for packing, (member, _, start, _) in zip(packings, tar_spans(members, mtime), strict=True):
        if member.content and packing is Packing.SMALL:
            yield Range(start, start + member.size)
