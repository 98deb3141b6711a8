"""Viewing: what a page shows of a file of a model. Only a bounded part of it is read. Nothing in it is ever run.

Threading: functions that read; they run in a thread.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from bentofs.mount.serve.media import IMAGES, TEXTS
from bentofs.mount.view.nodes import File
from bentofs.store.formats.pieces import Piece, read_bytes
from bentofs.store.util.display import printable

_MOST_TEXT = 256 << 10  # bytes that are shown
_MOST_NOTEBOOK = 2 << 20  # bytes; a longer one is shown as text
_MOST_HEADER = 2 << 20  # bytes of JSON, for some 17,000 tensors
_MOST_TENSORS, _MOST_FIELDS, _MOST_CELLS = 2000, 200, 500
_MOST_OUTPUT, _MOST_SHAPE = 20_000, 16  # characters of a cell's output; dimensions of a tensor
_NAMES = ("readme", "license", "licence", "notice", "dockerfile", "makefile")  # texts without a suffix


@dataclass(frozen=True)
class TextView:
    """The beginning of a text."""

    text: str
    is_cut: bool
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class ImageView:
    """A picture. The browser fetches it."""

    kind: ClassVar[str] = "image"


class Cell(NamedTuple):
    """A cell of a notebook."""

    kind: str
    source: str
    outputs: list[str]


@dataclass(frozen=True)
class NotebookView:
    """A notebook, as text."""

    cells: list[Cell]
    left_out: int
    kind: ClassVar[str] = "notebook"


class Tensor(NamedTuple):
    """A tensor of a file of weights."""

    name: str
    dtype: str
    shape: str
    size: int  # bytes


@dataclass(frozen=True)
class TensorsView:
    """The header of a file of weights."""

    tensors: list[Tensor]
    left_out: int
    weights: int  # the number of all weights
    metadata: list[tuple[str, str]]
    kind: ClassVar[str] = "tensors"


@dataclass(frozen=True)
class NoView:
    """Nothing to show, and why."""

    sentence: str
    kind: ClassVar[str] = "none"


View = TextView | ImageView | NotebookView | TensorsView | NoView


def can_be_viewed(name: str) -> bool:
    """Tell whether a file's name promises something to look at."""
    suffix = posixpath.splitext(name)[1].lower()
    return suffix in TEXTS or suffix in IMAGES or suffix == ".safetensors" or name.lower() in _NAMES


def view_of(name: str, file: File) -> tuple[File, View]:
    """Return the file as it is now, and what to show of it.

    Raises:
        StoreError: it cannot be read.
    """
    file = file.renewed()
    suffix = posixpath.splitext(name)[1].lower()
    if suffix in IMAGES:
        return file, ImageView()
    piece = file.open()
    if suffix == ".safetensors":
        return file, _tensors(piece)
    if suffix == ".ipynb" and piece.length <= _MOST_NOTEBOOK:
        notebook = _notebook(read_bytes(piece, 0, piece.length))
        if notebook is not None:
            return file, notebook
    content = read_bytes(piece, 0, min(piece.length, _MOST_TEXT))
    if suffix not in TEXTS and (b"\0" in content or not _is_utf8(content, is_cut=len(content) < piece.length)):
        return file, NoView("This is no text, no image and no .safetensors.")
    return file, TextView(content.decode("utf-8", "replace"), len(content) < piece.length)


def _is_utf8(content: bytes, *, is_cut: bool) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return is_cut and error.start >= len(content) - 3  # in the middle of a character
    return True


def _notebook(content: bytes) -> NotebookView | None:
    """Return the cells of a notebook; None if it is none."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    cells = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(cells, list):
        return None
    found = [_cell(cell) for cell in cells[:_MOST_CELLS] if isinstance(cell, dict)]
    return NotebookView(found, max(0, len(cells) - _MOST_CELLS))


def _cell(cell: Mapping[str, object]) -> Cell:
    outputs = cell.get("outputs")
    texts = [text for output in outputs for text in _output(output)] if isinstance(outputs, list) else []
    return Cell(str(cell.get("cell_type", ""))[:20], _joined(cell.get("source")), texts)


def _output(output: object) -> Iterator[str]:
    """Yield the plain text of an output. Its HTML and pictures are left out."""
    if not isinstance(output, dict):
        return
    data = output.get("data")
    text = _joined(output.get("text")) or (_joined(data.get("text/plain")) if isinstance(data, dict) else "")
    if not text and "ename" in output:
        text = f"{output.get('ename')}: {output.get('evalue')}"
    if text:
        yield text if len(text) <= _MOST_OUTPUT else f"{text[:_MOST_OUTPUT]}…"


def _joined(text: object) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else text if isinstance(text, str) else ""


def _tensors(piece: Piece) -> View:
    """Return the header of a .safetensors file. The weights behind it are not read."""
    if piece.length < 8:
        return NoView("This .safetensors file is too short for a header.")
    length = int.from_bytes(read_bytes(piece, 0, 8), "little")
    if length > piece.length - 8:
        return NoView("The header of this .safetensors file is cut short.")
    if length > _MOST_HEADER:
        return NoView(f"The header of this .safetensors file is too long to be shown: {length:,} bytes.")
    try:
        header = json.loads(read_bytes(piece, 8, length))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        return NoView("The header of this .safetensors file is no JSON.")
    metadata = header.pop("__metadata__", None)
    pairs = list(metadata.items())[:_MOST_FIELDS] if isinstance(metadata, dict) else []
    tensors = [_tensor(name, fields) for name, fields in header.items()]
    shown = [tensor for tensor, _ in tensors[:_MOST_TENSORS]]
    return TensorsView(
        shown,
        len(tensors) - len(shown),
        sum(weights for _, weights in tensors),
        [(printable(str(key)[:200]), printable(str(value)[:2000])) for key, value in pairs],
    )


def _tensor(name: str, fields: object) -> tuple[Tensor, int]:
    """Return a tensor, and the number of its weights."""
    known = fields if isinstance(fields, dict) else {}
    shape, offsets = _numbers(known.get("shape")), _numbers(known.get("data_offsets"))
    size = offsets[1] - offsets[0] if len(offsets) == 2 else 0
    text = " x ".join(map(str, shape[:_MOST_SHAPE])) or "scalar"
    weights = math.prod(shape[:_MOST_SHAPE])
    return Tensor(printable(name[:500]), printable(str(known.get("dtype", "?"))[:20]), text, max(0, size)), weights


def _numbers(values: object) -> list[int]:
    if not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, int) and 0 <= value < 1 << 53]
