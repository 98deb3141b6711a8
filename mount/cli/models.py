"""The commands that show models: `bentofs list` and `bentofs get`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import click

from bentofs.mount.cli.complete import complete_name, complete_tag
from bentofs.mount.cli.filters import Filters, filter_options
from bentofs.mount.cli.format_options import checked_formats, compression_for, compression_option, formats_option
from bentofs.mount.cli.opening import open_store
from bentofs.mount.cli.options import follow_links_option, store_options
from bentofs.mount.cli.output import json_option, print_document, size_text
from bentofs.mount.cli.tables import in_columns
from bentofs.mount.cli.yaml_values import as_json_values
from bentofs.mount.kernel.mount_table import our_mounts
from bentofs.store.archives.archives import Archives
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import BadModelError, BadTagError, StoreError, StoreUnreadableError
from bentofs.store.formats.write.registry import Format
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, Model, Summary
from bentofs.store.model.tag import Tag
from bentofs.store.storage.open import StoreSpec
from bentofs.store.util.display import printable


@click.command(name="list")
@click.argument("name", required=False, shell_complete=complete_name)
@store_options
@follow_links_option
@filter_options
@json_option
def list_command(name: str | None, store: StoreSpec, follow_links: bool, filters: Filters, as_json: bool) -> None:
    """List the models of a store. With NAME: its versions."""
    models = open_store(store, follow_links=follow_links)
    summaries = models.summaries() if name is None else map(Summary.of, _named(models, name))
    found: list[Summary] = []
    failure: StoreError | None = None
    try:
        found.extend(filters.matching(summaries))
    except StoreUnreadableError as error:  # some could not be read: show the others first
        failure = error
    if as_json:
        print_document([_described(model) for model in found])
    else:
        _print_table(found)
    if failure is not None:
        raise failure


def _print_table(models: Iterable[Summary]) -> None:
    rows = [("Tag", "Size", "Files", "Module", "Created")]
    for model in models:
        shown = printable(model.info.module)
        rows.append((str(model.tag), size_text(model.size), str(model.file_count), shown, _created(model)))
    click.echo("\n".join(in_columns(rows, right={1, 2})))


@click.command(name="get")
@click.argument("tag", shell_complete=complete_tag)
@store_options
@follow_links_option
@formats_option
@compression_option
@json_option
def get_command(
    tag: str, store: StoreSpec, follow_links: bool, formats: list[Format], compression: str | None, as_json: bool
) -> None:
    """Show one model: its model.yaml, its archives with their sizes, and its directory.

    Formats and compression must be those of the mount. A size that is not known yet is not measured.
    """
    chosen = compression_for(compression, store)
    checked_formats(formats, chosen)
    models = open_store(store, follow_links=follow_links)
    model = models.model(models.find(tag), max_age=0)
    text = models.storage.read_small(f"{model.tag.path}/{MODEL_YAML}", MAX_MODEL_YAML)
    is_latest = models.latest(model.tag.name) == model.tag.version
    with (
        closing(Index(store=store.location)) as index,
        closing(Archives(models.storage, index, chosen, formats=formats)) as archives,
    ):
        described = [_described_archive(archives, model, kind) for kind in formats]
    location = models.storage.location
    mounts = [f"{mount.path}/models/{model.tag.path}" for mount in our_mounts() if mount.source == location]
    fields = {
        **_described(Summary.of(model)),
        "latest": is_latest,
        "store": location,
        "path": f"{location}/{model.tag.path}",
        "mounted": mounts,
        "archives": described,
        "model_yaml": _parsed(text),
    }
    if as_json:
        print_document(fields)
    else:
        click.echo("\n".join(_shown(fields, model, text)))


def _named(models: ModelStore, name: str) -> Iterable[Model]:
    """Return the models that NAME stands for: all versions of a name, or one model."""
    if ":" in name:
        return [models.model(models.find(name))]
    try:
        tag = Tag.parse(f"{name.lower()}:latest")
    except BadTagError:
        raise BadTagError(f"{printable(name)!r} is not the name of a model: `bentofs list` shows the names") from None
    models.version_count(tag.name)  # raises NotFoundError
    return models.models_of(tag.name)


def _described(model: Summary) -> dict[str, Any]:
    return {
        "tag": str(model.tag),
        "size": model.size,
        "files": model.file_count,
        "module": model.info.module,
        "creation_time": model.info.creation_time.isoformat(),
        "labels": model.info.labels,
    }


def _described_archive(archives: Archives, model: Model, kind: Format) -> dict[str, Any]:
    return {
        "format": kind.name,
        "name": model.tag.stem + kind.suffix,
        "size": archives.length(model, kind) if archives.is_length_known(model, kind) else None,
        "sha256": archives.known_sha256(model, kind),
    }


def _parsed(text: bytes) -> object:
    """Return a model.yaml as plain values of JSON. None if it holds too many values."""
    from bentofs.store.model import safe_yaml  # loaded here: PyYAML is slow to load, and `list` rarely needs it

    try:
        return as_json_values(safe_yaml.load_whole(text))
    except (BadModelError, RecursionError):
        return None


def _shown(fields: dict[str, Any], model: Model, text: bytes) -> Iterator[str]:
    """Yield the lines for people."""
    rows = [
        ("Tag", f"{fields['tag']} (latest)" if fields["latest"] else fields["tag"]),
        ("Module", printable(model.info.module)),
        ("Created", f"{_created(model)} UTC"),
        ("Size", f"{size_text(model.size)} in {model.file_count} files"),
        *(("Label", printable(f"{key}={value}")) for key, value in model.info.labels.items()),
        ("Path", printable(fields["path"])),
        *(("Mounted", printable(path)) for path in fields["mounted"]),
    ]
    yield from in_columns(rows)
    yield ""
    table = [("Archive", "Size", "Bytes", "SHA-256")]
    for archive in fields["archives"]:
        size = archive["size"]
        shown = ("not measured yet", "") if size is None else (size_text(size), str(size))
        table.append((archive["name"], *shown, archive["sha256"] or "not computed yet"))
    yield from in_columns(table, right={1, 2})
    yield ""
    yield f"{MODEL_YAML}:"
    for line in text.decode(errors="backslashreplace").splitlines():
        yield f"  {printable(line)}".rstrip()


def _created(model: Model | Summary) -> str:
    return f"{model.info.creation_time:%Y-%m-%d %H:%M:%S}"
