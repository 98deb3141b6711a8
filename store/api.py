"""The public Python API of `import bentofs`: `export_model`, `import_model` and `Store`.

The functions take the same arguments as `bentoml.models.export_model` and `import_model`, with the same meaning.

Threading: the functions keep no state. Any thread may use a `Store` until it is closed. One thread at a time may use a
file that it opened.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from bentofs.store.archives.compression import Compression
from bentofs.store.formats.piece_file import PieceFile
from bentofs.store.formats.write.registry import format_named
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.verify import VerifyReport, verify_model
from bentofs.store.location import Location
from bentofs.store.model.model import Summary
from bentofs.store.model.tag import Tag
from bentofs.store.storage.open import StoreSpec
from bentofs.store.transfer.endpoints.base import no_progress
from bentofs.store.transfer.endpoints.special import refuse_closed
from bentofs.store.wiring.library import opened_library
from bentofs.store.wiring.transfers import opened_exporter, opened_fetcher

_BUFFER = 1 << 20  # bytes that an open archive reads at a time


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
    store: str | StoreSpec | None = None,
    sha256: bool = False,
) -> str:
    """Export a model to a path or URL, atomically and without a temporary file on this machine.

    Args:
        tag: `name:version`, `name:latest` or `name`, or BentoML's own `Tag`.
        path: a file, or a directory for a file named `<name>-<version>.<extension>`.
        output_format: `bentomodel`, `tar`, `tar.gz` (or `gz`), `zip`, `tar.xz`, `tar.bz2` or `folder`; None to
            choose by the path's extension.
        subpath, protocol, user, passwd, params: parts of a URL, if `path` is not a URL.
        store: a directory or a URL; None for $BENTOFS_STORE, else BentoML's own store.
        sha256: write `<file>.sha256` beside the archive.

    Returns:
        The URL of the export, without credentials; on this machine, the absolute path.

    Raises:
        NotFoundError: the model or the store does not exist.
        BadLocationError: the target or the format is invalid. It is also a ValueError.
        StoreError: any other reason; its text is a sentence for a user.
    """
    target = Location.parse(path, protocol=protocol, user=user, passwd=passwd, params=params, subpath=subpath)
    if target.is_local:
        refuse_closed(target.path)  # before the store opens a file, which might get its descriptor number
    with opened_exporter(store) as (models, exporter):
        return exporter.run(exporter.plan(models.find(str(tag)), target, output_format), no_progress, sha256=sha256).url


def import_model(
    path: str,
    input_format: str | None = None,
    *,
    protocol: str | None = None,
    user: str | None = None,
    passwd: str | None = None,
    params: Mapping[str, str] | None = None,
    subpath: str | None = None,
    store: str | StoreSpec | None = None,
    overwrite: bool = False,
) -> Tag:
    """Import a model from a path or URL into a store. The bytes decide the format, not the name.

    Args:
        path: an archive or a directory with a `model.yaml`.
        input_format: refuse anything but this format; None for any.
        protocol, user, passwd, params, subpath: parts of a URL, if `path` is not a URL.
        store: a directory or a URL; None for $BENTOFS_STORE, else BentoML's own store. A missing directory is created.
        overwrite: replace an existing model with the same tag and other content.

    Returns:
        The model's tag. The model is in the store, complete and durable.

    Raises:
        ModelExistsError: the store has other content under this tag.
        DamagedArchiveError, NotAModelError, UnsafeMemberError, TooBigError: the archive is refused.
        StoreError: any other reason; its text is a sentence for a user.
    """
    source = Location.parse(path, protocol=protocol, user=user, passwd=passwd, params=params, subpath=subpath)
    with opened_fetcher(store, overwrite=overwrite) as fetcher:
        return fetcher.fetch(source, no_progress, input_format).tag


@dataclass(frozen=True)
class StoredModel:
    """One model of a store, at the time of the look."""

    tag: Tag
    module: str  # of the framework in BentoML, such as "bentoml.sklearn"; empty for none
    creation_time: datetime.datetime  # aware, UTC
    size: int  # bytes of all files
    file_count: int
    labels: Mapping[str, str] = field(default_factory=dict)


class Store:
    """A model store. Use it in a `with` statement, or close it.

    >>> with Store() as store:
    ...     for model in store.list():
    ...         print(model.tag, model.size)
    ...     with store.open("iris", "zip") as archive:
    ...         archive.seek(-22, 2)
    """

    def __init__(self, location: str | None = None, *, compression: str | None = None) -> None:
        """Open a store.

        Args:
            location: a directory or a URL; None for $BENTOFS_STORE, else BentoML's own store.
            compression: `auto`, `always` or `never`. The archives are the same as in a mount with this option. None for
                the default: `auto` for a directory, `never` for a URL.

        Raises:
            NotFoundError: there is no store.
            BadLocationError: the URL or the compression is invalid.
            StoreError: the store cannot be reached.
        """
        self._stack = ExitStack()
        library = self._stack.enter_context(
            opened_library(location, None if compression is None else Compression.named(compression))
        )
        self._models, self._archives = library.models, library.archives

    def list(self) -> list[StoredModel]:
        """Return all models, sorted by tag."""
        return [_described(summary) for summary in self._models.summaries()]

    def get(self, tag: Tag | str) -> StoredModel:
        """Return one model: `name:version`, `name:latest` or `name`.

        Raises:
            NotFoundError: there is no such model.
            BadTagError: the text is no tag.
            BadModelError: the model cannot be shown.
        """
        return _described(Summary.of(self._models.model(self._models.find(str(tag)), max_age=0)))

    def open(self, tag: Tag | str, archive_format: str = "bentomodel") -> io.BufferedReader:
        """Open a model as an archive, made while it is read. The file is seekable; `seek(0, 2)` returns its length.

        Args:
            tag: `name:version`, `name:latest` or `name`.
            archive_format: `bentomodel`, `tar`, `tar.gz`, `zip`, `tar.xz` or `tar.bz2`.

        Raises:
            NotFoundError: there is no such model.
            BadLocationError: there is no such format.
            SourceChangedError: raised by `read`: the model was changed or replaced since it was opened.
        """
        model = self._models.model(self._models.find(str(tag)), max_age=0)
        return io.BufferedReader(PieceFile(self._archives.open(model, format_named(archive_format))), _BUFFER)

    def verify(self, tag: Tag | str, *, accept: bool = False) -> VerifyReport:
        """Read a whole model and compare it with the SHA-256s that were recorded the first time.

        Args:
            tag: `name:version`, `name:latest` or `name`.
            accept: record the current SHA-256s instead.

        Returns:
            The outcome, the number of files, their bytes, and the paths that differ.

        Raises:
            NotFoundError, BadModelError: there is no such model, or it cannot be read.
            StoreUnreadableError: another process uses the record.
        """
        baseline = Baseline()
        try:
            return verify_model(self._models, baseline, self._models.find(str(tag)), accept=accept)
        finally:
            baseline.close()

    def close(self) -> None:
        """Close the store. Do not read files that it opened after this."""
        self._stack.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[StoredModel]:
        return iter(self.list())


def _described(model: Summary) -> StoredModel:
    info = model.info
    return StoredModel(info.tag, info.module, info.creation_time, model.size, model.file_count, dict(info.labels))
