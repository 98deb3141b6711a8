"""The interface of publishing: what is published, how, and with which outcome. `local` and `remote` implement it."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bentofs.store.model.tag import Tag
from bentofs.store.staging.model import Staged
from bentofs.store.storage.base import Entry
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)


class Outcome(enum.Enum):
    """The outcome of publishing."""

    IMPORTED = "imported"  # the store had no model of this tag
    UNCHANGED = "unchanged"  # it had the same model
    REPLACED = "replaced"  # it had another model, which is gone now


class Verdict(NamedTuple):
    """The comparison of a staged model with the store's model of the same tag. It may be made before publishing."""

    entries: list[Entry]  # of the model in the store
    difference: str | None  # for a sentence; None if they are the same
    other_exec_bit: str | None = None  # if they are the same, the first file that is executable in one of them only


@dataclass(frozen=True)
class PublishRequest:
    """A staged model, and how to publish it."""

    staged: Staged  # complete and checked, in a directory below `Session.staged`; every file is fsynced
    overwrite: bool = False  # replace a model of this tag that has other content or other exec bits
    move_latest: bool = True  # False leaves an existing `latest` as it is
    verdict: Verdict | None = None  # the result of `Publisher.compare`; holds until the store's model changes


class Publisher(Protocol):
    """Publishes staged models to a store."""

    def compare(self, staged: Staged) -> Verdict | None:
        """Compare a staged model with the store's now, if that saves `publish` time. Return None if it does not, or if
        the store has no complete one.

        Raises:
            StoreUnreadableError, StoreUnwritableError: see `publish`.
        """

    def publish(self, request: PublishRequest) -> Outcome:
        """Make a staged model the version of its tag. On return, the version is there, durable and complete; the
        staged directory may be gone. After an error, no part of it is visible.

        Raises:
            ModelExistsError: the tag exists with other content, or is being saved just now.
            NoSpaceError: no room in the store.
            StoreUnwritableError: anything else was refused.
            StoreUnreadableError: the store's model cannot be read to compare, or the store cannot be reached.
        """


def note_exec_bit(tag: Tag, path: str | None) -> None:
    """Log a file that differs in its exec bit only; `path`: None if there is none."""
    if path is not None:
        shown = printable(path)
        log.info("%s is unchanged, except for the exec bit of %s: --overwrite takes it over", tag, shown)
