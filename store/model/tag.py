"""Tag: the name and version of a model, by BentoML's rules (bentoml/_internal/tag.py)."""

from __future__ import annotations

import re
from typing import NamedTuple

from bentofs.store.errors import BadTagError

MAX_LENGTH = 63  # characters, for the name and for the version
# BentoML's pattern ends with `$`, which lets a trailing newline through; `\Z` does not.
_PART = re.compile(r"[a-z0-9](?:[-._a-z0-9]*[a-z0-9])?\Z")


def is_tag_part(text: str) -> bool:
    """True if `text` may be a model's name or version."""
    return len(text) <= MAX_LENGTH and _PART.match(text) is not None


class Tag(NamedTuple):
    """`name:version` of one model; sorts by name, then version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def path(self) -> str:
        """Return the model's path, relative to the store's root."""
        return f"{self.name}/{self.version}"

    @property
    def stem(self) -> str:
        """Return the archive's file name without its suffix, by BentoML's rule for exports. Not unique: `a-b:c`,
        `a:b-c`."""
        return f"{self.name}-{self.version}"

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Parse a tag written as `name:version`.

        Raises:
            BadTagError: there is no version, or a part breaks BentoML's rules.
        """
        name, colon, version = text.partition(":")
        if not colon:
            raise BadTagError(f"'{text}' names no version: write NAME:VERSION")
        for part in (name, version):
            if not is_tag_part(part):
                raise BadTagError(
                    f"'{text}' is not a tag: names and versions are at most {MAX_LENGTH} characters of "
                    "a-z, 0-9, '-', '_' and '.', and begin and end with a letter or digit"
                )
        return cls(name, version)
