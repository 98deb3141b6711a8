"""Small files: a tar compresses them together, in runs with the headers; a zip compresses each separately.

Measuring them for one format also measures them for the other, so they are read once for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bentofs.store.formats.pieces import Piece, read_bytes
from bentofs.store.formats.write.chunks import Sampled
from bentofs.store.formats.write.deflate import MOST_EFFORT, run_codec, run_effort, small_codec
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.plan import Part, Plan, Range, grid
from bentofs.store.formats.write.tar import header, padding_length, tar_spans

_SAMPLED_FROM = 8 << 20  # bytes of runs: shorter ones take less time than a sample saves
_SAMPLES = 8
_SAMPLE = 128 << 10  # bytes of each, at most
_SAMPLE_SHARE = 64  # one of this many bytes is enough

RUNS, FILES = "runs", "small"  # names of the parts: of a tar, and of a zip


def plan_small_files(members: Sequence[Member], mtime: int, packings: Sequence[Packing], wanted: str) -> Plan:
    """Return the plan of a `.tar.gz`, which wants `RUNS`, or of a `.zip`, which wants `FILES`."""
    parts = {
        RUNS: Part(run_codec, _runs, judge=_judge_runs),
        FILES: Part(lambda _effort: small_codec(), _files, _contents),
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
    small = [number for number, packing in enumerate(plan.packings) if packing in (Packing.SMALL, Packing.TINY)]
    size = min(_SAMPLE, total // _SAMPLE_SHARE // _SAMPLES)
    return run_effort(b"".join(_sample(plan, small[len(small) * part // _SAMPLES :], size) for part in range(_SAMPLES)))


def _sample(plan: Plan, numbers: Sequence[int], size: int) -> bytes:
    """Return about `size` bytes of a tar of these members."""
    sample = bytearray()
    for number in numbers:
        if len(sample) >= size:
            break
        member = plan.members[number]
        sample += header(member, plan.mtime)
        if member.content is not None:
            read = (
                member.content.read_sample
                if isinstance(member.content, Sampled)
                else partial(read_bytes, member.content)
            )
            sample += read(0, min(member.size, size))
            sample += bytes(padding_length(member.size))
    return bytes(sample)
