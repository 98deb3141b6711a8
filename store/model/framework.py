"""The framework of a model: the `context` of its `model.yaml`, which BentoML writes when it saves the model."""

from __future__ import annotations

from typing import NamedTuple

from bentofs.store.errors import BadModelError
from bentofs.store.model import safe_yaml

_MAX_TEXT = 200  # characters; a longer name or version is no name or version
_MAX_PACKAGES = 20


class Framework(NamedTuple):
    """The programs that saved a model. An empty text stands for an unknown one."""

    name: str = ""
    versions: tuple[tuple[str, str], ...] = ()  # packages of the framework, each with its version
    bentoml: str = ""
    python: str = ""

    @classmethod
    def of(cls, model_yaml: bytes) -> Framework:
        """Return the framework that a `model.yaml` names. Never raise: a model without a framework is a model, too."""
        try:
            fields = safe_yaml.load(model_yaml, ("context",))
        except BadModelError:
            return cls()
        context = fields.get("context") if isinstance(fields, dict) else None
        if not isinstance(context, dict):
            return cls()
        versions = context.get("framework_versions")
        found = [(_text(name), _text(version)) for name, version in _items(versions)]
        return cls(
            _text(context.get("framework_name")),
            tuple(pair for pair in found if all(pair))[:_MAX_PACKAGES],
            _text(context.get("bentoml_version")),
            _text(context.get("python_version")),
        )


def _items(mapping: object) -> list[tuple[object, object]]:
    return list(mapping.items()) if isinstance(mapping, dict) else []


def _text(value: object) -> str:
    """Return a name or a version as text; "" for all else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    try:
        text = str(value)
    except ValueError:  # an integer of thousands of digits
        return ""
    return text if len(text) <= _MAX_TEXT else ""
