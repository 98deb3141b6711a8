"""YAML written by a stranger, read in bounded time, memory and stack. Nothing but plain values is ever made of it.

PyYAML's safe loaders run no code, but a few hundred bytes can still cost the machine: aliases of aliases that expand to
billions of nodes, brackets nested until the C stack is used up, numbers in base 60 that take hours. Documents of more
than some bytes are therefore checked event by event (`store.model.yaml_outline`).

BentoML reads `model.yaml` by PyYAML's pure loader. libyaml is ten times faster, and refuses the escapes of lone
surrogates, which that loader takes: they are replaced while libyaml parses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import yaml

from bentofs.store.errors import BadModelError
from bentofs.store.model.yaml_outline import HollowAliasError, Outline
from bentofs.store.util.display import printable

MAX_EXACT = 64 << 10  # bytes that `load_exactly` takes: the pure loader needs a second for them at most
_SMALL = 4096  # bytes in which neither depth nor numbers can do harm
# Wheels of PyYAML have libyaml, some source builds do not.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SURROGATE = re.compile(rb"\\u([dD][89a-fA-F][0-9a-fA-F]{2})")  # the escape of a lone one
_PLANES = range(16, 3, -1)  # of Unicode, that hardly anybody uses


def load(content: bytes, keys: Collection[str]) -> object:
    """Read the one document in `content`, as plain values.

    `keys`: the keys of the top mapping whose values are wanted. Other collections may come out empty, long texts too.

    Raises:
        BadModelError: it is not YAML, uses tags of a program's own, or would expand too far. The text says what,
            without naming the file.
    """
    try:
        if len(content) <= _SMALL and b"&" not in content and not _SURROGATE.search(content):
            return yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader, as above
        try:
            return Outline(keys).of(_events(content))
        except HollowAliasError:
            return Outline(None).of(_events(content))
    except BadModelError:
        raise
    except Exception as error:  # PyYAML's constructors raise whatever int(), dict[...] and the like raise
        raise _refusal(error) from None


def load_exactly(content: bytes) -> object:
    """Read the one document in at most `MAX_EXACT` bytes, all of it, by the loader that BentoML uses.

    Raises:
        BadModelError: as `load`.
    """
    load(content, ())
    try:
        return yaml.load(content.decode(), Loader=yaml.SafeLoader)
    except Exception as error:
        raise _refusal(error) from None


def _refusal(error: Exception) -> BadModelError:
    if isinstance(error, RecursionError):
        return BadModelError("is nested too deep")
    problem = printable(" ".join(f"{type(error).__name__}: {error}".split()))
    return BadModelError(f"is not YAML: {problem[:300]}")


def _events(content: bytes) -> Iterator[yaml.Event]:
    """Parse. While libyaml does, the same number in another of Unicode's planes stands for each lone surrogate."""
    plane = _free_plane(content) if _SURROGATE.search(content) else None
    if plane is None:
        yield from yaml.parse(content, Loader=_Loader)
        return
    escape, first, last = f"\\U{plane:04x}", chr(plane << 16 | 0xD800), chr(plane << 16 | 0xDFFF)
    stand_in = re.compile(f"[{first}-{last}]|{re.escape(escape)}([dD][0-9a-fA-F]{{3}})")

    def restored(match: re.Match[str]) -> str:
        """The surrogate or, where a backslash is no escape, the letters that stood there."""
        return f"\\u{match[1]}" if match[1] else chr(ord(match[0]) & 0xFFFF)

    for event in yaml.parse(_SURROGATE.sub(lambda match: escape.encode() + match[1], content), Loader=_Loader):
        if isinstance(event, yaml.ScalarEvent):
            event.value = stand_in.sub(restored, event.value)
        yield event


def _free_plane(content: bytes) -> int | None:
    """A plane of which no character is there whose number ends like a surrogate's."""
    folded = content.lower()
    for plane in _PLANES:
        if f"\\u{plane:04x}d".encode() not in folded and chr(plane << 16 | 0xD800).encode()[:2] not in content:
            return plane
    return None
