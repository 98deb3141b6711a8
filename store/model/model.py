"""Model: one version in a store, with its `model.yaml`, its files, and their generation.

BentoML's ModelInfo (bentoml/_internal/models/model.py) writes `model.yaml`. Since 1.0, `creation_time` is a quoted ISO
string. Before, it was a YAML timestamp, which may be naive.
"""

from __future__ import annotations

import datetime
import hashlib
from typing import NamedTuple

from bentofs.store.errors import BadModelError, NotAModelError
from bentofs.store.model.tag import MAX_LENGTH, Tag, is_tag_part
from bentofs.store.storage.entries import FIRST_PATH, Entries
from bentofs.store.util.display import printable

MODEL_YAML = FIRST_PATH
MAX_MODEL_YAML = 16 << 20  # bytes
_MODEL = 3000  # bytes of memory for a model without its entries
_KEYS = ("name", "version", "module", "labels", "creation_time")  # the fields that bentofs reads


class ModelInfo(NamedTuple):
    """The fields of a `model.yaml` that bentofs needs."""

    tag: Tag
    module: str
    creation_time: datetime.datetime  # aware, UTC
    labels: dict[str, str]

    def __hash__(self) -> int:  # labels are a dict
        return hash((self.tag, self.creation_time))

    @classmethod
    def parse(cls, tag: Tag, content: bytes) -> ModelInfo:
        """Parse the `model.yaml` in the directory of `tag`.

        Raises:
            BadModelError: it is not YAML, not a model's, or belongs to another model.
        """
        subject = f"the model.yaml of {tag}"
        fields = _mapping(subject, content)
        name, version = _tag_parts(subject, fields)
        if (name, version) != tag:
            raise BadModelError(f"{subject} is of another model, {printable(f'{name:.100}:{version:.100}')}")
        return cls._of(tag, subject, fields)

    @classmethod
    def learn(cls, content: bytes) -> ModelInfo:
        """Parse a `model.yaml` that is in no store yet, and take the tag from it.

        Raises:
            NotAModelError: its name and version are not a valid tag.
            BadModelError: it is not YAML, or not a model's.
        """
        fields = _mapping("the model.yaml", content)
        name, version = _tag_parts("the model.yaml", fields)
        if not is_tag_part(name) or not is_tag_part(version):
            raise NotAModelError(
                f"the model.yaml names its model {printable(f'{name:.100}:{version:.100}')!r}, which is not a tag: "
                f"write names and versions of at most {MAX_LENGTH} characters of a-z, 0-9, '-', '_' and '.', which "
                "begin and end with a letter or digit"
            )
        tag = Tag(name, version)
        return cls._of(tag, f"the model.yaml of {tag}", fields)

    @classmethod
    def _of(cls, tag: Tag, subject: str, fields: dict[object, object]) -> ModelInfo:
        labels = fields.get("labels") or {}
        if not isinstance(labels, dict):
            raise BadModelError(f"the labels in {subject} are not a mapping of texts")
        try:
            texts = {str(key): str(value) for key, value in labels.items()}
            module = str(fields.get("module", ""))
        except (ValueError, RecursionError):  # an integer of thousands of digits; lists within lists
            raise BadModelError(f"{subject} holds a label or a module that cannot be written out") from None
        return cls(tag, module, _creation_time(subject, fields.get("creation_time")), texts)


def _mapping(subject: str, content: bytes) -> dict[object, object]:
    from bentofs.store.model import safe_yaml  # loaded here: PyYAML is slow to load, and known models need none

    try:
        fields = safe_yaml.load(content, _KEYS)
    except BadModelError as error:
        raise BadModelError(f"{subject} {error}; mend it") from None
    if not isinstance(fields, dict):
        raise BadModelError(f"{subject} is not a mapping")
    return fields


def _tag_parts(subject: str, fields: dict[object, object]) -> tuple[str, str]:
    """Return the name and the version, "" for a missing one.

    Raises:
        BadModelError: YAML reads one as another type than a string: `version: 1.10` is the number 1.1.
    """
    parts = []
    for field, example in (("name", "'iris'"), ("version", "'1.10'")):
        value = fields.get(field, "")
        if not isinstance(value, str):
            raise BadModelError(
                f"the {field} in {subject} reads as {_kind(value)}, not as a text: put it in quotes there, for example "
                f"{field}: {example}"
            )
        parts.append(value)
    return parts[0], parts[1]


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list, set)):
        return "a collection"
    try:
        shown = printable(str(value)[:100])
    except ValueError:  # an integer of thousands of digits
        shown = "of thousands of digits"
    return f"the {_KINDS.get(type(value), 'value')} {shown}"


_KINDS: dict[type, str] = {int: "number", float: "number", datetime.date: "date", datetime.datetime: "time"}


def _creation_time(subject: str, value: object) -> datetime.datetime:
    """Return the time in UTC. A time without a zone counts as UTC."""
    if isinstance(value, str):
        shown = printable(value[:100])
        try:
            value = read_time(value)
        except ValueError:
            raise BadModelError(f"the creation_time in {subject} is not a time: {shown}") from None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        raise date_without_time(subject, value)
    if value is None:
        raise BadModelError(f"{subject} has no creation_time: add one there, as '2026-01-31T12:00:00+00:00'")
    if not isinstance(value, datetime.datetime):
        raise BadModelError(f"the creation_time in {subject} is not a time, but {_kind(value)}")
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.timezone.utc)
    try:
        return value.astimezone(datetime.timezone.utc)
    except OverflowError:  # in year 1 or 9999, the offset leads out of range
        return value.replace(tzinfo=datetime.timezone.utc)


def read_time(text: str) -> datetime.datetime:
    """Parse a `creation_time` the way BentoML does. Raises ValueError."""
    # Python 3.10 does not know the Z.
    return datetime.datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))


def date_without_time(subject: str, date: datetime.date) -> BadModelError:
    """Return the error for a `creation_time` that is a date."""
    return BadModelError(
        f"the creation_time in {subject} is a date, {date}, and no time: write creation_time: "
        f"'{date}T00:00:00+00:00' there"
    )


class Summary(NamedTuple):
    """One model as a list shows it."""

    info: ModelInfo
    size: int  # bytes of all files
    file_count: int

    @classmethod
    def of(cls, model: Model) -> Summary:
        """Return the summary of a model."""
        return cls(model.info, model.size, model.file_count)

    @property
    def tag(self) -> Tag:
        return self.info.tag


class Model:
    """One generation of one version: exactly these files with these identities.

    `generation` is equal for equal contents, and only for those. It is valid only within this process. While the
    `ModelStore` caches a model, a look that finds the same content returns the same object.
    """

    __slots__ = (
        "__weakref__",
        "_fingerprint",
        "entries",
        "generation",
        "info",
        "look",
        "mtime",
        "newest_ctime_ns",
        "size",
    )

    def __init__(self, info: ModelInfo, entries: Entries, newest_ctime_ns: int, look: int = 0) -> None:
        """`look`: start time of the last look that found this content (monotonic, ns)."""
        self.look = look
        self.info = info
        self.entries = entries
        self.newest_ctime_ns = newest_ctime_ns
        self.size = entries.size  # bytes of all files
        # `creation_time` in whole seconds since 1970, at least 0: the mtime of all its archives and members.
        self.mtime = max(0, int(info.creation_time.timestamp()))
        self._fingerprint = ""  # until it is asked for
        self.generation: tuple[int, int, int] = (hash((info, entries)), len(entries), self.size)

    @property
    def tag(self) -> Tag:
        return self.info.tag

    @property
    def file_count(self) -> int:
        return len(self.entries) - self.entries.folder_count

    @property
    def weight(self) -> int:
        """Return the memory use in bytes."""
        return _MODEL + self.entries.weight

    def fingerprint(self) -> str:
        """Return a digest of this generation that is stable over restarts, as a key for data on disk."""
        self._fingerprint = self._fingerprint or self._digest()
        return self._fingerprint

    def _digest(self) -> str:
        digest = hashlib.blake2b(repr((self.tag, self.mtime)).encode(), digest_size=20)
        for part in self.entries.content():
            digest.update(part)
        return digest.hexdigest()
