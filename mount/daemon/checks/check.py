"""Check: one thing that a mount needs, its state, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from bentofs.mount.kernel.engine import EngineName
from bentofs.store.storage.open import StoreSpec


class CheckOutcome(Enum):
    """The outcome of a check."""

    OK = "ok"
    WARNING = "warning"  # a mount works, but not all of it
    FAILED = "failed"  # no mount


class Check(NamedTuple):
    """The result of one check."""

    name: str
    outcome: CheckOutcome
    detail: str  # what was found
    advice: str = ""  # what to do; empty if there is nothing
    status: int = 1  # the exit status of a mount that fails by it

    def sentence(self) -> str:
        """Return what was found, and what to do."""
        return f"{self.detail}: {self.advice}" if self.advice else self.detail


@dataclass(frozen=True)
class Plan:
    """The mount that is to be made."""

    store: StoreSpec
    engine: EngineName
    allow_other: bool = False
    staging: str | None = None
    read_only: bool = False
    logs_to_state: bool = True  # the log goes to the user's state directory
    opens_store: bool = False  # reach the server of a store that is a URL; a mount does that itself, later

    @property
    def is_root(self) -> bool:
        """True if root will mount."""
        return os.geteuid() == 0

    @property
    def has_incoming(self) -> bool:
        """True if the mount will have `incoming/`."""
        return not self.read_only and self.store.may_be_written()


def in_container() -> bool:
    """Tell whether this process seems to run in a container."""
    signs = ("/.dockerenv", "/run/.containerenv", "/run/secrets/kubernetes.io")
    return any(os.path.exists(sign) for sign in signs) or "container" in os.environ
