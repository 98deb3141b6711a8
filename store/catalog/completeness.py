"""Decide whether BentoML has finished saving a model.

BentoML fills the model's final directory in place, `model.yaml` first (bentoml/_internal/store.py, `register`). The
sign of completion depends on the release (observed with 1.2.20 and 1.4.39):

- Since 1.4.20, BentoML copies with `shutil.copytree`. Its last step copies the times of the source directory to
  the version directory. So the directory's mtime then differs from its ctime: this is the mark. The same copy sets the
  old times of each file. So a `model.yaml` whose mtime differs from its ctime was written by such a release, and its
  directory must have the mark.
- Before, nothing sets times, and `latest` is written last. A model is complete if `latest` names it and nothing in it
  is younger than `latest`. A model older than the latest one is never named: it counts as finished once nothing in it
  has changed for about a minute.

rsync -a, cp -a, tar and unzip leave the mark, too.
"""

from __future__ import annotations

import enum

from bentofs.store.storage.base import Identity

QUIET_NS = 57_000_000_000  # with the delays of caches, this gives a minute after the last change


class Completeness(enum.Enum):
    """The state of a version directory."""

    COMPLETE = "complete"
    UNFINISHED = "unfinished"
    LATEST_DECIDES = "latest"  # complete once a later `latest` names it, or nothing changed for QUIET_NS


def judge(folder: Identity, model_yaml: Identity) -> Completeness:
    """Judge a version by the times of its directory and of its `model.yaml`."""
    if _bears_copied_times(folder):
        return Completeness.COMPLETE
    if _bears_copied_times(model_yaml):
        return Completeness.UNFINISHED
    return Completeness.LATEST_DECIDES


def _bears_copied_times(identity: Identity) -> bool:
    return identity.mtime_ns != identity.ctime_ns
