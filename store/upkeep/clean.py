"""Clean: tell what bentofs keeps on disk for this user, and remove what is stale.

It is safe beside running daemons, and may be interrupted at any time.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from bentofs.store.archives import index as index_module
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import StoreError, StoreUnreadableError
from bentofs.store.integrity import baseline as baseline_module
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.paths import state_folder
from bentofs.store.staging.area import staging_area
from bentofs.store.staging.leftovers import remove_leftovers, sessions_of
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.open import StoreSpec
from bentofs.store.upkeep.index_pruning import IndexPruning
from bentofs.store.upkeep.report import Kept, Line, size_of_database, size_of_file, size_of_tree
from bentofs.store.util.urls import is_url

log = logging.getLogger(__name__)

_LOG = re.compile(r"[0-9a-f]{16}\.log(\.1)?")
_NOTES = 3  # in one line of the report
OLD_SECONDS = 30 * 86400.0  # after which a log without a mount, and a damaged database, are stale


class Upkeep:
    """One clean-up of all that this user's bentofs keeps on disk."""

    def __init__(
        self,
        stores: Sequence[StoreSpec],
        staging: str | None,
        used_logs: Collection[Path],
        *,
        dry_run: bool,
        gone: bool,
    ) -> None:
        """`stores`: the stores to look at, in addition to the local ones that are known; `staging`: the directory for
        their staging areas that the user named; `used_logs`: of mounts that are there; `dry_run`: only tell; `gone`:
        take a store that is not there for removed, not for one whose disk is not mounted."""
        self._named = {store.location: store for store in stores}
        self._staging = staging
        self._used_logs = used_logs
        self._dry_run = dry_run
        self._gone = gone

    def run(self) -> Iterator[Line]:
        """Yield a line for each thing on disk, when it is done with it.

        Raises:
            StoreError: a named store cannot be read, or a database is in use.
        """
        index, baseline = index_module.default_path(), baseline_module.default_path()
        locations = dict.fromkeys(self._named)
        if baseline.exists():
            with closing(Baseline(baseline)) as digests:
                locations |= dict.fromkeys(digests.stores())
        if index.exists():
            with closing(IndexPruning(index)) as pruning:
                locations |= dict.fromkeys(pruning.stores())
                yield self._clean_index(index, pruning, list(locations))
        if baseline.exists():
            with closing(Baseline(baseline)) as digests:
                yield self._clean_baseline(baseline, digests, list(locations))
        for path in (index, baseline):
            yield from self._clean_damaged(path)
        yield from clean_logs(self._used_logs, dry_run=self._dry_run)
        yield from self._clean_staging(list(locations))

    def _clean_index(self, path: Path, pruning: IndexPruning, locations: Sequence[str]) -> Line:
        size, rows, looked_at, notes = size_of_database(path), pruning.rows(), [], []
        for location in locations:
            models = self._models(location)
            if models is not None:
                try:
                    pruning.spare(models.models())
                except StoreUnreadableError as error:  # nobody knows which models are gone
                    notes.append(f"{location} was not looked at: {error}")
                else:
                    looked_at.append(location)
            elif self._gone and not is_url(location) and not os.path.lexists(location):
                looked_at.append(location)
            else:
                notes.append(f"{location} was not looked at")
        stale = pruning.stale_rows(looked_at)
        if not self._dry_run and stale:
            pruning.remove(looked_at)
            pruning.shrink()
        left = size if self._dry_run else size_of_database(path)
        notes.insert(0, f"{rows:,} rows, {stale:,} of files and models that are gone")
        return Line(Kept.INDEX, str(path), size, size * stale // rows if rows else 0, left, _joined(notes))

    def _clean_baseline(self, path: Path, digests: Baseline, locations: Sequence[str]) -> Line:
        size, rows, stale, notes = size_of_database(path), 0, 0, []
        for location in locations:
            counts = digests.rows_by_tag(location)
            rows += sum(counts.values())
            if not counts:
                continue
            reason = why_kept(location, digests, gone=self._gone)
            if reason:
                notes.append(f"{location} {reason}: its records are kept")
                continue
            for tag, count in counts.items():
                if _is_gone(_folder(location, tag)):
                    stale += count
                    if not self._dry_run:
                        forget_model(location, tag, digests)
        if stale and not self._dry_run:
            digests.shrink()
        left = size if self._dry_run else size_of_database(path)
        notes.insert(0, f"{rows:,} files, {stale:,} of models that are gone")
        return Line(Kept.BASELINE, str(path), size, size * stale // rows if rows else 0, left, _joined(notes))

    def _models(self, location: str) -> ModelStore | None:
        """Open a store's catalogue. Return None if the store is not at hand."""
        named = self._named.get(location)
        if named is not None and named.folder is None:
            return ModelStore(named.open())
        if is_url(location):
            return None
        # With links followed, so that every file that some mount shows counts as there.
        models = ModelStore(LocalStorage(location, follow_links=True))
        try:
            models.names()
        except StoreError:
            return None
        return models

    def _clean_damaged(self, path: Path) -> Iterator[Line]:
        """Remove the copies of damaged databases, a month after nobody wanted them."""
        for found in sorted(path.parent.glob(f"{path.name}.damaged*")):
            yield _old_file(Kept.DAMAGED, found, "set aside, since it could not be read", dry_run=self._dry_run)

    def _clean_staging(self, locations: Sequence[str]) -> Iterator[Line]:
        areas = {
            staging_area(
                location, None if is_url(location) else location, self._staging if location in self._named else None
            ).path
            for location in locations
        }
        areas |= {str(path) for path in state_folder().glob("*.bentofs") if not path.is_symlink()}
        for path in sorted(filter(os.path.isdir, areas)):
            size, sessions = size_of_tree(path), sessions_of(path)
            stale = sum(size_of_tree(session.leftovers) for session in sessions if session.leftovers)
            if not self._dry_run:
                for session in sessions:
                    if session.leftovers:
                        remove_leftovers(path, session)
            notes = [
                (sum(session.is_alive for session in sessions), "in use"),
                (sum(session.has_uploads and not session.is_alive for session in sessions), "with uploads to resume"),
                (
                    sum(session.has_intents and not session.is_alive for session in sessions),
                    "for the next import to settle",
                ),
                (sum(session.leftovers is not None for session in sessions), "with leftovers"),
            ]
            note = ", ".join(f"{count} {what}" for count, what in notes if count)
            left = size if self._dry_run else size_of_tree(path)
            yield Line(Kept.STAGING, path, size, stale, left, f"sessions: {note}" if note else "the record of imports")


def clean_logs(used: Collection[Path], *, dry_run: bool = False) -> Iterator[Line]:
    """Remove the logs of mounts that are not there, a month after their last line. `used`: the logs of mounts that are
    there."""
    names, folder = {path.name for path in used}, state_folder()
    if not folder.is_dir() or folder.stat().st_uid != os.geteuid():  # under sudo, with another user's home
        return
    for path in sorted(filter(is_log, folder.glob("*.log*"))):
        if path.name.removesuffix(".1") in names:
            size = size_of_file(path)
            yield Line(Kept.LOG, str(path), size, 0, size, "its mount is there")
        else:
            yield _old_file(Kept.LOG, path, "its mount is not there", dry_run=dry_run)


def prune_store(location: str, models: ModelStore, gone: Collection[str], is_ending: Callable[[], bool]) -> int:
    """Remove what the index keeps of files that a local store has no more, and the baseline of models that are gone.
    Return the number of rows. `gone`: the tags of these models; `is_ending`: called after each
    look at a model, to end early.

    Raises:
        StoreError: the store cannot be read, or a database is in use.
    """
    rows = 0
    with closing(IndexPruning(index_module.default_path())) as pruning:
        pruning.spare(itertools.takewhile(lambda _model: not is_ending(), models.models()))
        if is_ending():
            return 0
        rows += pruning.remove([location], unowned=False)
        if rows:
            pruning.shrink()
    with closing(Baseline()) as baseline:
        if not why_kept(location, baseline):
            forgotten = sum(forget_model(location, tag, baseline) for tag in gone)
            if forgotten:
                baseline.shrink()
            rows += forgotten
    return rows


def _old_file(kept: Kept, path: Path, note: str, *, dry_run: bool) -> Line:
    """Remove a file that nobody has written to for a month."""
    size, is_old = size_of_file(path), False
    with suppress(FileNotFoundError):
        is_old = time.time() - path.lstat().st_mtime > OLD_SECONDS
    if is_old and not dry_run:
        with suppress(FileNotFoundError):
            path.unlink()
    stale = size if is_old else 0
    return Line(
        kept, str(path), size, stale, size if dry_run else size - stale, f"{note}, for 30 days" if is_old else note
    )


def is_log(path: Path) -> bool:
    """True for the log of a mount in the state directory, or the older part of one."""
    return _LOG.fullmatch(path.name) is not None


def why_kept(location: str, digests: Baseline, *, gone: bool = False) -> str:
    """Return why a store's records must be kept, whatever models are there; "" if its models decide.

    A baseline cannot be made again. The disk of a store may not be mounted now: then the store's directory is missing,
    or is another one and empty. `gone`: take such a store for removed."""
    if is_url(location):
        return "is not on this machine"
    try:
        names, inode = os.listdir(location), os.stat(location).st_ino
    except FileNotFoundError:
        return "" if gone else "is not there (--gone-stores removes them)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if names or gone or digests.root_inode(location) == inode:
        return ""
    return "is empty, and was another directory (--gone-stores removes them)"


def forget_model(location: str, tag: str, digests: Baseline) -> int:
    """Remove the records of a local store's model if it is gone. Return how many."""
    folder = _folder(location, tag)
    return digests.forget(location, tag, lambda: _is_gone(folder))


def _folder(location: str, tag: str) -> str:
    return os.path.join(location, tag.replace(":", "/", 1))


def _joined(notes: Sequence[str]) -> str:
    """Join notes into one text, the first ones only."""
    more = len(notes) - _NOTES
    return "; ".join([*notes[:_NOTES], *([f"{more} more stores like that"] if more > 0 else [])])


def _is_gone(folder: str) -> bool:
    """True if nothing is at a path for certain."""
    try:
        os.lstat(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
