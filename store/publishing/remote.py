"""Publishing to a remote store: payload first, then the manifest, then `model.yaml`, then `latest`.

The model exists once its `model.yaml` does. The writer of a version holds its lease (`store.publishing.lease`), so only
one host writes. A crash leaves no model, since the `model.yaml` is missing; the next import of the same tag removes the
rest. Replacing a model removes it first: there is none during the upload, and none after a crash; `incoming/` keeps the
upload that was to replace it.

Threading: any thread; several hosts may publish the same tag at once.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from bentofs.store.clients.objects import WritableObjects
from bentofs.store.clients.request_body import Content
from bentofs.store.errors import (
    BadModelError,
    ConditionFailedError,
    ModelExistsError,
    OtherContentError,
    StoreError,
    StoreUnwritableError,
    UnsafeMemberError,
)
from bentofs.store.formats.pieces import Literal
from bentofs.store.model.model import MODEL_YAML
from bentofs.store.publishing.base import Outcome, PublishRequest, Verdict, note_exec_bit
from bentofs.store.publishing.compare import first_difference, first_other_exec_bit
from bentofs.store.publishing.lease import Lease
from bentofs.store.publishing.remote_latest import move_latest
from bentofs.store.staging.hashing import RunningDigest
from bentofs.store.staging.model import Staged
from bentofs.store.storage.base import Entry
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.manifest import FileNote, Manifest, manifest_key
from bentofs.store.storage.pinned import OpenFiles, PinnedFile
from bentofs.store.storage.remote import RemoteStorage
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped
from bentofs.store.util.display import printable
from bentofs.store.util.fs import writing
from bentofs.store.util.names import portable_name

log = logging.getLogger(__name__)

_UPLOADS = 4  # files at once
_MAX_KEY = 1024  # bytes, in S3


class RemotePublisher:
    """Publishes to one remote store."""

    def __init__(self, storage: RemoteStorage, stops: CancelTokens) -> None:
        """`storage`: must be writable (`check_writable`); `stops`: once one is set, uploads are undone."""
        self._stops = stops
        self._storage = storage
        self._objects = storage.writable()

    def compare(self, staged: Staged) -> Verdict | None:  # noqa: ARG002 - it is done under the lease, by SHA-256s
        """Return None, which `Publisher.compare` allows."""
        return None

    def publish(self, request: PublishRequest) -> Outcome:
        """Do what `Publisher.publish` does, but leave the staged directory."""
        return _Publication(self._storage, self._objects, request, self._stops).run()


class _Publication:
    """One call of `RemotePublisher.publish`."""

    def __init__(
        self, storage: RemoteStorage, objects: WritableObjects, request: PublishRequest, stops: CancelTokens
    ) -> None:
        self._stops = stops
        self._storage = storage
        self._objects = objects
        self._request = request
        staged = self._staged = request.staged
        self._tag = staged.info.tag
        self._local = LocalStorage(os.path.dirname(staged.path))
        self._open_files = OpenFiles()
        found, _ = self._local.walk(os.path.basename(staged.path))
        # No manifest records the exec bit of `model.yaml`, which means nothing.
        self._entries = [entry._replace(executable=entry.executable and entry.path != MODEL_YAML) for entry in found]

    def run(self) -> Outcome:
        self._check_names()
        with Lease(self._objects, self._tag, self._stops) as claim:
            outcome = self._publish(claim)
            if outcome is not Outcome.UNCHANGED:
                try:
                    move_latest(self._storage, self._objects, self._staged, move=self._request.move_latest)
                except StoreError as error:
                    log.warning("%s is in the store, but its `latest` may be out of date: %s", self._tag, error)
        self._storage.listings.expire(self._tag.name)
        return outcome

    def _publish(self, claim: Lease) -> Outcome:
        self._storage.listings.expire(self._tag.name)
        there = self._keys()
        outcome = Outcome.IMPORTED
        if self._key(MODEL_YAML) in there:
            difference, other_exec_bit = self._difference()
            if difference is None and not (self._request.overwrite and other_exec_bit):
                note_exec_bit(self._tag, other_exec_bit)
                return Outcome.UNCHANGED
            if not self._request.overwrite:
                raise OtherContentError(
                    f"{self._tag} is in the store with other content ({difference}): import with --overwrite to "
                    "replace it, or delete it there first"
                )
            outcome = Outcome.REPLACED
        if there:
            if outcome is Outcome.IMPORTED:
                log.info("%s: the remains of an interrupted import are removed", self._tag)
            self._remove(there)
        claim.check()
        try:
            self._objects.end_uploads(f"{self._tag.path}/")
        except StoreError as error:  # lost room, but no reason not to import
            log.info("parts of uploads may remain after a crash: %s", error)
        try:
            self._upload(claim)
        except BaseException:
            with suppress(StoreError):  # the first error says it all; the leftover objects are no model
                claim.check()
                self._remove(self._keys())
            raise
        return outcome

    def _upload(self, claim: Lease) -> None:
        files = [entry for entry in self._entries if not entry.is_folder and entry.path != MODEL_YAML]
        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload") as uploads:
            done = [uploads.submit(self._upload_file, claim, entry) for entry in files]
            try:
                etags = {entry.path: uploaded.result() for entry, uploaded in zip(files, done, strict=True)}
            except BaseException:
                for uploaded in done:
                    uploaded.cancel()
                raise
        if {self._key(path): etag for path, etag in etags.items()} != self._keys():
            raise StoreUnwritableError(
                f"another host is writing {self._tag} in {self._storage.location}: copy it again"
            )
        model_yaml = next(entry for entry in self._entries if entry.path == MODEL_YAML)
        content = self._content(model_yaml)
        self._write_manifest(etags)
        claim.check()
        refuse_if_stopped(self._stops)
        try:
            self._objects.put(self._key(MODEL_YAML), content, only_new=True)
        except ConditionFailedError:  # it may be ours, from an attempt whose answer was lost
            claim.check()
            self._storage.listings.expire(self._tag.name)
            if self._storage.read_small(self._key(MODEL_YAML), len(content)) != content:
                raise ModelExistsError(
                    f"{self._tag} has just been saved by another host: import it again to compare both"
                ) from None

    def _upload_file(self, claim: Lease, entry: Entry) -> str:
        refuse_if_stopped(self._stops)
        claim.check()
        key = self._key(entry.path)
        content: Content = Literal(b"")
        if entry.identity is not None and entry.size:
            content = PinnedFile(self._local, self._open_files, entry.source, entry.identity)
        try:
            return self._objects.upload(key, content, only_new=True, stops=self._stops)
        except ConditionFailedError:  # ours, from an attempt whose answer was lost; nobody else may write here
            claim.check()
            return self._objects.upload(key, content, stops=self._stops)

    def _write_manifest(self, etags: dict[str, str]) -> None:
        notes = {}
        for entry in self._entries:
            if entry.path in etags:
                crc, sha256 = self._sums(entry)
                notes[portable_name(entry.path)] = FileNote(etags[entry.path], crc, entry.executable, sha256)
        # `model.yaml` is written later, and its ETag is known only then: it is small, and never executable.
        folders = [portable_name(entry.path) for entry in self._entries if entry.is_folder]
        key = manifest_key(self._tag.name, self._tag.version)
        self._objects.put(key, Manifest(notes, folders).encode())

    def _sums(self, entry: Entry) -> tuple[int, str]:
        known = self._staged.files.get(entry.path)
        if known is not None:
            return known.crc32, known.sha256
        digest = RunningDigest()
        with writing(entry.path), open(os.path.join(self._staged.path, entry.path), "rb") as file:
            digest.update_from(file.fileno(), 0, entry.size)
        sha256, crc = digest.result()
        return crc, sha256

    def _content(self, entry: Entry) -> bytes:
        with writing(entry.path), open(os.path.join(self._staged.path, entry.path), "rb") as file:
            return file.read()

    def _difference(self) -> tuple[str | None, str | None]:
        """Return how the store's model differs, for brackets in a sentence, or None if it is the same; and then the
        first file whose exec bit differs. Compare by SHA-256 if the manifest has it, else by bytes."""
        try:
            entries, _ = self._storage.walk(self._tag.path)
        except BadModelError as error:
            return str(error), None
        notes = self._storage.notes(self._tag.path)
        same = set()
        for entry in self._entries:
            note, known = notes.get(entry.path), self._staged.files.get(entry.path)
            if note is not None and known is not None and note.sha256:
                if note.sha256 != known.sha256:
                    return f"{printable(entry.path)} differs", None
                same.add(entry.path)
        path = first_difference(
            self._storage,
            [entry for entry in entries if entry.path not in same],
            self._local,
            [entry for entry in self._entries if entry.path not in same],
        )
        if path is not None:
            return f"{printable(path)} differs", None
        return None, first_other_exec_bit(entries, self._entries)

    def _keys(self) -> dict[str, str]:
        """Return the current ETags of the version's objects, by key."""
        return {info.key: info.etag for info in self._storage.listings.list_now(f"{self._tag.path}/")}

    def _remove(self, keys: dict[str, str]) -> None:
        """Remove objects, `model.yaml` first: without it there is no model."""
        first = self._key(MODEL_YAML)
        others = [*(key for key in keys if key != first), manifest_key(self._tag.name, self._tag.version)]
        for part in ([first], others):
            self._objects.delete(part)

    def _key(self, path: str) -> str:
        return f"{self._tag.path}/{portable_name(path)}"

    def _check_names(self) -> None:
        """Raise UnsafeMemberError for a path that no object can have."""
        for entry in self._entries:
            try:
                length = len(f"{self._objects.prefix}{self._key(entry.path)}".encode())
            except UnicodeEncodeError:
                raise UnsafeMemberError(f"{printable(entry.path)!r} is not UTF-8, as keys in S3 must be") from None
            if length > _MAX_KEY:
                raise UnsafeMemberError(f"{printable(entry.path)[:200]!r}... is too long for a key in S3")
