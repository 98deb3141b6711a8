"""Grid: the places in a tar where the grid of stored chunks begins anew, in a `.bentomodel` and a stored `.tar.gz`.

Headers of chunks lie between a file's bytes. The grid begins at the content of each large file, so they are the same
wherever the file lies in the archive. So a tool that knows the last version (`rsync` without `--whole-file`) sends only
what changed, even if a file before it grew.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.tar import end_length, tar_spans

LEAST = 1 << 20  # bytes of a file with a grid of its own. For shorter ones, it would take longer to read them


class Grid(NamedTuple):
    """The places in a tar where the grid begins anew, and the tar's length."""

    starts: array[int]  # the first one is 0
    length: int


def grid_of(members: Sequence[Member], mtime: int) -> Grid:
    """Return the grid of the tar of these members (`store.formats.write.tar.lay_out_tar`).

    It also begins behind the first member: `model.yaml` is what people edit."""
    starts = array("Q", [0])
    end = 0
    for number, (start, content, stop, size) in enumerate(tar_spans(members, mtime)):
        end = stop
        if size >= LEAST:
            starts.append(content)
        elif number == 1:
            starts.append(start)
    return Grid(starts, end + end_length(end))


def parts_of(length: int, starts: Sequence[int], numbers: range) -> Iterator[tuple[int, int]]:
    """Yield start and length of the parts of some content that have a grid of their own: those with these numbers."""
    for number in numbers:
        start = starts[number]
        yield start, (starts[number + 1] if number + 1 < len(starts) else length) - start
