"""Transfers: `export_model` and `import_model`, which take what BentoML's take and mean the same.

See `store.location` for targets and sources, `store.exporting` and `store.fetching` for what is done.

Threading: functions without state; everything that they open they close.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

from store.archives import Archives
from store.catalog import ModelStore
from store.compression import Compression
from store.digests import Digests
from store.endpoints.special import refuse_closed
from store.exporting import Exporter
from store.fetching import Fetcher
from store.importing import Importer
from store.index import Index
from store.location import Location
from store.measure import Measurements
from store.receipts import Receipts
from store.remote_publish import check_writable, publisher_for
from store.servers.stops import Stops
from store.staged_model import Limits
from store.staging import staging_area
from store.storage.place import Place
from store.storage.remote import RemoteStorage
from store.tag import Tag
from store.writing import make_folders

_CLOSE_SECONDS = 5.0  # for imports that are given up


def export_model(
    tag: Tag | str,
    path: str,
    output_format: str | None = None,
    *,
    subpath: str | None = None,
    protocol: str | None = None,
    user: str | None = None,
    passwd: str | None = None,
    params: Mapping[str, str] | None = None,
    store: str | Place | None = None,
    sha256: bool = False,
) -> str:
    """Export a model to a path or URL: whole or not at all, and without a file on this machine on the way.

    `tag`: also `name` or `name:latest`, and BentoML's own. `path`: a file, or a folder, in which the file is called
    `<name>-<version>.<extension>`. `output_format`: one of `store.exporting.known_formats`, None for what the extension
    says. `store`: a folder or a URL, None for BentoML's; a `Place` says how to get there. `sha256`: write
    `<file>.sha256` beside it.

    Returns:
        The URL that was written, without credentials; for this machine, the absolute path.

    Raises:
        StoreError: why it was not exported; a BadLocationError is a ValueError, too.
    """
    target = Location.parse(path, protocol=protocol, user=user, passwd=passwd, params=params, subpath=subpath)
    if target.is_local:
        refuse_closed(target.path)  # before anything of the store is opened, and gets its number
    with opened_exporter(store) as (models, exporter):
        return exporter.run(exporter.plan(models.find(str(tag)), target, output_format), _ignore, sha256=sha256).url


def import_model(
    path: str,
    input_format: str | None = None,
    *,
    protocol: str | None = None,
    user: str | None = None,
    passwd: str | None = None,
    params: Mapping[str, str] | None = None,
    subpath: str | None = None,
    store: str | Place | None = None,
    overwrite: bool = False,
) -> Tag:
    """Import a model from a path or URL. Its bytes tell what it is; `input_format` refuses what is something else.

    `store`: as above; a folder that is not there is made. `overwrite`: replace a model of the same tag that has other
    content.

    Returns:
        The model's tag; the model is in the store, durable.

    Raises:
        StoreError: why it was not imported; a BadLocationError is a ValueError, too.
    """
    source = Location.parse(path, protocol=protocol, user=user, passwd=passwd, params=params, subpath=subpath)
    with opened_fetcher(store, overwrite=overwrite) as fetcher:
        return fetcher.fetch(source, _ignore, input_format).tag


@contextmanager
def opened_exporter(
    store: str | Place | None, compression: Compression | None = None
) -> Iterator[tuple[ModelStore, Exporter]]:
    """What it takes to export from a store. Its archives are those that a mount with the same compression shows; None
    for what a mount does if nobody chooses.

    Raises:
        StoreError: there is none, or no getting to it.
    """
    place = _place(store)
    storage = place.open()
    index = Index()
    archives = Archives(storage, index, compression or Compression.default(is_remote=place.is_remote))
    try:
        models = ModelStore(storage)
        with closing(Exporter(models, archives)) as exporter:
            yield models, exporter
    finally:
        archives.close()
        index.close()


@contextmanager
def opened_fetcher(
    store: str | Place | None,
    *,
    overwrite: bool = False,
    staging: str | None = None,
    limits: Limits | None = None,
    stops: Stops = (),
) -> Iterator[Fetcher]:
    """What it takes to import into a store, whose folder is made if it is not there, as BentoML makes its own. Once one
    of `stops` is set, what is under way ends soon.

    Raises:
        StoreError: there is no such store, no getting to it, or no writing to it.
        StagingError: there is no place to make models ready in.
    """
    place = _place(store)
    if not place.is_remote:
        make_folders(place.location)
    storage = place.open()
    if isinstance(storage, RemoteStorage):
        check_writable(storage)
    limits = limits or Limits()
    with ExitStack() as stack:
        area = staging_area(place.location, staging, is_remote=place.is_remote)
        session = area.open_session()
        stack.callback(session.close)
        index = Index()
        stack.callback(index.close)
        digests = Digests()
        stack.callback(digests.close)
        receipts = Receipts(area.receipts)
        stack.callback(receipts.close)
        importer = Importer(
            ModelStore(storage),
            session,
            Measurements(index),
            digests,
            limits=limits,
            overwrite=overwrite,
            publisher=publisher_for(storage, session, stops),
        )
        stack.callback(importer.close, _CLOSE_SECONDS)
        with closing(Fetcher(importer, session, receipts, limits.members, stops)) as fetcher:
            yield fetcher


def _place(store: str | Place | None) -> Place:
    return store if isinstance(store, Place) else Place.named(store)


def _ignore(_count: int) -> None:
    """Nobody wants to know of progress."""
