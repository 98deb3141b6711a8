"""Ranges and conditions of requests for a file (RFC 9110, sections 13 and 14). Functions of headers only."""

from __future__ import annotations

import datetime
import email.utils
import itertools
import re
from collections.abc import Mapping
from typing import NamedTuple

_MOST_RANGES = 64  # of one request; with more, the whole file is sent
_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)
_ETAG = re.compile(r'(?:W/)?"[^"]*"')
_SECOND = 1_000_000_000


class Validators(NamedTuple):
    """The validators of a file: they tell one state of it from another (RFC 9110 section 8.8)."""

    etag: str | None  # strong, with its quotation marks
    mtime_ns: int

    @property
    def last_modified(self) -> str:
        """Return the time as HTTP writes it."""
        seconds = max(0, self.mtime_ns // _SECOND)
        return email.utils.format_datetime(datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc), usegmt=True)


class Span(NamedTuple):
    """A range of bytes."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """Return the value of Content-Range."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def precondition_status(headers: Mapping[str, str], validators: Validators, *, is_read: bool) -> int | None:
    """Return 412 or 304 if a condition of the request does not hold; None if all hold."""
    matching = headers.get("If-Match")
    if matching is not None:
        if not _lists(matching, validators.etag, weak=False):
            return 412
    elif (unmodified := _date(headers.get("If-Unmodified-Since"))) is not None and _modified(validators, unmodified):
        return 412
    unwanted = headers.get("If-None-Match")
    if unwanted is not None:
        if _lists(unwanted, validators.etag, weak=True):
            return 304 if is_read else 412
    elif is_read and (modified := _date(headers.get("If-Modified-Since"))) is not None:
        return None if _modified(validators, modified) else 304
    return None


def wanted_spans(headers: Mapping[str, str], validators: Validators, size: int) -> list[Span] | None:
    """Return the ranges to send: None for the whole file, an empty list if none of them lies in the file."""
    wanted = headers.get("Range")
    if wanted is None or not _range_holds(headers.get("If-Range"), validators):
        return None
    unit, equals, text = wanted.partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or len(parts) > _MOST_RANGES:
        return None
    spans = []
    for part in parts:
        match = _RANGE.fullmatch(part)
        if match is None or part == "-" or len(part) > 40:
            return None  # malformed: the whole file
        first, last = match[1], match[2]
        if not first:
            start, end = max(0, size - int(last)), size - 1
            is_there = int(last) > 0 and size > 0
        else:
            start, end = int(first), min(int(last) if last else size - 1, size - 1)
            if last and int(last) < int(first):
                return None
            is_there = start < size
        if is_there:
            spans.append(Span(start, end - start + 1))
    return _joined(spans)


def _joined(spans: list[Span]) -> list[Span]:
    """Return the ranges as they were asked for. Join them if they overlap: else few bytes could cost many."""
    in_order = sorted(spans)
    if all(one.start + one.length <= other.start for one, other in itertools.pairwise(in_order)):
        return spans
    joined = [in_order[0]]
    for span in in_order[1:]:
        last = joined[-1]
        if span.start > last.start + last.length:
            joined.append(span)
        else:
            joined[-1] = Span(last.start, max(last.length, span.start + span.length - last.start))
    return joined


def _range_holds(condition: str | None, validators: Validators) -> bool:
    """Return True if the client's part is of this state of the file."""
    if condition is None:
        return True
    condition = condition.strip()
    if condition.startswith(('"', "W/")):
        return condition == validators.etag
    date = _date(condition)
    return date is not None and date == max(0, validators.mtime_ns // _SECOND)


def _lists(text: str, etag: str | None, *, weak: bool) -> bool:
    """Return True if a list of entity tags has this one."""
    if text.strip() == "*":
        return True
    listed: list[str] = _ETAG.findall(text)
    return etag is not None and etag in [one.removeprefix("W/") if weak else one for one in listed]


def _date(text: str | None) -> int | None:
    """Return a date of a header in seconds since 1970; None if there is none, or if it is malformed."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp()) if text else None
    except (ValueError, TypeError, OverflowError):
        return None


def _modified(validators: Validators, since: int) -> bool:
    return max(0, validators.mtime_ns // _SECOND) > since
