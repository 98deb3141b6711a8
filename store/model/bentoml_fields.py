"""Check the fields that BentoML requires in a `model.yaml`, by its ModelInfo (bentoml/_internal/models/model.py).

bentofs itself needs fewer fields. But one model that BentoML cannot read makes `bentoml models list` fail for the whole
store.
"""

from __future__ import annotations

import datetime
from contextlib import suppress
from typing import Any

from bentofs.store.errors import BadModelError
from bentofs.store.model import safe_yaml as untrusted_yaml
from bentofs.store.model.model import date_without_time, read_time
from bentofs.store.model.tag import Tag
from bentofs.store.util.display import printable

_MAX_METADATA = 2_000_000  # values checked; an alias counts as all values that it expands to
_CONTEXT = "{framework_name: '', framework_versions: {}, bentoml_version: '', python_version: ''}"
# The least valid value of each field, for the error message.
_REQUIRED = {
    "module": "''",
    "labels": "{}",
    "options": "{}",
    "metadata": "{}",
    "context": _CONTEXT,
    "api_version": "v1",
    "creation_time": "'2026-01-31T12:00:00+00:00'",
}
_MAPPINGS = ("labels", "options", "metadata", "context", "signatures")
_METADATA = (str, bytes, bool, int, float, datetime.datetime, datetime.date)


def refuse_what_bentoml_cannot_read(tag: Tag, content: bytes) -> None:
    """Check that BentoML can read a `model.yaml` that bentofs has read.

    In files beyond `untrusted_yaml.MAX_EXACT` bytes, the contents of `metadata` and `options` are not checked.

    Raises:
        BadModelError: BentoML cannot read it; the text names the field.
    """
    subject = f"the model.yaml of {tag}"
    is_exact = len(content) <= untrusted_yaml.MAX_EXACT
    try:
        if is_exact:
            read: Any = untrusted_yaml.load_exactly(content)
        else:
            read = untrusted_yaml.load(content, ("labels", "context", "signatures", "creation_time"))
    except BadModelError as error:
        raise BadModelError(f"{subject} {error}; mend it") from None
    for field, least in _REQUIRED.items():
        if field not in read:
            raise BadModelError(
                f"{subject} has no field {field}, and BentoML cannot read it without: add {field}: {least}"
            )
    for field in _MAPPINGS:
        value = read.get(field, {})
        if not isinstance(value, dict) and not (field == "metadata" and value == []):
            raise BadModelError(
                f"the field {field} in {subject} is not a mapping, so that BentoML cannot read it: write {field}: "
                f"{_REQUIRED.get(field, '{}')} if it is empty"
            )
    _check_context(subject, read["context"])
    _check_signatures(subject, read.get("signatures", {}))
    if is_exact and read["metadata"]:
        _check_metadata(subject, read["metadata"])
    _check_zone(subject, read["creation_time"])


def _check_zone(subject: str, value: Any) -> None:
    if isinstance(value, str):
        with suppress(ValueError):
            raise date_without_time(subject, datetime.date.fromisoformat(value))
        value = read_time(value)
    if value.tzinfo is None:
        raise BadModelError(
            f"the creation_time in {subject} names no time zone, and BentoML cannot compare it with other models': "
            f"write creation_time: '{value.isoformat()}+00:00' there if it is in UTC"
        )


def _check_context(subject: str, context: dict[Any, Any]) -> None:
    # If there is an old list of dependencies, BentoML fills in the versions.
    versions = {} if "pip_dependencies" in context else context.get("framework_versions")
    if "framework_name" not in context or not isinstance(versions, dict):
        raise BadModelError(
            f"the context in {subject} lacks framework_name or framework_versions, without which BentoML cannot read "
            f"it: write context: {_CONTEXT} there"
        )


def _check_signatures(subject: str, signatures: dict[Any, Any]) -> None:
    for method, signature in signatures.items():
        is_read = hasattr(signature, "__contains__")
        if isinstance(signature, dict) and "batch_dim" in signature:
            dims = signature["batch_dim"]
            is_read = isinstance(dims, list) and len(dims) == 2 and all(_is_integral(dim) for dim in dims)
        if not is_read:
            raise BadModelError(
                f"the signature of {_shown(method)} in {subject} cannot be read by BentoML: write a mapping, such "
                "as {batchable: true, batch_dim: [0, 0]}"
            )


def _is_integral(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _check_metadata(subject: str, metadata: dict[Any, Any]) -> None:
    waiting: list[Any] = [metadata]
    seen = 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MAX_METADATA:
            raise BadModelError(f"the metadata in {subject} stand for more than {_MAX_METADATA:,} values")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, (str, int, float)):
                    raise BadModelError(
                        f"the metadata in {subject} has the key {_shown(key)}, which BentoML cannot read, since it is "
                        "neither a text nor a number: put it in quotes"
                    )
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif not isinstance(value, _METADATA):
            raise BadModelError(
                f"the metadata in {subject} holds {_shown(value)}, which BentoML does not read there: leave it out, or "
                "put it in quotes"
            )


def _shown(value: object) -> str:
    return printable(str(value)[:100])
