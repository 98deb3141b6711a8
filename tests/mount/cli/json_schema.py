"""The schema of all JSON output, and its tables for people."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from tests.harness import ROOT

SCHEMA = json.loads((ROOT / "mount/cli/schema.json").read_text())
DOCUMENTED = ROOT / "mount/JSON.md"


def check(name: str, value: object) -> None:
    """Assert that a value is what a command's definition says."""
    schema = {**SCHEMA, "$ref": f"#/$defs/{name}"}
    schema.pop("anyOf")
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(value)


def table(name: str) -> str:
    """Return the table of a definition, as it stands in the document."""
    definition = SCHEMA["$defs"][name]
    rows = "\n".join(_rows(definition.get("items", definition)))
    return f"| field | type | |\n|---|---|---|\n{rows}\n"


def _rows(definition: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, field in definition["properties"].items():
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        values = f" One of: {', '.join(field['enum'])}." if "enum" in field else ""
        yield f"| `{before}{name}` | {' or '.join(kinds)} | {field['description']}{values} |"
        for items, mark in ((field.get("items"), "[]"), (field.get("additionalProperties"), ".KEY"), (field, "")):
            if isinstance(items, dict) and "properties" in items:
                yield from _rows(items, f"{before}{name}{mark}.")


def write_tables(path: Path = DOCUMENTED) -> None:
    """Bring the document's tables up to date."""
    text = path.read_text()
    for name in SCHEMA["$defs"]:
        begin = text.index(f"## {name}\n")
        first = text.index("| field |", begin)
        last = text.index("\n\n", first) + 1 if "\n\n" in text[first:] else len(text)
        text = text[:first] + table(name) + text[last:]
    path.write_text(text)


if __name__ == "__main__":
    write_tables()
