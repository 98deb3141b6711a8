"""LazySequence: a sequence whose items are made when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

_T = TypeVar("_T")


class LazySequence(Sequence[_T]):
    """A sequence that keeps no items. A slice of it is a list."""

    __slots__ = ()

    @abstractmethod
    def item(self, number: int) -> _T:
        """Make the item with this number: 0 or more, and less than the length."""

    @overload
    def __getitem__(self, number: int) -> _T: ...

    @overload
    def __getitem__(self, number: slice) -> list[_T]: ...

    def __getitem__(self, number: int | slice) -> _T | list[_T]:
        length = len(self)
        if isinstance(number, slice):
            return list(map(self.item, range(*number.indices(length))))
        if number < 0:
            number += length
        if not 0 <= number < length:
            raise IndexError(number)
        return self.item(number)

    def __iter__(self) -> Iterator[_T]:
        return map(self.item, range(len(self)))
