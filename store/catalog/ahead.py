"""Work on groups of names, always one group ahead of the reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")

NAMES_TOGETHER = 200  # names whose models are prefetched together


def one_ahead(names: Sequence[str], work: Callable[[Sequence[str]], _T]) -> Iterator[_T]:
    """Yield the result of `work` for each group of names, in order. While one is used, the next is made."""
    groups = [names[begin : begin + NAMES_TOGETHER] for begin in range(0, len(names), NAMES_TOGETHER)]
    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as ahead:
        under_way = [ahead.submit(work, group) for group in groups[:1]]
        for number in range(len(groups)):
            done = under_way.pop().result()
            under_way += [ahead.submit(work, following) for following in groups[number + 1 : number + 2]]
            yield done
