"""The options of `bentofs list` that select models."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import click

from bentofs.store.model.model import Summary, read_time

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_PREFIX = "bentoml."  # of the modules in BentoML


class _Since(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A point in time: a date, a date and time, or an age."""

    name = "time"

    def convert(
        self, value: str | datetime.datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime.datetime:
        if isinstance(value, datetime.datetime):
            return value
        try:
            age = re.fullmatch(r"(\d{1,9})([smhdw])", value)
            if age is not None:
                seconds = int(age[1]) * _SECONDS[age[2]]
                return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)
            moment = read_time(value)
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.timezone.utc)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time: write 2026-01-31, '2026-01-31 12:00:00', or an age as 7d or 12h", param, ctx
            )


class Filters(NamedTuple):
    """The properties that a model must have."""

    labels: tuple[tuple[str, str | None], ...] = ()  # None for any value
    module: str | None = None
    newer: datetime.datetime | None = None

    def matching(self, models: Iterable[Summary]) -> Iterator[Summary]:
        """Yield the models that have them all."""
        return filter(self._matches, models)

    def _matches(self, model: Summary) -> bool:
        info = model.info
        if self.newer is not None and info.creation_time <= self.newer:
            return False
        if self.module is not None and self.module not in (info.module, info.module.removeprefix(_PREFIX)):
            return False
        return all(key in info.labels if value is None else info.labels.get(key) == value for key, value in self.labels)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command. The command gets them as one argument, `filters`."""

    @click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="Only models with this label. Several: only models that have them all.",
    )
    @click.option("--module", metavar="MODULE", help="Only models of this module, as bentoml.sklearn or sklearn.")
    @click.option(
        "--newer",
        type=_Since(),
        metavar="TIME",
        help="Only models created after this time: 2026-01-31, '2026-01-31 12:00:00' (UTC), or an age as 7d or 12h.",
    )
    @functools.wraps(command)
    def wrapped(
        *arguments: Any, labels: tuple[str, ...], module: str | None, newer: datetime.datetime | None, **others: Any
    ) -> Any:
        parts = [label.partition("=") for label in labels]
        wanted = tuple((key, value if equals else None) for key, equals, value in parts)
        return command(*arguments, filters=Filters(wanted, module, newer), **others)

    return wrapped
