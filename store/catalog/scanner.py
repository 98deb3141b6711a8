"""Scanner: reads the directory of one model name: its versions, their states, and the `latest` file.

One look costs a few system calls for each version. It does not look at files inside a version, unless only the time of
the last change can tell if the version is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bentofs.store.catalog.completeness import QUIET_NS, Completeness, judge
from bentofs.store.errors import NotFoundError, StoreError, is_failure
from bentofs.store.model.model import MODEL_YAML, ModelInfo
from bentofs.store.model.tag import MAX_LENGTH, Tag, is_tag_part
from bentofs.store.storage.base import Identity, Kind, OpenFolder, Status, Storage
from bentofs.store.storage.manifest import is_ours
from bentofs.store.storage.timestamps import is_settled

LATEST = "latest"
_UNFINISHED_ADVICE = (
    "If the save was interrupted, delete the directory and save again; if the model is whole and was changed or copied "
    "by hand, `touch -d yesterday` on its directory has it shown"
)
UNFINISHED_NOTICE_NS = 10_000_000_000  # an unfinished save without changes for so long is logged

Warn = Callable[[str, str], None]  # arguments: a path in the store, a sentence


@dataclass
class Version:
    """The state of one version directory at the last look."""

    folder: Identity
    model_yaml: Identity
    state: Completeness  # COMPLETE or UNFINISHED
    info: ModelInfo | None = None  # parsed when first asked for
    looked_into: float = 0.0  # monotonic time of the last look into it; 0 for never
    error: StoreError | None = None  # the error of that look, if any


class Listing(NamedTuple):
    """The listing of a name's directory."""

    taken_ns: int  # wall clock
    versions: list[str]  # subdirectories with a valid version as name
    has_latest: bool
    paths: list[str]  # paths to stat at each look: two for each version, then `latest`


@dataclass
class NameFolder:
    """The state of one name's directory at the last look."""

    identity: Identity
    listing: Listing
    looks: Sequence[Status | StoreError]  # stats of the listing's paths
    seen: float  # monotonic time of the last look
    versions: dict[str, Version] = field(default_factory=dict)
    latest_read: tuple[Identity, int, str] | None = None  # identity of the file, time of reading (wall clock), content
    finished: dict[str, Version] = field(default_factory=dict)  # the versions that are no longer being saved

    @property
    def all_finished(self) -> bool:
        """True if no version is, or may be, still being saved. Then time alone changes no state."""
        return len(self.finished) == len(self.listing.versions)

    @property
    def latest_file(self) -> Identity | None:
        """Return the identity of the file `latest`; None if there is none."""
        look = self.looks[-1] if self.listing.has_latest else None
        return look.identity if isinstance(look, Status) else None


class Scanner:
    """Looks at the directories of names."""

    def __init__(self, storage: Storage, warn: Warn) -> None:
        self._storage = storage
        self._warn = warn

    def look(self, name: str, known: NameFolder | None) -> NameFolder:
        """Take a new look at a name. `known`: the result of the look before.

        Raises:
            NotFoundError: there is no such directory.
            StoreUnreadableError: it may not be read.
        """
        seen = time.monotonic()
        with self._storage.look_into(name) as folder:
            identity = folder.identity
            if (
                known is not None
                and known.identity == identity
                and known.all_finished
                and self._storage.has_deep_identities
            ):
                known.seen = seen
                return known
            if (
                known is not None
                and known.identity == identity
                and is_settled(identity.ctime_ns, known.listing.taken_ns)
            ):
                listing = known.listing
            else:
                listing = self._list(name, folder)
            looks = folder.statuses(listing.paths)
        if known is not None and listing is known.listing and looks == known.looks and known.all_finished:
            known.seen = seen
            return known
        fresh = NameFolder(identity, listing, looks, seen, latest_read=known.latest_read if known is not None else None)
        for number, text in enumerate(listing.versions):
            before = known.versions.get(text) if known is not None else None
            version = self._judge(Tag(name, text), fresh, looks[2 * number], looks[2 * number + 1], before)
            if version is not None:
                fresh.versions[text] = version
        fresh.finished = {
            text: version for text, version in fresh.versions.items() if version.state is Completeness.COMPLETE
        }
        return fresh

    def latest(self, name: str, folder: NameFolder) -> str | None:
        """Return the content of the `latest` file. Read it again if it has changed: a rewrite in place leaves the
        directory's times alone."""
        identity, read = folder.latest_file, folder.latest_read
        if identity is None:
            return None
        if read is None or read[0] != identity or not is_settled(identity.ctime_ns, read[1]):
            looked_at = time.time_ns()
            try:
                text = self._storage.read_small(f"{name}/{LATEST}", 2 * MAX_LENGTH).decode(errors="replace").strip()
            except NotFoundError:
                return None
            except StoreError as error:
                self._warn(f"{name}/{LATEST}", f"{error}; the latest model of {name} is told by creation time")
                return None
            folder.latest_read = read = (identity, looked_at, text)
        return read[2]

    def _list(self, name: str, folder: OpenFolder) -> Listing:
        taken_ns = time.time_ns()
        versions, paths = [], []
        has_latest = False
        for item, kind in folder.listing():
            if kind is Kind.FOLDER and is_tag_part(item):
                versions.append(item)
                paths += [item, f"{item}/{MODEL_YAML}"]
            elif item == LATEST and kind is Kind.FILE:
                has_latest = True
            elif not is_ours(item):
                self._warn(f"{name}/{item}", f"{item!r} in the directory of {name} is not a model; it is left out")
        return Listing(taken_ns, versions, has_latest, [*paths, LATEST] if has_latest else paths)

    def _judge(
        self,
        tag: Tag,
        name_folder: NameFolder,
        folder: Status | StoreError,
        model_yaml: Status | StoreError,
        before: Version | None,
    ) -> Version | None:
        if isinstance(folder, NotFoundError):
            return None
        if isinstance(model_yaml, NotFoundError) and isinstance(folder, Status):
            # BentoML is saving it, or it is a stray directory.
            since_ns = time.time_ns() - folder.identity.ctime_ns
            if since_ns >= UNFINISHED_NOTICE_NS and not self._storage.commits_by_model_yaml:
                self._warn(tag.path, f"the directory of {tag} holds no {MODEL_YAML}; it is left out")
            return None
        for look in (folder, model_yaml):
            if isinstance(look, StoreError):
                if before is not None and is_failure(look):
                    return before
                self._warn(tag.path, f"{look}; {tag} is left out")
                return None
        if not isinstance(folder, Status) or not isinstance(model_yaml, Status):
            return None
        if model_yaml.kind is not Kind.FILE:
            self._warn(tag.path, f"the {MODEL_YAML} of {tag} is not a regular file; {tag} is left out")
            return None
        version = Version(folder.identity, model_yaml.identity, Completeness.COMPLETE)
        if before is not None and before.model_yaml == version.model_yaml:
            version.info, version.looked_into, version.error = before.info, before.looked_into, before.error
            if before.state is Completeness.COMPLETE and before.folder.inode == version.folder.inode:
                return version  # a later change by hand removes BentoML's mark, but it stays a model
        if before is not None and before.state is Completeness.COMPLETE and before.folder == version.folder:
            return version  # likewise for a change of its model.yaml
        if self._storage.commits_by_model_yaml:
            return version
        version.state = judge(version.folder, version.model_yaml)
        if version.state is Completeness.LATEST_DECIDES:
            newest = self._newest_change(tag, version)
            finished = time.time_ns() - newest >= QUIET_NS or self._is_named(tag, name_folder, newest)
            version.state = Completeness.COMPLETE if finished else Completeness.UNFINISHED
        elif (
            version.state is Completeness.UNFINISHED
            and time.time_ns() - self._newest_change(tag, version) >= UNFINISHED_NOTICE_NS
        ):
            self._warn(
                tag.path,
                f"{tag} is not shown: by the times of its directory BentoML has not finished saving it, and nothing "
                f"has changed in it for {UNFINISHED_NOTICE_NS // 10**9} s. {_UNFINISHED_ADVICE}",
            )
        return version

    def _newest_change(self, tag: Tag, version: Version) -> int:
        """Return the time of the last change in a version's directory, in ns since 1970."""
        try:
            return self._storage.walk(tag.path)[1]
        except StoreError:  # it is being written; or the error is reported when it is finished
            return max(version.folder.ctime_ns, version.model_yaml.ctime_ns)

    def _is_named(self, tag: Tag, name_folder: NameFolder, newest: int) -> bool:
        """True if `latest` names a version and was written after all its contents. An older `latest` file belongs to a
        former model with this tag, or was copied here first, or was written for a query of the latest version."""
        written = name_folder.latest_file
        return written is not None and written.ctime_ns >= newest and self.latest(tag.name, name_folder) == tag.version


def why_missing(tag: Tag, known: NameFolder, location: str) -> str:
    """Return why the store at `location` has no model with a tag. `known`: the state of its name."""
    if tag.version not in known.listing.versions:
        return f"{tag} is not in the store {location}"
    if tag.version not in known.versions:
        return f"{tag} is left out: its directory in {location} holds no {MODEL_YAML} that can be read"
    return f"{tag} is left out: by the times of its directory BentoML has not finished saving it. {_UNFINISHED_ADVICE}"


def why_none(name: str, known: NameFolder | None, location: str) -> str:
    """Return why a name has no models in the store at `location`. `known`: the state of the name."""
    if known is None or not known.listing.versions:
        return f"{name} has no models in {location}: `bentofs list` shows all"
    version = max(known.listing.versions)
    error = known.finished[version].error if version in known.finished else None
    reason = str(error) if error is not None else why_missing(Tag(name, version), known, location)
    return f"{name} has no models in {location} but those that are left out: {reason}"
