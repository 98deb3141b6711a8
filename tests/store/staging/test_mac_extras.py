"""Files that macOS adds to archives and directories are not part of a model, whatever way it comes."""

import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.staging.folder import stage_folder
from bentofs.store.staging.limits import Limits
from bentofs.store.staging.model import Staged
from tests.store.formats.unpacking import MODEL_YAML, unpack

_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        "  # the begin of AppleDouble
_EXTRAS = {
    "._.": _DOUBLE,
    "._model.yaml": _DOUBLE,
    "._sub": _DOUBLE,
    "sub/._w": _DOUBLE,
    "sub/._._w": _DOUBLE,
    ".DS_Store": b"\0\0\0\1Bud1",
    "sub/.DS_Store": b"",
    "__MACOSX/._model.yaml": _DOUBLE,
    "__MACOSX/sub/._w": _DOUBLE,
}
_MODEL = {
    "model.yaml": MODEL_YAML,
    "sub/w": b"w",
    "._t": b"\0\5\x16\6 no magic",
    "t": b"t",
    "._alone": _DOUBLE,
    "._": _DOUBLE,
    "sub/._short": b"\0\5\x16",
    "sub/short": b"",
    "__MACOSX.txt": b"text",
    "with/__MACOSX/notes.txt": b"mine",
    "empty/x/DS_Store": b"",
}


def _tar(files: dict[str, bytes], top: str) -> bytes:
    """Return a tar with the extras first, like macOS."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(top + path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _zip(files: dict[str, bytes], top: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in files.items():
            archive.writestr(top + path, content)
    return buffer.getvalue()


def _folder(files: dict[str, bytes], folder: Path) -> Staged:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return stage_folder(str(folder), Limits(), 0o022, lambda _info, _content: None)


def _holds(staged: Staged) -> dict[str, bytes]:
    top = Path(staged.path)
    assert not any(path.name == "__MACOSX" and not any(path.iterdir()) for path in top.rglob("*"))
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", [_tar, _zip])
@pytest.mark.parametrize("top", ["", "iris/"])
def test_archives(tmp_path: Path, make: Callable[[dict[str, bytes], str], bytes], top: str) -> None:
    staged = unpack(make({**_EXTRAS, **_MODEL}, top), tmp_path / "staged")
    assert _holds(staged) == _MODEL
    assert staged.files.keys() == _MODEL.keys()
    assert staged.left_out is not None
    assert staged.left_out.startswith("left out 9 files that macOS adds: ")
    assert unpack(make(_MODEL, top), tmp_path / "plain").left_out is None


def test_folders(tmp_path: Path) -> None:
    staged = _folder({**_EXTRAS, **_MODEL}, tmp_path / "iris")
    assert _holds(staged) == _MODEL
    assert staged.files.keys() == _MODEL.keys()
    assert staged.left_out == "left out 9 files that macOS adds: .DS_Store, ._., ._model.yaml, ..."
    assert _folder(_MODEL, tmp_path / "plain").left_out is None


def test_what_macos_adds_beside_the_top_folder(tmp_path: Path) -> None:
    packed = _tar({"._iris": _DOUBLE, "iris/model.yaml": MODEL_YAML, "__MACOSX/iris/._model.yaml": _DOUBLE}, "")
    staged = unpack(packed, tmp_path / "staged")
    assert _holds(staged) == {"model.yaml": MODEL_YAML}


def test_links_to_extras_and_extras_that_are_links(tmp_path: Path) -> None:
    """A link counts as its target at the end."""
    folder = tmp_path / "iris"
    folder.mkdir()
    for path, content in {"model.yaml": MODEL_YAML, "x": b"x", "._x": _DOUBLE, "y": b"y"}.items():
        (folder / path).write_bytes(content)
    (folder / "z").symlink_to("._x")
    (folder / "._y").symlink_to("._x")
    subprocess.run(["tar", "-cf", tmp_path / "a.tar", "-C", folder, "."], check=True)
    staged = unpack(tmp_path / "a.tar", tmp_path / "staged")
    assert _holds(staged) == {"model.yaml": MODEL_YAML, "x": b"x", "y": b"y", "z": _DOUBLE}
