"""`by-label/` links to the models that have a label."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.mount.view.by_label import shown_label
from tests.harness import Mounted, make_model, run, wait_until

ODD = {"team/sub": "a b", "empty": "", "dots": "..", "größe": "50%\n", "long": "x" * 300}


def test_models_are_found_by_label(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "a-b:c", {"w": b"1"}, labels={"stage": "prod"})
    make_model(store, "a:b-c", {"w": b"2"}, labels={"stage": "prod"})
    make_model(store, "m:v1", {"w": b"3"}, labels={"stage": "prod", **ODD})
    make_model(store, "m:v2", {"w": b"4"}, labels={"stage": "test"})
    make_model(store, "plain:v1", {"w": b"5"})
    mount = mounted(store, options=["--by-label"])
    top = mount.path / "by-label"
    assert "by-label" in os.listdir(mount.path)
    assert "by-label/KEY/VALUE" in (mount.path / "README.txt").read_text()
    assert tree(top) == {
        "dots/%2E%2E/m/v1",
        "empty/%/m/v1",
        "gr%C3%B6%C3%9Fe/50%25%0A/m/v1",
        "stage/prod/a-b/c",
        "stage/prod/a/b-c",
        "stage/prod/m/v1",
        "stage/test/m/v2",
        "team%2Fsub/a b/m/v1",
    }
    assert os.readlink(top / "stage/prod/m/v1") == "../../../../models/m/v1"
    assert (top / "stage/prod/a-b/c/files/w").read_bytes() == b"1"
    assert (top / "stage/prod/a/b-c/files/w").read_bytes() == b"2"
    assert run("find", "-L", top / "stage/test", "-name", "*.zip").stdout.endswith("/m/v2/m-v2.zip\n")
    for missing in ("stage/no", "no", "stage/prod/m/v2", "stage/prod/m/v1x"):
        assert not os.path.lexists(top / missing)
    with pytest.raises(OSError, match="Read-only"):
        (top / "stage" / "new").mkdir()

    shutil.rmtree(store / "m" / "v1")
    make_model(store, "new:v1", {"w": b"6"}, labels={"stage": "test"})
    wait_until(
        lambda: tree(top / "stage") == {"prod/a-b/c", "prod/a/b-c", "test/m/v2", "test/new/v1"}, 20, "the change"
    )
    assert "empty" not in os.listdir(top)


def tree(top: Path) -> set[str]:
    """Return the paths of all links."""
    return {
        str(Path(folder, name).relative_to(top))
        for folder, names, _ in os.walk(top)
        for name in names
        if is_link(folder, name)
    }


def is_link(folder: str, name: str) -> bool:
    return os.path.islink(os.path.join(folder, name))


def test_it_is_an_option(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", labels={"stage": "prod"})
    mount = mounted(store)
    assert not os.path.lexists(mount.path / "by-label")


def test_names_are_unlike_for_unlike_texts() -> None:
    texts = ["", "%", ".", "..", "%2E", "/", "%2F", " ", "a", "A", "ä", "\x00", "\ud800", "\udcff", "%25"]
    names = [shown_label(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert all(name and "/" not in name and "\0" not in name and name not in (".", "..") for name in names)
    assert shown_label("x" * 256) is None
