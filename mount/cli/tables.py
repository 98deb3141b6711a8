"""Print rows of text in columns, each column as wide as its widest text. Made for ten thousand rows: rich's tables take
seconds for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

_BETWEEN = "  "


def in_columns(rows: Sequence[Sequence[str]], *, right: Set[int] = frozenset()) -> Iterator[str]:
    """Yield the lines. `right`: the numbers of the columns that are aligned to the right."""
    from rich.cells import cell_len  # not before a table is printed: rich takes long to load

    lengths = [[cell_len(text) for text in row] for row in rows]
    widths = [max(column) for column in zip(*lengths, strict=True)]
    for row, row_lengths in zip(rows, lengths, strict=True):
        parts = []
        for number, (text, length) in enumerate(zip(row, row_lengths, strict=True)):
            gap = " " * (widths[number] - length)
            parts.append(gap + text if number in right else text + gap)
        yield _BETWEEN.join(parts).rstrip()
