"""Outline: read a YAML document, but keep the values of some keys only. The other values are checked and dropped.

Memory use depends on the kept values, not on the document: its events are read one by one. PyYAML's own constructor
checks each dropped scalar.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import GeneratorType
from typing import Any, NamedTuple

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, MappingStartEvent, ScalarEvent
from yaml.resolver import Resolver

from bentofs.store.errors import BadModelError
from bentofs.store.util.display import printable

_MAX_EVENTS = 3_000_000  # values and ends of collections; PyYAML's pure loader needs minutes and gigabytes for so many
_MAX_DEPTH = 1000  # nested collections; PyYAML's pure loader fails with fewer
_MAX_ALIASED = 1_000_000  # values that all aliases expand to
_MAX_ANCHORS = 100_000
_MAX_KEPT = 50_000  # kept values, of about a kilobyte each while they are constructed
_MAX_KEPT_BASE_60 = 10_000  # characters of a number; Python refuses to print the digits of a longer one
_COUNTED_TEXT = 16  # characters that count like one more value
_SHORT = 4096  # characters; a shorter scalar may be kept even if it is not needed
_MERGE = "<<"
_STR, _INT = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int"
_SPECIAL_KEYS = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
_COLLECTIONS = (None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "set", "omap", "pairs")))

_resolve: Any = Resolver.resolve


class HollowAliasError(Exception):
    """Raised when a needed value refers to a dropped one."""


class _Anchor(NamedTuple):
    """A node that has an anchor."""

    weight: int  # number of its values; 0 while it is incomplete
    kind: str  # "mapping", "list" or "scalar"
    is_kept: bool


class _Open:
    """A collection that has not ended yet."""

    __slots__ = ("anchor", "at_key", "before", "is_hollow", "is_mapping")

    def __init__(self, event: CollectionStartEvent, before: int, is_hollow: bool) -> None:
        self.is_mapping = self.at_key = isinstance(event, MappingStartEvent)
        self.anchor: str | None = event.anchor
        self.before = before  # values counted before it
        self.is_hollow = is_hollow  # True if its contents are dropped


class Outline:
    """Reads one document."""

    def __init__(self, keys: Collection[str] | None) -> None:
        """`keys`: the keys of the top mapping whose values are needed; None for all, if they are not too many."""
        self._keys = keys
        self._kept: list[yaml.Event] = []
        self._anchors: dict[str, _Anchor] = {}
        self._open: list[_Open] = []
        self._count = 0  # values; an alias counts as all values that it expands to
        self._aliased = 0  # the part of them that comes from aliases
        self._key: str | None = None  # the last key of the top mapping; None for a collection
        self._checker = _EventLoader(())

    def of(self, events: Iterable[yaml.Event]) -> object:
        """Build the values. Collections that are not needed become empty. Short strings stay.

        Raises:
            BadModelError: the document would expand too far, or uses application-specific tags.
            HollowAliasError: a needed value refers to a dropped one.
            Exception: any other error of PyYAML.
        """
        for number, event in enumerate(events):
            if number > _MAX_EVENTS:
                raise BadModelError(f"holds more than {_MAX_EVENTS:,} values")
            if isinstance(event, ScalarEvent):
                self._scalar(event)
            elif isinstance(event, CollectionStartEvent):
                self._start(event)
            elif isinstance(event, CollectionEndEvent):
                self._end(event)
            elif isinstance(event, AliasEvent):
                self._alias(event)
            else:
                self._keep(event)
        return _EventLoader(self._kept).get_single_data()

    def _scalar(self, event: ScalarEvent) -> None:
        weight = 1 + len(event.value) // _COUNTED_TEXT
        self._count += weight
        is_hollow = self._is_hollow(event.value)
        self._checker.check(event, is_kept=not is_hollow, is_key=bool(self._open) and self._open[-1].at_key)
        self._define(event.anchor, _Anchor(weight, "scalar", not is_hollow))
        if not self._is_inside_hollow():
            if is_hollow:
                event.anchor = None
                event.value = event.value if len(event.value) <= _SHORT else ""
            self._keep(event)
        self._end_node()

    def _start(self, event: CollectionStartEvent) -> None:
        is_inside = self._is_inside_hollow()
        is_hollow = self._is_hollow(None)
        if is_inside:
            self._refuse_as_key()
            if event.tag not in _COLLECTIONS:
                raise BadModelError(f"is not YAML: it uses the tag {printable(str(event.tag))[:100]!r}")
        opened = _Open(event, self._count, is_hollow)
        self._define(event.anchor, _Anchor(0, "mapping" if opened.is_mapping else "list", not is_hollow))
        self._open.append(opened)
        self._count += 1
        if len(self._open) > _MAX_DEPTH:
            raise BadModelError(f"is nested more than {_MAX_DEPTH} deep")
        if not is_inside:
            if is_hollow:
                event.anchor = None
            self._keep(event)

    def _end(self, event: CollectionEndEvent) -> None:
        ended = self._open.pop()
        if ended.anchor is not None:
            begun = self._anchors[ended.anchor]
            self._anchors[ended.anchor] = begun._replace(weight=self._count - ended.before)
        if not self._is_inside_hollow():
            self._keep(event)
        self._end_node()

    def _alias(self, event: AliasEvent) -> None:
        name = event.anchor or ""
        target = self._anchors.get(name)
        if target is None:
            raise BadModelError(f"is not YAML: there is no anchor {printable(name)[:100]!r}")
        if not target.weight:
            raise BadModelError("holds a value that contains itself")
        self._count += target.weight
        self._aliased += target.weight
        if self._aliased > _MAX_ALIASED:
            raise BadModelError(f"stands for more than {_MAX_ALIASED:,} values by its aliases")
        is_inside = self._is_inside_hollow()
        is_hollow = self._is_hollow(None)
        if is_inside:
            if target.kind != "scalar":
                self._refuse_as_key()
        elif target.is_kept:
            self._keep(event)
        elif not is_hollow:
            raise HollowAliasError
        else:
            for empty in _EMPTY[target.kind]:
                self._keep(empty)
        self._end_node()

    def _is_inside_hollow(self) -> bool:
        return bool(self._open) and self._open[-1].is_hollow

    def _is_hollow(self, text: str | None) -> bool:
        """True if the node that begins here is not needed. `text`: its text, if it is a scalar."""
        if not self._open:
            return False
        around = self._open[-1]
        if around.is_hollow:
            return True
        if len(self._open) > 1 or self._keys is None:
            return False
        if not around.is_mapping:
            return True
        if around.at_key:
            self._key = text
            return False
        return not (self._key is None or self._key == _MERGE or self._key in self._keys)

    def _end_node(self) -> None:
        if self._open:
            self._open[-1].at_key = self._open[-1].is_mapping and not self._open[-1].at_key

    def _refuse_as_key(self) -> None:
        if self._open[-1].at_key:
            raise BadModelError("is not YAML: a collection is no key of a mapping")

    def _define(self, name: str | None, anchor: _Anchor) -> None:
        if name is None:
            return
        if name in self._anchors:
            raise BadModelError(f"is not YAML: {printable(name)[:100]!r} is anchored twice")
        if len(self._anchors) >= _MAX_ANCHORS:
            raise BadModelError(f"anchors more than {_MAX_ANCHORS:,} values")
        self._anchors[name] = anchor

    def _keep(self, event: yaml.Event) -> None:
        if len(self._kept) >= _MAX_KEPT:
            raise BadModelError(f"holds more than {_MAX_KEPT:,} values in its labels, or where a text belongs")
        self._kept.append(event)


class _EventLoader(Composer, SafeConstructor, Resolver):
    """Builds plain values from events."""

    def __init__(self, events: Iterable[yaml.Event]) -> None:
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._events = iter(events)
        self._next: yaml.Event | None = None

    def check_event(self, *kinds: type[yaml.Event]) -> bool:
        """Do what the method of a PyYAML parser does."""
        return isinstance(self.peek_event(), kinds)

    def peek_event(self) -> yaml.Event | None:
        """Do what the method of a PyYAML parser does."""
        if self._next is None:
            self._next = next(self._events, None)
        return self._next

    def get_event(self) -> yaml.Event | None:
        """Do what the method of a PyYAML parser does."""
        event, self._next = self.peek_event(), None
        return event

    def check(self, event: ScalarEvent, *, is_kept: bool, is_key: bool) -> None:
        """Raise what constructing the value would raise, without the hours that some numbers take."""
        value, tag = event.value, event.tag
        if tag is None or tag == "!":
            if event.implicit[0] and value.isdigit() and len(value) < 1000:
                return
            tag = _resolve(self, yaml.ScalarNode, value, event.implicit)
        if tag == _STR or (is_key and tag in _SPECIAL_KEYS):
            return
        if tag == _INT and ":" in value and not value.lstrip("+-").startswith("0"):
            if is_kept and len(value) > _MAX_KEPT_BASE_60:
                raise BadModelError(f"holds a number of {len(value):,} characters in base 60")
            for digits in value.split(":"):
                int(digits.replace("_", ""))
            return
        constructor = self.yaml_constructors.get(tag) or self.yaml_constructors[None]
        start: Any = event.start_mark
        made = constructor(self, yaml.ScalarNode(tag, value, start))
        if isinstance(made, GeneratorType):  # a constructor for collections: it raises for a scalar
            for _ in made:
                pass


_EMPTY: dict[str, list[yaml.Event]] = {
    "scalar": [ScalarEvent(None, None, (False, True), "")],
    "mapping": [MappingStartEvent(None, None, True), yaml.MappingEndEvent()],
    "list": [yaml.SequenceStartEvent(None, None, True), yaml.SequenceEndEvent()],
}
