"""YAML written by a stranger, read in bounded time, memory and stack. Nothing but plain values is ever made of it.

PyYAML's safe loaders run no code, but a few hundred bytes can still cost the machine: aliases of aliases that expand to
billions of nodes, brackets nested until the C stack is used up, numbers in base 60 that take hours.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from store.errors import BadModelError
from store.text import printable

MAX_DEPTH = 100  # collections within collections
MAX_NODES = 1_000_000  # with each alias counted as what it stands for
_SMALL = 4096  # bytes in which neither depth nor numbers can do harm
_MAX_NUMBER = 1000  # characters
_NUMBER = re.compile(r"[-+0-9:_.]+\Z")
# libyaml is ten times faster; wheels of PyYAML have it, some source builds do not.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(content: bytes) -> object:
    """The one document in `content`, as plain values.

    Raises:
        BadModelError: it is not YAML, uses tags of a program's own, or would expand too far. The text says what,
            without naming the file.
    """
    try:
        if len(content) > _SMALL or b"&" in content:
            _check(content)
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader, as above
    except BadModelError:
        raise
    except Exception as error:  # PyYAML's constructors raise whatever int(), dict[...] and the like raise
        problem = printable(" ".join(f"{type(error).__name__}: {error}".split()))
        raise BadModelError(f"is not YAML: {problem[:300]}") from None


def _check(content: bytes) -> None:
    depth = 0
    anchored: dict[str, int] = {}  # nodes that each anchor stands for
    open_collections: list[tuple[str | None, int]] = []  # anchor, nodes counted before it
    nodes = 0
    for event in yaml.parse(content, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            nodes += anchored.get(event.anchor or "", MAX_NODES)  # unknown, or of a collection around it
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                anchored[event.anchor] = 1
            if len(event.value) > _MAX_NUMBER and event.implicit[0] and _NUMBER.match(event.value):
                raise BadModelError(f"holds a number of {len(event.value):,} characters")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            open_collections.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            anchor, before = open_collections.pop()
            if anchor is not None:
                anchored[anchor] = nodes - before
        if depth > MAX_DEPTH:
            raise BadModelError(f"is nested more than {MAX_DEPTH} deep")
        if nodes > MAX_NODES:
            raise BadModelError(f"stands for more than {MAX_NODES:,} values")
