"""The options that select the store, and how they are passed on."""

from pathlib import Path

import pytest

from bentofs.mount.cli.options import arguments_for
from bentofs.store.storage.open import StoreSpec


def test_files_are_found_by_a_daemon_that_works_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    place = StoreSpec.named("sftp://host/models?identity=key", options={"known_hosts": "~/known", "timeout": 3})
    arguments = arguments_for(place)
    assert f'identity="{tmp_path}/key"' in arguments
    assert 'known_hosts="/home/me/known"' in arguments
    assert "timeout=3" in arguments
