"""Whether BentoML has finished saving a model.

BentoML fills the model's final folder in place, `model.yaml` first (bentoml/_internal/store.py, `register`). What tells
that it is done differs by release, observed with 1.2.20 and 1.4.39:

- Since 1.4.20 it copies with `shutil.copytree`, which ends by giving the version folder the times of the folder it was
  copied from: the folder's mtime then differs from its ctime. The same copy gives each file its old times, so a
  `model.yaml` whose mtime differs from its ctime was put there by such a release, and its folder must bear the mark.
- Before, nothing sets times, and `latest` is written last: a model is complete that it names and in which nothing is
  younger. A model older than the latest one does not get there: it counts as finished once nothing in it has changed
  for about a minute.

rsync -a, cp -a, tar and unzip leave the mark, too.
"""

from __future__ import annotations

import enum

from bentofs.store.storage.base import Identity

QUIET_NS = 57_000_000_000  # so that, with the delays of caches, a minute after the last change is enough


class State(enum.Enum):
    """How far a version folder is."""

    COMPLETE = "complete"
    UNFINISHED = "unfinished"
    LATEST_DECIDES = "latest"  # complete if `latest` names it since, or once nothing in it has changed for QUIET_NS


def judge(folder: Identity, model_yaml: Identity) -> State:
    """What the times of a version's folder and of its `model.yaml` say."""
    if _bears_copied_times(folder):
        return State.COMPLETE
    if _bears_copied_times(model_yaml):
        return State.UNFINISHED
    return State.LATEST_DECIDES


def _bears_copied_times(identity: Identity) -> bool:
    return identity.mtime_ns != identity.ctime_ns
