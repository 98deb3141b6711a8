"""Importing: an archive or a directory becomes a model of a local store. It is staged, checked and published.

Data measured on the way is kept: CRC-32s for the archives that the mount will show, SHA-256s for `bentofs verify`. A
mount records the SHA-256s later, while nobody waits (`store.integrity.baseline_recorder`).

Threading: an `Importer` may be used from any thread, for any number of imports at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bentofs.store.archives.crc32_cache import Measurements
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import CancelledError, ModelExistsError, OtherContentError, StoreError
from bentofs.store.formats.read.background_sha256 import ArchiveDigest
from bentofs.store.formats.read.extract import extract
from bentofs.store.formats.read.growing_file import ArrivingFile, DigestedFile
from bentofs.store.formats.read.sink import Sink
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.model.bentoml_fields import refuse_what_bentoml_cannot_read
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, ModelInfo
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.base import Outcome, Publisher, PublishRequest, Verdict
from bentofs.store.publishing.local import LocalPublisher
from bentofs.store.staging.folder import stage_folder
from bentofs.store.staging.import_sizes import StagedSizes
from bentofs.store.staging.limits import Limits
from bentofs.store.staging.model import Staged, StagedModel
from bentofs.store.staging.session import Session
from bentofs.store.util.fs import remove_tree


@dataclass
class StagedImport:
    """A model that is ready to be published."""

    staged: Staged
    sha256: Callable[[], str] | None  # of the archive, hexadecimal; waits until it is computed
    clear: Callable[[], None]  # removes the staged files, or their rest after publishing
    digest: ArchiveDigest | None = None  # where `sha256` may still be computing
    sizes: StagedSizes | None = None  # sizes measured of its compressed archives
    is_measured: bool = False  # true if they are kept once it is published
    verdict: Verdict | None = None  # how it compares with the store's model of its tag, if known

    @property
    def tag(self) -> Tag:
        return self.staged.info.tag

    def discard(self) -> None:
        """Give up the import."""
        if self.digest is not None:
            self.digest.stop()
        self.clear()


class Importer:
    """Imports into one store."""

    def __init__(
        self,
        store: ModelStore,
        session: Session,
        measurements: Measurements,
        digests: Baseline,
        *,
        limits: Limits | None = None,
        overwrite: bool = False,
        publisher: Publisher | None = None,
        measure: Callable[[str], StagedSizes] | None = None,
        has_sha256: bool = True,
    ) -> None:
        """`overwrite`: true to replace a model of the same tag with other content; `publisher`: None for the publisher
        of the session's own store; `measure`: makes the measurer of the model in a directory
        (`store.staging.import_sizes`); `has_sha256`: False to compute no SHA-256s: the caller records them later."""
        self._publisher = publisher or LocalPublisher(session)
        self._measure = measure
        self._store = store
        self._session = session
        self._measurements = measurements
        self._digests = digests
        self._limits = limits or Limits()
        self._overwrite = overwrite
        self._has_sha256 = has_sha256
        self._umask = current_umask()
        self._condition = threading.Condition()
        self._under_way = 0
        self._closed = False

    def stage(
        self,
        arriving: ArrivingFile,
        *,
        digest_later: bool = False,
        on_model: Callable[[], None] = lambda: None,
    ) -> StagedImport:
        """Stage an archive while it arrives. `digest_later`: its SHA-256 may still be computing when this returns.
        `on_model`: called once the archive is known to hold a model, even if it is refused later.

        Raises:
            StoreError: the reason why it cannot be imported. Nothing of it is left.
        """
        if isinstance(arriving, DigestedFile):
            ready = self.stage_members(lambda target: extract(arriving, target), on_model)
            ready.sha256 = arriving.sha256
            return ready
        digest = ArchiveDigest(arriving, later=digest_later)
        try:
            ready = self.stage_members(lambda target: extract(digest, target), on_model)
            digest.end()
        except BaseException:
            digest.stop()
            raise
        ready.sha256, ready.digest = digest.value, digest
        return ready

    def stage_members(self, fill: Callable[[Sink], None], on_model: Callable[[], None] = lambda: None) -> StagedImport:
        """Stage the members that `fill` puts into its target. `on_model`: see `stage`.

        Raises:
            StoreError: the reason why it cannot be imported. Nothing of it is left.
        """
        with self._working():
            path = self._session.new_staged_path()
            sizes = self._measure(path) if self._measure is not None else None
            model = self._new_model(path, sizes, on_model)
            try:
                fill(model)
                staged = model.finish(sizes.finish if sizes is not None else lambda _staged: None)
                return StagedImport(staged, None, model.discard, sizes=sizes)
            except BaseException:
                if sizes is not None:
                    sizes.give_up()
                model.discard()
                raise

    def stage_folder(self, path: str) -> StagedImport:
        """Stage a directory in place. A rename must be able to move it into the store.

        Raises:
            StoreError: the reason why it cannot be imported. It is still there.
        """
        with self._working():
            staged = stage_folder(path, self._limits, self._umask, self._check_folder, has_sha256=self._has_sha256)
            sizes = self._measure(path) if self._measure is not None else None
            if sizes is not None:
                sizes.finish(staged)
            return StagedImport(staged, None, lambda: remove_tree(self._session.put_aside(path)), sizes=sizes)

    def compare(self, ready: StagedImport) -> None:
        """Compare with the store's model of the same tag now, so that publishing takes no time.

        Raises:
            StoreUnreadableError, StoreUnwritableError: see `Publisher.publish`.
        """
        with self._working():
            ready.verdict = self._publisher.compare(ready.staged)

    def publish(self, ready: StagedImport, *, move_latest: bool = True, may_replace: bool = True) -> Outcome:
        """Publish a staged model in the store. It is durable when this returns. `may_replace`: False keeps another
        model of its tag, even if the importer overwrites.

        Raises:
            ModelExistsError, NoSpaceError, StoreUnwritableError: see `Publisher.publish`.
        """
        info = ready.staged.info
        overwrite = self._overwrite and may_replace
        with self._working():
            try:
                outcome = self._publisher.publish(PublishRequest(ready.staged, overwrite, move_latest, ready.verdict))
            except OtherContentError:
                if overwrite == self._overwrite:
                    raise
                raise OtherContentError(
                    f"{info.tag} is in the store with other content, which may be newer: copy it again to replace that"
                ) from None
            ready.clear()
        self._store.expire(info.tag.name)
        self._keep_what_was_learnt(ready.staged, outcome)
        if ready.sizes is not None and outcome is not Outcome.UNCHANGED:
            ready.is_measured = ready.sizes.keep()
        return outcome

    def _keep_what_was_learnt(self, staged: Staged, outcome: Outcome) -> None:
        info, location = staged.info, self._store.storage.location
        if not self._has_sha256 and outcome is not Outcome.UNCHANGED:
            self._digests.forget(location, str(info.tag), lambda: True)  # they are of an earlier model
        if not staged.files:  # too many to keep
            return
        if self._has_sha256:
            sums = {os.fsencode(path): file.sha256 for path, file in staged.files.items()}
            self._digests.record(location, info.tag, info.creation_time, sums, first=outcome is Outcome.UNCHANGED)
        if outcome is not Outcome.UNCHANGED:  # else the files in the store are not these
            for file in staged.files.values():
                self._measurements.keep_crc32(file.identity, file.crc32, time.time_ns())

    def close(self, seconds: float) -> bool:
        """Start nothing more. Return true if all running work has ended within so many seconds. Until it has, the
        session's directories must stay."""
        with self._condition:
            self._closed = True
            return self._condition.wait_for(lambda: not self._under_way, seconds)

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._condition:
            if self._closed:
                raise CancelledError("the mount ends: copy it again once it is mounted")
            self._under_way += 1
        try:
            yield
        finally:
            with self._condition:
                self._under_way -= 1
                self._condition.notify_all()

    def has_name(self, name: str) -> bool:
        """Tell whether the store has a model of this name."""
        try:
            return self._store.version_count(name) > 0
        except StoreError:
            return False

    def still_has(self, tag: Tag, creation_time: str | None) -> bool:
        """Tell whether the store has the model that was imported as `tag`, made at this time (ISO 8601)."""
        try:
            return self._store.info(tag).creation_time.isoformat() == creation_time
        except StoreError:
            return False

    def _new_model(self, path: str, sizes: StagedSizes | None, on_model: Callable[[], None]) -> StagedModel:
        def check(info: ModelInfo, content: bytes) -> None:
            on_model()
            if sizes is not None and self._is_there(info.tag, content):
                sizes.give_up()
            else:
                self._check_early(info, content)

        return StagedModel(
            path,
            self._limits,
            umask=self._umask,
            has_sha256=self._has_sha256,
            on_model_yaml=check,
            on_file=sizes.file if sizes is not None else lambda _path, _file: None,
        )

    def _check_early(self, info: ModelInfo, content: bytes) -> None:
        """Refuse a model that BentoML cannot read, or a taken tag, as soon as that is known, not after gigabytes.
        Refuse only certain cases; publishing decides."""
        there = self._model_yaml_of(info.tag)
        if there == content:
            return
        refuse_what_bentoml_cannot_read(info.tag, content)
        if there is not None and not self._overwrite:
            raise ModelExistsError(
                f"{info.tag} is in the store with another model.yaml: delete it there first, or use --overwrite"
            )

    def _check_folder(self, info: ModelInfo, content: bytes) -> None:
        if not self._is_there(info.tag, content):
            refuse_what_bentoml_cannot_read(info.tag, content)

    def _is_there(self, tag: Tag, content: bytes) -> bool:
        """Tell whether the store has a model of this tag with this very model.yaml, most likely the same model."""
        return self._model_yaml_of(tag) == content

    def _model_yaml_of(self, tag: Tag) -> bytes | None:
        """Return the model.yaml of the store's model of this tag. None if there is no such model, or no whole one."""
        try:
            self._store.info(tag)
            return self._store.storage.read_small(f"{tag.path}/{MODEL_YAML}", MAX_MODEL_YAML)
        except StoreError:
            return None


def current_umask() -> int:
    """Return the process's umask. Linux tells it without changing it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o077
