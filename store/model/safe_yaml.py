"""Read untrusted YAML in bounded time, memory and stack. It makes only plain values.

PyYAML's safe loaders run no code, but a few hundred bytes can still exhaust the machine: aliases of aliases that expand
to billions of nodes, brackets nested until the C stack overflows, numbers in base 60 that take hours. So larger
documents are checked event by event (`store.model.yaml_outline`).

BentoML reads `model.yaml` with PyYAML's pure loader. libyaml is ten times faster, but refuses the escapes of lone
surrogates, which the pure loader accepts. So they are replaced while libyaml parses.
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
_SMALL = 4096  # bytes; in so few, neither depth nor numbers do harm
# Wheels of PyYAML have libyaml. Some source builds lack it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SURROGATE = re.compile(rb"\\u([dD][89a-fA-F][0-9a-fA-F]{2})")  # the escape of a lone surrogate
_PLANES = range(16, 3, -1)  # of Unicode; they are hardly used


def load(content: bytes, keys: Collection[str]) -> object:
    """Read the only document in `content`, as plain values.

    `keys`: the keys of the top mapping whose values are needed. Other collections, and long strings, may come out
    empty.

    Raises:
        BadModelError: it is not YAML, uses application-specific tags, or would expand too far. The text gives the
            reason, but not the file name.
    """
    return _load(content, keys)


def _load(content: bytes, keys: Collection[str] | None) -> object:
    """Read a document. `keys`: None for all."""
    try:
        if len(content) <= _SMALL and b"&" not in content and not _SURROGATE.search(content):
            return yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader, as above
        try:
            return Outline(keys).of(_events(content))
        except HollowAliasError:
            return Outline(None).of(_events(content))
    except BadModelError:
        raise
    except Exception as error:  # PyYAML's constructors raise the errors of int(), dict[...] and so on
        raise _refusal(error) from None


def load_whole(content: bytes) -> object:
    """Read all of the only document in `content`, as plain values.

    Raises:
        BadModelError: same as `load`; also if it holds more than 50,000 values.
    """
    return _load(content, None)


def load_exactly(content: bytes) -> object:
    """Read all of the only document, of at most `MAX_EXACT` bytes, with the loader that BentoML uses.

    Raises:
        BadModelError: same as `load`.
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
    """Parse into events. For libyaml, replace each lone surrogate by the same number in another Unicode plane."""
    plane = _free_plane(content) if _SURROGATE.search(content) else None
    if plane is None:
        yield from yaml.parse(content, Loader=_Loader)
        return
    escape, first, last = f"\\U{plane:04x}", chr(plane << 16 | 0xD800), chr(plane << 16 | 0xDFFF)
    stand_in = re.compile(f"[{first}-{last}]|{re.escape(escape)}([dD][0-9a-fA-F]{{3}})")

    def restored(match: re.Match[str]) -> str:
        """Return the surrogate; or the original letters, if the backslash was no escape."""
        return f"\\u{match[1]}" if match[1] else chr(ord(match[0]) & 0xFFFF)

    for event in yaml.parse(_SURROGATE.sub(lambda match: escape.encode() + match[1], content), Loader=_Loader):
        if isinstance(event, yaml.ScalarEvent):
            event.value = stand_in.sub(restored, event.value)
        yield event


def _free_plane(content: bytes) -> int | None:
    """Return a plane whose characters for surrogate numbers do not occur in the content; None if there is none."""
    folded = content.lower()
    for plane in _PLANES:
        if f"\\u{plane:04x}d".encode() not in folded and chr(plane << 16 | 0xD800).encode()[:2] not in content:
            return plane
    return None
