"""Small files: a tar compresses them together, in runs with the headers; a zip compresses each separately.

Measuring them for one format also measures them for the other, so they are read once for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.deflate import run_codec, small_codec
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.plan import Part, Plan, Range, grid
from bentofs.store.formats.write.tar import tar_spans

RUNS, FILES = "runs", "small"  # names of the parts: of a tar, and of a zip


def plan_small_files(members: Sequence[Member], mtime: int, packings: Sequence[Packing], wanted: str) -> Plan:
    """Return the plan of a `.tar.gz`, which wants `RUNS`, or of a `.zip`, which wants `FILES`."""
    parts = {
        RUNS: Part(run_codec(), lambda: _runs(plan)),
        FILES: Part(small_codec(), lambda: _files(plan), lambda: _contents(plan)),
    }
    plan = Plan(members, mtime, packings, wanted, parts)
    return plan


def _runs(plan: Plan) -> Iterator[Range]:
    step = run_codec().chunk
    for stretch in plan.stretches:
        if stretch.packing is Packing.SMALL:
            yield from grid(stretch.start, stretch.stop, step)


def _files(plan: Plan) -> Iterator[Range]:
    for packing, (_, start, _, size) in zip(plan.packings, tar_spans(plan.members, plan.mtime), strict=True):
        if size and packing is Packing.SMALL:
            yield Range(start, start + size)


def _contents(plan: Plan) -> Iterator[Piece]:
    for packing, member in zip(plan.packings, plan.members, strict=True):
        if member.content and packing is Packing.SMALL:
            yield member.content
