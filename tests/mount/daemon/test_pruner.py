"""The state that a mount keeps of models shrinks when they go."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from bentofs.mount.daemon.pruner import Pruner
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.storage.local import LocalStorage
from tests.harness import Mounted, make_model, wait_until
from tests.store.upkeep.test_clean import FILES, home, rows, use
from tests.waiting import wait_until_settled

__all__ = ["home"]


def test_models_that_go_take_their_rows_along(store: Path) -> None:
    for number in range(3):
        make_model(store, f"m:v{number}", FILES)
    wait_until_settled(store)
    use(store, "m:v0", "m:v1", "m:v2")
    before = rows()
    pruner = Pruner(str(store), quiet_seconds=0.1)
    models = ModelStore(LocalStorage(str(store)), pruner.note)
    assert len(models.tags()) == 3
    pruner.start(models)
    shutil.rmtree(store / "m" / "v1")
    models.expire("m")
    assert len(models.tags()) == 2
    wait_until(lambda: rows() == before * 2 // 3, 20, "the rows of one model go")
    # Its disk is not mounted: an empty directory is in its place.
    store.rename(store.parent / "unplugged")
    store.mkdir()
    models.expire("m")
    assert models.tags() == []
    pruner.stop()
    assert rows() == before * 2 // 3


def test_stopped_while_it_starts(store: Path) -> None:
    """A mount that ends as soon as it has come up. Another thread starts the pruner."""
    models = ModelStore(LocalStorage(str(store)))
    for _ in range(200):
        pruner = Pruner(None)
        starter = threading.Thread(target=pruner.start, args=(models,))
        starter.start()
        pruner.stop()
        starter.join()


def test_an_old_log_goes_when_a_mount_comes(store: Path, tmp_path: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1")
    folder = tmp_path / "mount-0" / "state" / "bentofs"
    folder.mkdir(parents=True)
    old, young = folder / "0123456789abcdef.log", folder / "fedcba9876543210.log"
    for path in (old, young):
        path.write_text("x")
    os.utime(old, (1_600_000_000,) * 2)
    mounted(store)
    wait_until(lambda: not old.exists(), 20, "the old log goes")
    assert young.exists()
