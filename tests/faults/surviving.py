"""Look at what crashes left in a store and its staging area."""

import os
from pathlib import Path

from tests.harness import Mounted, wait_until
from tests.incoming import area_of, record, staged
from tests.interop.conftest import Judge

ROUNDS = int(os.environ.get("BENTOFS_ROUNDS", "10"))  # kills at random moments; more for a long campaign


def bentoml_lists(store: Path) -> None:
    """Check that both releases read the store. Its home is two folders up."""
    for release in ("1.4", "1.2"):
        Judge(release).describe(store.parent.parent)


def clean_area(mount: Mounted) -> None:
    """Check the staging area after a start: whole uploads are decided, and nothing else is left."""
    area = area_of(mount.store)
    wait_until(lambda: all(receipt.state.ended for receipt in record(mount)), 30, "what was whole is decided")
    assert staged(area) == []
    assert len(list(area.glob("sessions/*"))) == 1
