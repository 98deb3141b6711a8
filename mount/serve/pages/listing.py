"""Listing: the entries of a directory, in pages, with the sizes that are known. Functions that run in a thread."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import NamedTuple

from bentofs.mount.serve.pages.rendering import view_href
from bentofs.mount.serve.pages.viewing import can_be_viewed
from bentofs.mount.serve.targets import href
from bentofs.mount.view.nodes import File, Folder, Item
from bentofs.mount.view.tree import Tree
from bentofs.store.errors import NotFoundError, StoreError

PER_PAGE = 500


class Line(NamedTuple):
    """One entry of a directory."""

    name: str
    is_folder: bool
    href: str
    size: int | None  # None if it is not known, or a directory's
    view: str | None  # the page that shows it


def lines_of(tree: Tree, place: Sequence[str], *, begin: int = 0, most: int = PER_PAGE) -> tuple[list[Line], int]:
    """Return entries of a directory of the tree, and how many there are in all.

    Raises:
        NotFoundError: there is no such directory.
        StoreError: the store cannot be read.
    """
    folder = tree.lookup("/" + "/".join(place))
    if not isinstance(folder, Folder):
        raise NotFoundError(f"/{'/'.join(place)} is not there")
    return folder_lines(folder, place, begin=begin, most=most)


def folder_lines(
    folder: Folder, place: Sequence[str], *, begin: int = 0, most: int = PER_PAGE
) -> tuple[list[Line], int]:
    """Return entries of a directory at a place of the tree, and how many there are in all. No archive is measured."""
    items = folder.items()
    is_models = place[2:] and place[0] == "models" and "files" in place[3:4]
    lines = []
    for item in items[begin : begin + most]:
        size = _known_size(folder, item) if stat.S_ISREG(item.mode) else None
        lines.append(line_of(item, place, size, can_be_viewed=bool(is_models) and can_be_viewed(item.name)))
    return lines, len(items)


def line_of(item: Item, place: Sequence[str], size: int | None = None, *, can_be_viewed: bool = False) -> Line:
    """Return the line of an entry."""
    is_folder = stat.S_ISDIR(item.mode)
    names = (*place, item.name)
    view = view_href(names) if can_be_viewed and stat.S_ISREG(item.mode) else None
    return Line(item.name, is_folder, href(names, is_folder=is_folder), size, view)


def _known_size(folder: Folder, item: Item) -> int | None:
    try:
        node = folder.child(item.name)
        return node.attributes().size if isinstance(node, File) and node.is_measured() else None
    except StoreError:  # it has just gone
        return None
