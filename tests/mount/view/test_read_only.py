"""All writes are answered with EROFS."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines import BOTH
from tests.harness import Mounted, make_model


@pytest.fixture(scope="module", params=BOTH)
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    base = tmp_path_factory.mktemp("read-only")
    make_model(base / "bentoml" / "models", "m:v1", {"w": b"w", "sub/x": b"x"})
    with Mounted(base / "bentoml" / "models", base, options=request.param) as mounted:
        yield mounted


FILE = "models/m/v1/m-v1.tar"
FOLDER = "models/m/v1"
LINK = "models/m/latest"

Attempt = Callable[[Path], object]
ATTEMPTS: dict[str, Attempt] = {
    "open for writing": lambda top: os.open(top / FILE, os.O_WRONLY),
    "open for both": lambda top: os.open(top / FILE, os.O_RDWR),
    "open for appending": lambda top: os.open(top / FILE, os.O_WRONLY | os.O_APPEND),
    "truncating open": lambda top: os.open(top / FILE, os.O_WRONLY | os.O_TRUNC),
    "truncate": lambda top: os.truncate(top / FILE, 0),
    "create": lambda top: os.open(top / FOLDER / "new", os.O_WRONLY | os.O_CREAT),
    "create at the top": lambda top: os.open(top / "new", os.O_WRONLY | os.O_CREAT),
    "create in files": lambda top: os.open(top / FOLDER / "files/new", os.O_WRONLY | os.O_CREAT),
    "unlink": lambda top: os.unlink(top / FILE),
    "unlink a file of the model": lambda top: os.unlink(top / FOLDER / "files/w"),
    "unlink a link": lambda top: os.unlink(top / LINK),
    "mkdir": lambda top: os.mkdir(top / FOLDER / "new"),
    "rmdir": lambda top: os.rmdir(top / FOLDER / "files/sub"),
    "rename": lambda top: os.rename(top / FILE, top / FOLDER / "new"),
    "rename over": lambda top: os.rename(top / FILE, top / FOLDER / "m-v1.zip"),
    "link": lambda top: os.link(top / FILE, top / FOLDER / "new"),
    "symlink": lambda top: os.symlink("x", top / FOLDER / "new"),
    "mkfifo": lambda top: os.mkfifo(top / FOLDER / "new"),
    "chmod": lambda top: os.chmod(top / FILE, 0o600),
    "chown": lambda top: os.chown(top / FILE, 1, 1),
    "utime": lambda top: os.utime(top / FILE, (1, 1)),
    "setxattr": lambda top: os.setxattr(top / FILE, "user.x", b"y"),
    "removexattr": lambda top: os.removexattr(top / FILE, "user.x"),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_refused(mount: Mounted, name: str) -> None:
    before = sorted(str(path) for path in mount.path.rglob("*"))
    with pytest.raises(OSError, match="Read-only file system") as raised:
        ATTEMPTS[name](mount.path)
    assert raised.value.errno == errno.EROFS
    assert sorted(str(path) for path in mount.path.rglob("*")) == before
    assert sorted(path.name for path in (mount.store / "m/v1").iterdir()) == ["model.yaml", "sub", "w"]


def test_access(mount: Mounted) -> None:
    assert os.access(mount.path / FILE, os.R_OK)
    assert not os.access(mount.path / FILE, os.W_OK)
    assert not os.access(mount.path / FILE, os.X_OK)
    assert os.access(mount.path / FOLDER, os.X_OK)


def test_wrong_kind(mount: Mounted) -> None:
    with pytest.raises(IsADirectoryError):
        os.open(mount.path / FOLDER, os.O_WRONLY)
    with pytest.raises(NotADirectoryError):
        os.listdir(mount.path / FILE)
    with pytest.raises(FileNotFoundError):
        os.stat(mount.path / "models/m/v1/m-v2.tar")
    with pytest.raises(NotADirectoryError):
        os.stat(mount.path / FILE / "below")
    with pytest.raises(OSError, match=r"No data available|not supported"):
        os.getxattr(mount.path / FILE, "user.x")
