"""Tars that GNU tar and bsdtar read alike are read the same way. No tar is read differently from both."""

import gzip
import io
import os
import tarfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.errors import StoreError
from tests.store.formats.raw_tar import (
    END,
    GNU,
    SPARSE_KINDS,
    USTAR,
    V7,
    Contents,
    extended,
    header,
    judged,
    long_name,
    member,
    sparse,
)
from tests.store.formats.unpacking import MODEL_YAML, unpacked

_TOOLS = (("tar",), ("bsdtar",))
_ROUNDS = int(os.environ.get("BENTOFS_ROUNDS", "1"))  # more for a campaign
_MAGICS = st.sampled_from([USTAR, GNU, V7, b"ustar\x00  "])
# Each name has its own kind. A path that is both a file and a directory is refused, whatever tools make of it.
_FILES = st.sampled_from([b"a", b"b", b"./c", b"d/e", b"d//f", b"\xc3\xbc", b"n" * 100])
_FOLDERS = st.sampled_from([b"g/", b"d/", b"./h/i/"])
_HARD_LINKS = st.sampled_from([b"l", b"d/l", b"./m"])
_SYMLINKS = st.sampled_from([b"s", b"./s", b"t"])
_CONTENT = st.binary(max_size=5) | st.just(b"x" * 512) | st.just(b"y" * 1025)


@st.composite
def _before(draw: st.DrawFn, names: st.SearchStrategy[bytes]) -> bytes:
    """Draw headers that may precede a member's own header."""
    name = draw(names)
    return draw(
        st.sampled_from(
            [
                b"",
                long_name(name),
                long_name(draw(names)) + long_name(name),
                long_name(b"a", b"K"),
                extended((b"path", name)),
                extended((b"path", name), kind=b"X"),
                extended((b"mtime", b"1.5"), (b"path", draw(names)), (b"path", name)),
                long_name(name) + extended((b"path", name)),
                extended((b"path", name)) + long_name(name),
                extended((b"comment", b"x"), kind=b"g"),
                member(b"a label", b"", b"V", magic=GNU),
                extended((b"path", name)) + extended((b"mtime", b"1")),
            ]
        )
    )


@st.composite
def _member(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([b"0", b"0", b"0", b"\0", b"7", b"5", b"2", b"1", b"sparse", b"old folder"]))
    names = {b"5": _FOLDERS, b"old folder": _FOLDERS, b"1": _HARD_LINKS, b"2": _SYMLINKS}.get(kind, _FILES)
    if kind == b"sparse":
        return draw(sparse_files(draw(names)))
    kind = kind if len(kind) == 1 else b"0"
    name, magic = draw(names), draw(_MAGICS)
    more: dict[str, Any] = {"magic": magic, "mode": draw(st.sampled_from([0o644, 0o755]))}
    if magic == USTAR or draw(st.booleans()):
        # With GNU's own magic this is a time, and bsdtar checks its format.
        more["prefix"] = draw(st.sampled_from([b"", b"p", b"p/q"])) if magic != GNU else b"14524770542"
    content = draw(_CONTENT) if names is _FILES else b""
    if kind == b"5" and draw(st.booleans()):
        return header(name, 512, kind, **more)  # the size means no content
    link = {b"1": draw(_FILES), b"2": b"model.yaml"}.get(kind, b"")
    return draw(_before(names)) + member(name, content, kind, link=link, **more)


@st.composite
def sparse_files(draw: st.DrawFn, name: bytes = b"sparse") -> bytes:
    """Draw a sparse file of any kind: regions of whole blocks, except the last."""
    end, regions = 0, []
    for _ in range(draw(st.integers(0, 60))):
        offset = end + 512 * draw(st.integers(0, 3))
        content = draw(st.sampled_from([b"a", b"b"])) * (512 * draw(st.integers(1, 2)))
        regions.append((offset, content))
        end = offset + len(content)
    if draw(st.booleans()):
        regions.append((end + 512, b"last"))
        end += 516
    size = end + draw(st.integers(0, 1000))
    if not regions or size > end:
        regions.append((size, b""))  # without it, GNU tar leaves out the hole at the end, but bsdtar does not
    return sparse(draw(st.sampled_from(SPARSE_KINDS)), name, size, regions)


_ENDS = st.sampled_from(
    [END, bytes(512), END + b"rest of a record", bytes(512) + member(b"not", b"any more") + END, b""]
)


def _ours(archive: bytes) -> Contents | None:
    try:
        return {path: content for path, (content, _) in unpacked(archive).items()}
    except StoreError:
        return None


def _agrees(archive: bytes) -> None:
    found = _ours(archive)
    verdicts = [judged(tool, archive) for tool in _TOOLS]
    for tool, (is_content, tree) in zip(_TOOLS, verdicts, strict=True):
        assert found is None or not is_content or found == tree, tool
    if all(is_content and tree == verdicts[0][1] for is_content, tree in verdicts):
        assert found is not None, "both of them read it alike"


_YAML = member(b"model.yaml", MODEL_YAML)


@settings(max_examples=40 * _ROUNDS)
@given(members=st.lists(_member(), max_size=4), end=_ENDS)
def test_headers_of_all_kinds(members: list[bytes], end: bytes) -> None:
    _agrees(gzip.compress(b"".join([_YAML, *members]) + end, 1))


@settings(max_examples=20 * _ROUNDS)
@given(file=sparse_files(), behind=st.booleans())
def test_sparse_files(file: bytes, behind: bool) -> None:
    _agrees(_YAML + file + (member(b"behind", b"x") if behind else b"") + END)


@settings(max_examples=20 * _ROUNDS)
@given(data=st.data())
def test_sparse_files_with_changed_bytes(data: st.DataObject) -> None:
    """The checksum of old maps is corrected. Maps in pax have none."""
    file = bytearray(data.draw(sparse_files()))
    at = data.draw(st.integers(0, min(len(file), 2048) - 1))
    file[at : at + 1] = data.draw(st.sampled_from([b"0", b"1", b"7", b"9", b",", b"\n", b"\0"]))
    if at < 512:
        file[148:156] = b" " * 8
        file[148:156] = b"%06o\0 " % sum(file[:512])
    archive = _YAML + bytes(file) + END
    found = _ours(archive)
    for tool in _TOOLS:
        is_content, tree = judged(tool, archive)
        assert found is None or not is_content or found == tree, tool


@settings(max_examples=100 * _ROUNDS)
@given(members=st.lists(_member(), min_size=1, max_size=3), data=st.data())
def test_changed_bytes_are_read_or_refused(members: list[bytes], data: st.DataObject) -> None:
    """Changed bytes with a valid checksum cause no other error."""
    archive = bytearray(b"".join([_YAML, *members]) + END)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at : at + 1] = data.draw(
            st.sampled_from([b"0", b"9", b" ", b"\0", b"\n", b"=", b"-", b"\xff", b"\x80", b"S"])
        )
        start = at // 512 * 512
        if archive[start + 257 : start + 262] == b"ustar":
            archive[start + 148 : start + 156] = b" " * 8
            archive[start + 148 : start + 156] = b"%06o\0 " % sum(archive[start : start + 512])
    _ours(bytes(archive))


_PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda part: part not in (".", "..") and len(part.encode()) < 250
)
_PATHS = st.lists(_PARTS, min_size=1, max_size=6).map("/".join).filter(lambda path: not path.startswith("model.yaml"))


@settings(max_examples=60 * _ROUNDS)
@given(
    files=st.dictionaries(_PATHS, st.binary(max_size=1500), max_size=5),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    mtime=st.integers(-100, 1 << 40) | st.floats(0, 1e9),
    owner=st.integers(0, 1 << 31),
)
def test_what_tarfile_writes(files: dict[str, bytes], form: int, mtime: float, owner: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as archive:
        for path, content in {"model.yaml": MODEL_YAML, **files}.items():
            info = tarfile.TarInfo(path)
            info.size, info.mtime, info.uid, info.uname = len(content), mtime, owner, "\u00fcser"
            archive.addfile(info, io.BytesIO(content))
    paths = {path for path in files if not any(path.startswith(f"{other}/") for other in files)}
    if len(paths) < len(files):  # one path is a directory and a file
        return
    found = {path: content for path, content in (_ours(buffer.getvalue()) or {}).items() if content is not None}
    assert found == {"model.yaml": MODEL_YAML, **files}
