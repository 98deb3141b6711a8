"""Overview: what the list of models shows, searches and filters.

One look finds the tag and the fields of each model. It reads each `model.yaml` once, and again if it has changed. Sizes
are found for the models of one page only, since that takes a look at all files of a model.

Threading: any thread. One thread looks; others that need the result wait for it.
"""

from __future__ import annotations

import datetime
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import NotFoundError, StoreError
from bentofs.store.model.model import ModelInfo
from bentofs.store.model.tag import Tag

log = logging.getLogger(__name__)

PER_PAGE = 50
_FRESH_SECONDS = 0.8  # for which a look is believed,
_SHARE = 5  # and so many times as long as it took
_QUICK_SECONDS = 0.25  # a look that takes longer is made behind the visitor's back,
_OLD_SECONDS = 60.0  # unless the last one is older than this
_FACETS = 16  # labels that are offered as filters
_MOST_TERMS, _LONGEST = 12, 200  # of a search: words and labels; characters


class Card(NamedTuple):
    """One model, as the list knows it."""

    tag: Tag
    created: datetime.datetime
    module: str
    labels: dict[str, str]
    text: str  # in which a search looks
    info: ModelInfo  # of which it was made

    @property
    def place(self) -> tuple[str, float, str]:
        """Return the key by which the list is sorted: by name, the newest of a name first."""
        return (self.tag.name, -self.created.timestamp(), self.tag.version)

    @property
    def framework(self) -> str:
        """Return the module without BentoML's own prefix."""
        return self.module.removeprefix("bentoml.")


class Search(NamedTuple):
    """The search of a visitor."""

    words: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    newest_first: bool = False
    page: int = 1

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> Search:
        """Return the search of a URL's query."""
        words, page, newest = "", 1, False
        labels: list[tuple[str, str]] = []
        for name, value in pairs:
            if name == "q":
                words = value[:_LONGEST].strip()
            elif name == "label" and value and len(labels) < _MOST_TERMS:
                key, _, text = value.partition("=")
                labels.append((key, text))
            elif name == "page" and value.isascii() and value.isdigit() and len(value) < 8:
                page = max(1, int(value))
            elif name == "sort":
                newest = value == "newest"
        return cls(words, tuple(dict.fromkeys(labels)), newest, page)

    def pairs(self, **changed: object) -> list[tuple[str, object]]:
        """Return the search as a query, with changes. A change leads to the first page."""
        other = self._replace(**({"page": 1} | changed))  # type: ignore[arg-type]
        labels = [("label", f"{key}={value}") for key, value in other.labels]
        sort = "newest" if other.newest_first else ""
        return [("q", other.words), *labels, ("sort", sort), ("page", other.page if other.page > 1 else "")]

    def with_label(self, key: str, value: str) -> list[tuple[str, object]]:
        """Return the query that also asks for a label."""
        return self.pairs(labels=(*(pair for pair in self.labels if pair != (key, value)), (key, value)))

    def without_label(self, key: str, value: str) -> list[tuple[str, object]]:
        """Return the query that does not ask for a label."""
        return self.pairs(labels=tuple(pair for pair in self.labels if pair != (key, value)))

    def matches(self, card: Card) -> bool:
        """Tell whether a model is one that the visitor looks for."""
        return all(card.labels.get(key) == value for key, value in self.labels) and all(
            word in card.text for word in self.words.lower().split()[:_MOST_TERMS]
        )


class Row(NamedTuple):
    """One model of a page of the list."""

    card: Card
    size: int | None  # None if it cannot be found out now
    is_latest: bool


class Found(NamedTuple):
    """A page of what was found."""

    search: Search
    rows: list[Row]
    total: int  # models that match
    of: int  # models in all
    pages: int
    facets: list[tuple[tuple[str, str], int]]  # labels of the matching models, and of how many


class Overview:
    """The models of one store."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._turn = threading.Lock()  # held while one thread looks
        self._cards: list[Card] | None = None
        self._looked = self._until = -math.inf  # monotonic times of the last look, and until when it is believed
        self._took = 0.0  # seconds

    def expire(self) -> None:
        """Have the next visitor see what is there now."""
        self._looked = self._until = -math.inf

    def find(self, search: Search) -> Found:
        """Return a page of the models that a visitor looks for.

        Raises:
            StoreError: the store cannot be read now.
        """
        cards = self.cards()
        found = [card for card in cards if search.matches(card)] if search.words or search.labels else cards
        if search.newest_first:
            found = sorted(found, key=lambda card: card.created, reverse=True)
        pages = max(1, math.ceil(len(found) / PER_PAGE))
        search = search._replace(page=min(search.page, pages))
        begin = (search.page - 1) * PER_PAGE
        return Found(
            search,
            self.rows(found[begin : begin + PER_PAGE]),
            len(found),
            len(cards),
            pages,
            [item for item in _facets(found) if item[0] not in search.labels],
        )

    def rows(self, cards: Sequence[Card]) -> list[Row]:
        """Return models with what takes a look at each."""
        latest: dict[str, str | None] = {}
        rows = []
        for card in cards:
            size = None
            try:
                if card.tag.name not in latest:
                    latest[card.tag.name] = self._store.latest(card.tag.name)
                size = self._store.model(card.tag).size
            except NotFoundError:
                continue
            except StoreError:  # the log names it
                pass
            rows.append(Row(card, size, latest.get(card.tag.name) == card.tag.version))
        return rows

    def cards(self) -> list[Card]:
        """Return all models, sorted by name, the newest of a name first. In a large store, it may be what was there a
        moment ago.

        Raises:
            StoreError: the store cannot be read now.
        """
        now = time.monotonic()
        if self._cards is not None and now < self._until:
            return self._cards
        if self._cards is not None and self._took > _QUICK_SECONDS and now - self._looked < _OLD_SECONDS:
            self._begin_look_behind()
            return self._cards
        with self._turn:
            if self._cards is None or time.monotonic() >= self._until:
                self._look()
            return self._cards or []

    def _begin_look_behind(self) -> None:
        """Start a look, unless one is under way."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._look_behind, name="overview", daemon=True).start()
        except BaseException:
            self._turn.release()
            raise

    def _look_behind(self) -> None:
        try:
            self._look()
        except StoreError as error:
            log.info("the list of models is not renewed: %s", error)
        except Exception:
            log.exception("the list of models is not renewed")
        finally:
            self._turn.release()

    def _look(self) -> None:
        begun = time.monotonic()
        known = {card.tag: card for card in self._cards or ()}
        cards = []
        for info in self._store.infos():
            card = known.get(info.tag)
            cards.append(card if card is not None and card.info is info else card_of(info))
        cards.sort(key=lambda card: card.place)
        now = time.monotonic()
        self._cards, self._took = cards, now - begun
        self._looked, self._until = now, now + max(_FRESH_SECONDS, _SHARE * self._took)


def card_of(info: ModelInfo) -> Card:
    """Return a model for the list."""
    words = [str(info.tag), info.module, *(f"{key}={value}" for key, value in info.labels.items())]
    return Card(info.tag, info.creation_time, info.module, info.labels, "\n".join(words).lower(), info)


def _facets(cards: Sequence[Card]) -> list[tuple[tuple[str, str], int]]:
    counts = Counter(pair for card in cards for pair in card.labels.items())
    return sorted(counts.most_common(_FACETS), key=lambda item: (-item[1], item[0]))
