"""Small files: a tar compresses them together, in runs with the headers; a zip compresses each separately.

Measuring them for one format also measures them for the other, so they are read once for both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial

from bentofs.store.formats.pieces import Piece, read_bytes
from bentofs.store.formats.write.chunks import Sampled
from bentofs.store.formats.write.deflate import (
    MOST_EFFORT,
    QUICK_FROM,
    run_codec,
    run_effort,
    small_codec,
    small_effort,
)
from bentofs.store.formats.write.members import Member, Packing, shapes_of
from bentofs.store.formats.write.plan import Part, Plan, Range, grid
from bentofs.store.formats.write.tar import header, padding_length, tar_spans

_SAMPLED_FROM = 8 << 20  # bytes of runs: shorter ones take less time than a sample saves
_SAMPLES = 16
_SAMPLE = 32 << 10  # bytes of each, at most
_SAMPLE_SHARE = 64  # one of this many bytes is enough

RUNS, FILES = "runs", "small"  # names of the parts: of a tar, and of a zip


def plan_small_files(members: Sequence[Member], mtime: int, packings: Sequence[Packing], wanted: str) -> Plan:
    """Return the plan of a `.tar.gz`, which wants `RUNS`, or of a `.zip`, which wants `FILES`."""
    parts = {
        RUNS: Part(run_codec, _runs, judge=_judge_runs),
        FILES: Part(small_codec, _files, _contents, judge=_judge_files),
    }
    return Plan(members, mtime, packings, wanted, parts)


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


def _judge_runs(plan: Plan) -> int:
    """Return the effort for the runs. The same bytes give the same effort."""
    total = sum(stretch.stop - stretch.start for stretch in plan.stretches if stretch.packing is Packing.SMALL)
    if total < _SAMPLED_FROM:
        return MOST_EFFORT
    size = min(_SAMPLE, total // _SAMPLE_SHARE // _SAMPLES)
    places = _places(plan, (Packing.SMALL, Packing.TINY))
    return run_effort(b"".join(_sample(plan, numbers, size) for numbers in places))


def _judge_files(plan: Plan) -> int:
    """Return the effort for the single files. The same bytes give the same effort."""
    sizes = [
        size
        for packing, (_, _, _, size) in zip(plan.packings, shapes_of(plan.members), strict=True)
        if size and packing is Packing.SMALL
    ]
    if sum(sizes) < max(_SAMPLED_FROM, len(sizes) * QUICK_FROM):
        return MOST_EFFORT
    contents = (plan.members[numbers[0]].content for numbers in _places(plan, (Packing.SMALL,)))
    return small_effort([_start(content, _SAMPLE) for content in contents if content is not None])


def _places(plan: Plan, packings: Collection[Packing]) -> Iterator[Sequence[int]]:
    """Yield the numbers of the members from some places on, spread evenly over all those with these packings."""
    small = [number for number, packing in enumerate(plan.packings) if packing in packings]
    return (small[len(small) * part // _SAMPLES :] for part in range(_SAMPLES))


def _sample(plan: Plan, numbers: Sequence[int], size: int) -> bytes:
    """Return about `size` bytes of a tar of these members."""
    sample = bytearray()
    for number in numbers:
        if len(sample) >= size:
            break
        member = plan.members[number]
        sample += header(member, plan.mtime)
        if member.content is not None:
            sample += _start(member.content, size)
            sample += bytes(padding_length(member.size))
    return bytes(sample)


def _start(content: Piece, size: int) -> bytes:
    """Return the first `size` bytes of a content, or all of it."""
    read = content.read_sample if isinstance(content, Sampled) else partial(read_bytes, content)
    return read(0, min(content.length, size))
