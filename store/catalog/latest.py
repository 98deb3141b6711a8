"""The `latest` file of a name: the version that BentoML answers for `name:latest`, and the rule for updating it.

The rule comes from bentoml/_internal/store.py, `register`. The file is written if there is none, or if the new model is
not older than the one it names. A file that names no version counts as naming the youngest. bentofs adds one rule: a
model with a creation time in the future does not move `latest`, else it would stay the latest forever.
"""

from __future__ import annotations

import datetime
import logging
import os
import stat
from contextlib import suppress

from bentofs.store.catalog.completeness import Completeness
from bentofs.store.catalog.scanner import LATEST, Scanner
from bentofs.store.errors import StoreError
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, ModelInfo
from bentofs.store.model.tag import MAX_LENGTH, Tag, is_tag_part
from bentofs.store.storage.base import Storage
from bentofs.store.storage.local import LocalStorage
from bentofs.store.util.fs import FOLDER

log = logging.getLogger(__name__)

_AHEAD = datetime.timedelta(minutes=5)  # allowed difference between the clocks of two machines


def update_latest(store: str, tag: Tag, creation_time: datetime.datetime, *, move: bool, temporary: str) -> None:
    """Make `tag`, which is in the store, the latest of its name if the rule says so. Durable when this returns.

    `move`: False leaves an existing file alone; `temporary`: an unused path on the store's file system. The caller
    holds a lock that keeps others from calling this.

    Raises:
        OSError, StoreError
    """
    path = os.path.join(store, tag.name, LATEST)
    there = False
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):  # a version named `latest`, or a user's link
            log.info("the latest of %s is left as it is: %s is not a file", tag.name, path)
            return
        there = True
    if there and not move:
        return
    storage = LocalStorage(store)
    named = (
        storage.read_small(f"{tag.name}/{LATEST}", 2 * MAX_LENGTH).decode(errors="replace").strip() if there else None
    )
    chosen = next_latest(storage, tag, creation_time, named)
    if chosen is not None and chosen != named:
        _write(path, chosen, temporary)


def next_latest(storage: Storage, tag: Tag, creation_time: datetime.datetime, named: str | None) -> str | None:
    """Return the new content of `latest` by the rule, after `tag` was added to the store; None to leave it alone.
    `named`: the current content, None if there is no such file.

    Raises:
        StoreError
    """
    in_future = creation_time > datetime.datetime.now(datetime.timezone.utc) + _AHEAD
    named_time = _creation_time(storage, tag.name, named or "")
    chosen = tag.version
    if named_time is not None:
        if in_future or creation_time < named_time:
            return None
    elif named is not None or in_future:
        others = _creation_times(storage, tag.name)
        others.pop(tag.version, None)
        youngest = max(others, key=others.__getitem__, default=tag.version)
        if others and (in_future or creation_time < others[youngest]):
            chosen = youngest
    return chosen


def _creation_times(storage: Storage, name: str) -> dict[str, datetime.datetime]:
    """Return the creation times of the complete versions."""
    times = {}
    for version, seen in (
        Scanner(storage, lambda _path, sentence: log.debug("%s", sentence)).look(name, None).versions.items()
    ):
        time = _creation_time(storage, name, version) if seen.state is Completeness.COMPLETE else None
        if time is not None:
            times[version] = time
    return times


def _creation_time(storage: Storage, name: str, version: str) -> datetime.datetime | None:
    if not is_tag_part(version):
        return None
    tag = Tag(name, version)
    try:
        return ModelInfo.parse(tag, storage.read_small(f"{tag.path}/{MODEL_YAML}", MAX_MODEL_YAML)).creation_time
    except StoreError as error:
        log.info("%s is ignored for the latest of %s: %s", tag, name, error)
        return None


def _write(path: str, version: str, temporary: str) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            os.write(descriptor, version.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folder = os.open(os.path.dirname(path), FOLDER)
        try:
            os.rename(temporary, LATEST, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
