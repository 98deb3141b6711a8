"""ModelStore: the catalogue of a store in BentoML's layout: `<name>/<version>/`, `<name>/latest`.

Only finished, well-formed models are shown. The log names each model that is left out, once for each reason. A failure
of the store removes no model from a listing: a tool that mirrors a mount would take the model for deleted.

Threading: any thread may call any method. The storage is accessed without a lock, so that a slow access blocks no other
thread. Two threads may look at the same model; the first result is kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from cachetools import LRUCache

from bentofs.store.catalog.ahead import NAMES_TOGETHER, one_ahead
from bentofs.store.catalog.known_infos import InfoRows, KnownInfos
from bentofs.store.catalog.looks import Looks, bearable_age
from bentofs.store.catalog.names import REFRESH, Names
from bentofs.store.catalog.scanner import LATEST, NameFolder, Version, why_none
from bentofs.store.catalog.summaries import Summaries
from bentofs.store.errors import BadTagError, NotFoundError, SourceChangedError, StoreError, is_failure
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, Model, ModelInfo, Summary
from bentofs.store.model.tag import MAX_LENGTH, Tag, is_tag_part
from bentofs.store.storage.base import Identity, Storage
from bentofs.store.util.memory_budget import MemoryBudget

log = logging.getLogger(__name__)

_A = TypeVar("_A")
_T = TypeVar("_T")

_LOOKING_SECONDS = 0.1  # time limit for looking into models in a listing of all names;
_LOOKED_INTO = 2000  # with more names, too few would fit in that time to be worth it
_WARNINGS_KEPT = 10_000  # remembered, so that each is logged once


class ModelStore:
    """The catalogue of one store."""

    def __init__(
        self,
        storage: Storage,
        gone: Callable[[Tag], None] = lambda _tag: None,
        budget: MemoryBudget | None = None,
        infos: InfoRows | None = None,
    ) -> None:
        """`gone`: called with each version that has disappeared; `budget`: None for its own; `infos`: keeps what each
        `model.yaml` says; None to keep nothing."""
        self.storage = storage
        self._infos = KnownInfos(infos)
        self._gone = gone
        self._names = Names(storage, self.warn, self._forget)
        self._looks = Looks(storage, self._names, self.info, budget or MemoryBudget())
        self._lock = threading.Lock()  # guards the field below
        self._warned: LRUCache[tuple[str, str], bool] = LRUCache(_WARNINGS_KEPT)

    def names(self) -> list[str]:
        """Return the names with at least one model that can be shown, sorted.

        Looking into models takes time. In a large store, a model that was not looked into yet counts as good.
        """
        shown = []
        begun = time.monotonic()
        names = self._names.all()
        deadline = begun + (_LOOKING_SECONDS if len(names) <= _LOOKED_INTO else 0)
        self.storage.prepare(names)
        for name in names:
            try:
                self.version_count(name, look_into=time.monotonic() < deadline)
                shown.append(name)
            except NotFoundError:
                continue
            except StoreError as error:
                if is_failure(error):
                    shown.append(name)
                else:
                    self.warn(name, f"{error}; {name} is left out")
        # After listing a large store, `ls -l` asks for each name: a longer cache time avoids a second look at each.
        self._names.believe(bearable_age(time.monotonic() - begun))
        return shown

    def name_count(self) -> int:
        """Return the number of directories that may hold models. This is cheap: they are not opened."""
        return len(self._names.all())

    def model_count(self) -> int:
        """Return the number of models. Each name's directory is listed. No model is looked into: a broken one that
        nobody met yet counts."""
        count = 0
        for name in self._names.all():
            with suppress(NotFoundError):
                count += self.version_count(name)
        return count

    def versions(self, name: str) -> list[str]:
        """Return the versions of a name that can be shown, sorted.

        Raises:
            NotFoundError: there is no such name.
            StoreUnreadableError: its directory may not be read.
        """
        finished = self._names.at(name).finished
        return [text for text in sorted(finished) if self._can_be_shown(Tag(name, text), finished[text])]

    def has_version(self, tag: Tag) -> bool:
        """Tell whether the store has a finished version with this tag, perhaps one that cannot be shown.

        Raises:
            NotFoundError: there is no such name.
            StoreUnreadableError: its directory may not be read.
        """
        return tag.version in self._names.at(tag.name).finished

    def latest(self, name: str) -> str | None:
        """Return the version that BentoML answers for `name:latest`: the content of the `latest` file or, without that
        file, the youngest version. None if the name has no model, or if a version named `latest` rules out the
        file."""
        folder = self._names.at(name)
        for version in (LATEST, self._names.latest(name, folder)):
            seen = folder.finished.get(version) if version is not None else None
            if version is not None and seen is not None and self._can_be_shown(Tag(name, version), seen):
                return None if version == LATEST else version
        return max(self.versions(name), key=lambda text: self.info(Tag(name, text)).creation_time, default=None)

    def version_count(self, name: str, *, look_into: bool = False) -> int:
        """Return how many versions of a name can be shown. `look_into`: also look into versions not looked into yet.

        Raises:
            NotFoundError: there are none.
        """
        count = 0
        for text, version in self._names.at(name).finished.items():
            if _is_good(version, look_into=look_into) or self._can_be_shown(Tag(name, text), version):
                count += 1
        if not count:
            raise NotFoundError(f"{name} has no models in the store")
        return count

    def root_identity(self) -> Identity:
        """Return the identity of the store's directory, for its times."""
        return self.storage.status("").identity

    def name_identity(self, name: str) -> Identity:
        """Return the identity of a name's directory, for its times."""
        return self._names.at(name).identity

    def info(self, tag: Tag) -> ModelInfo:
        """Return the parsed `model.yaml` of a finished model. Raises the same errors as `model`."""
        version = self._names.version(tag)
        if version.info is None:
            version.info = self._infos.find({tag: version.model_yaml}).get(tag) or self._read_info(tag, version)
        return version.info

    def model(self, tag: Tag, *, max_age: float = REFRESH) -> Model:
        """Return the current generation of a model, at most about `max_age` seconds old; 0 for a look now.

        Raises:
            NotFoundError: there is no such model, or it is still being saved.
            BadModelError: it cannot be shown; the log says why.
            StoreUnreadableError: it may not be read.
        """
        if not max_age:
            self.expire(tag.name)
        version = self._names.version(tag)
        now = time.monotonic()
        if version.error is not None and max_age and now - version.looked_into < REFRESH:
            raise version.error.with_traceback(None)
        try:
            model = self._looks.model(tag, max_age)
        except NotFoundError:
            raise
        except SourceChangedError as error:
            raise NotFoundError(str(error)) from None
        except StoreError as error:
            if not is_failure(error):
                version.looked_into, version.error = now, error
                self.warn(tag.path, f"{error}; {tag} is left out")
            raise
        version.looked_into, version.error = now, None
        return model

    def tags(self) -> list[Tag]:
        """Return the tags of all models that can be shown, sorted."""
        return [model.tag for model in self.models()]

    def models(self) -> Iterator[Model]:
        """Yield all models that can be shown, sorted by tag. Each is looked at when its turn comes.

        Raises:
            StoreUnreadableError: at the end, if some models are missing because they could not be read now.
        """

        def prepared(names: Sequence[str]) -> Sequence[str]:
            self.prepare(names)
            return names

        failure: StoreError | None = None
        for group in one_ahead(self.names(), prepared):
            for name in group:
                try:
                    yield from self.models_of(name)
                except StoreError as error:
                    failure = failure or error
        self.flush()
        if failure is not None:
            raise failure

    def summaries(self) -> Iterator[Summary]:
        """Yield the summaries of all models that can be shown, sorted by tag. It raises the same error as `models`."""
        if self.storage.lists_without_requests:
            yield from map(Summary.of, self.models())
            return
        yield from Summaries(self, self._names, self._infos).all()
        self.flush()

    def infos(self) -> Iterator[ModelInfo]:
        """Yield what each `model.yaml` says, of the models that can be shown, by name and version.

        Raises:
            StoreUnreadableError: the store, or one of its models, cannot be read now.
        """
        names = self.names()
        for begin in range(0, len(names), NAMES_TOGETHER):
            group = names[begin : begin + NAMES_TOGETHER]
            self.prepare(group)
            for name in group:
                folder = _unless_gone(self._names.at, name)
                for text, version in sorted(folder.finished.items()) if folder is not None else ():
                    tag = Tag(name, text)
                    if self._can_be_shown(tag, version):
                        info = version.info or _unless_gone(self.info, tag)
                        if info is not None:
                            yield info
        self.flush()

    def flush(self) -> None:
        """Write to disk what was learnt of models."""
        self._infos.flush()

    def expire(self, name: str) -> None:
        """Force a new look at a name at its next use. The known state still helps to judge the new one."""
        self._names.expire(name)

    def find(self, text: str) -> Tag:
        """Find the model that a user names, by the rules of `bentoml.models.get`: `name:version`; `name` or
        `name:latest` for the latest version; `name:prefix` for the only version with that prefix. Capitals count as
        small letters. A missing version is returned; the look at its model raises the error.

        Raises:
            BadTagError: it is no tag, or several versions have the prefix.
            NotFoundError: the name has no models.
        """
        name, colon, version = text.lower().partition(":")
        if not colon and not is_tag_part(name):
            raise BadTagError(f"'{text}' is not a tag: a name is at most {MAX_LENGTH} of a-z, 0-9, '-', '_', '.'")
        tag = Tag.parse(f"{name}:{version}" if colon else f"{name}:{LATEST}")
        known: NameFolder | None = None
        with suppress(StoreError):
            known = self._names.at(name)
        if tag.version == LATEST and not (colon and known is not None and LATEST in known.versions):
            latest = self.latest(name)
            if latest is None:
                raise NotFoundError(why_none(name, known, self.storage.location))
            return Tag(name, latest)
        # A full match wins over longer versions, in any state.
        if known is None or tag.version in known.listing.versions:
            return tag
        matches = sorted(found for found in known.versions if found.startswith(tag.version))
        if len(matches) > 1:
            raise BadTagError(
                f"several versions of {name} begin with {version}: {', '.join(matches[:5])}"
                f"{', ...' if len(matches) > 5 else ''}: write more of the version"
            )
        return Tag(name, matches[0]) if matches else tag

    def _can_be_shown(self, tag: Tag, version: Version) -> bool:
        """Look into a version, unless an earlier look found it good. Its directory and `model.yaml` are checked each
        time (`_name`). A deeper change is found when the model itself is used. A version that cannot be read now counts
        as good."""
        if _is_good(version):
            return True
        try:
            self.model(tag)
        except StoreError as error:  # named in the log by model()
            return is_failure(error)
        return True

    def models_of(self, name: str) -> Iterator[Model]:
        """Yield the models of a name that can be shown, sorted by version.

        Raises:
            StoreUnreadableError: at the end, if some models are missing because they could not be read now.
        """
        failure: StoreError | None = None
        try:
            for version in self.versions(name):
                tag = Tag(name, version)
                try:
                    yield self.model(tag)
                except StoreError as error:  # deleted just now, or named in the log by model()
                    if is_failure(error):
                        self.warn(tag.path, f"{error}; {tag} is left out")
                        failure = failure or error
        except StoreError as error:
            self.warn(name, f"{error}; {name} is left out")
            if is_failure(error):
                raise
        if failure is not None:
            raise failure

    def prepare(self, names: Sequence[str]) -> None:
        """Prefetch the models of these names: calls about all of them follow."""
        self.storage.prepare(names)
        versions: dict[Tag, Version] = {}
        for name in names:
            with suppress(StoreError):  # raised again at the next use
                finished = self._names.at(name).finished
                versions |= {Tag(name, text): version for text, version in finished.items() if version.info is None}
        self._prepare(versions, versions)

    def prepare_infos(self, tags: Iterable[Tag], whole: Iterable[Tag]) -> None:
        """Prefetch what the `model.yaml` of these models say, and all that is needed for a look at those in `whole`."""
        versions: dict[Tag, Version] = {}
        for tag in tags:
            with suppress(StoreError):  # raised again at the next use
                versions[tag] = self._names.version(tag)
        self._prepare({tag: version for tag, version in versions.items() if version.info is None}, whole)

    def _prepare(self, versions: Mapping[Tag, Version], whole: Iterable[Tag]) -> None:
        known = self._infos.find({tag: version.model_yaml for tag, version in versions.items()})
        for tag, info in known.items():
            versions[tag].info = info
        unread = [f"{tag.path}/{MODEL_YAML}" for tag in versions if tag not in known]
        self.storage.prepare_models([tag.path for tag in whole], unread)

    def _read_info(self, tag: Tag, version: Version) -> ModelInfo:
        path, file = f"{tag.path}/{MODEL_YAML}", version.model_yaml
        begun_ns = time.time_ns()
        info = ModelInfo.parse(tag, self.storage.read_small(path, MAX_MODEL_YAML))
        # If it was replaced meanwhile, nobody knows which of the two was read.
        if self.storage.pins_content(path, file, begun_ns) and self.storage.status(path).identity == file:
            self._infos.keep(file, info)
        return info

    def _forget(self, tag: Tag) -> None:
        """Drop all data of a version that is gone."""
        self._looks.drop(tag)
        self._gone(tag)

    def warn(self, path: str, sentence: str) -> None:
        """Log why something is not shown, once for each path in the store and sentence."""
        with self._lock:
            if (path, sentence) in self._warned:
                return
            self._warned[path, sentence] = True
        log.warning("%s", sentence)


def _is_good(version: Version, *, look_into: bool = True) -> bool:
    """True if the last look found no fault in a version. `look_into`: False if a version without a look counts too."""
    return version.error is None and (bool(version.looked_into) or not look_into)


def _unless_gone(look: Callable[[_A], _T], at: _A) -> _T | None:
    """Return the result of a look; None if its model has gone, or cannot be shown. A failure of the store is raised."""
    try:
        return look(at)
    except StoreError as error:
        if is_failure(error):
            raise
        return None
