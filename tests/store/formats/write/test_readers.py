"""Readers of the written archives: Python and real tools find the original content, and no errors."""

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.registry import BENTOMODEL, FORMATS, TAR, TAR_GZ, ZIP
from tests.store.content import laid_out_as, whole
from tests.store.formats import golden
from tests.store.formats.strategies import member_lists
from tests.store.formats.writers import content_of


@settings(max_examples=25)
@given(members=member_lists(), mtime=st.integers(0, 2**31))
def test_python_reads_back_what_was_put_in(members: list[Member], mtime: int) -> None:
    # A last name with a zip64 locator's signature, just in a locator's place, misleads every reader of zip.
    assume(not any(b"PK\x06\x07" in member.archive_path for member in members))
    wanted = [(member.path, member.is_folder, member.permissions, content_of(member)) for member in members]
    for kind, mode in ((TAR, "r:"), (TAR_GZ, "r:gz"), (BENTOMODEL, "r:xz")):
        archive = io.BytesIO(whole(laid_out_as(kind, members, mtime)))
        with tarfile.open(fileobj=archive, mode=mode, encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            found = []
            for info in tar:
                assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", mtime)
                file = tar.extractfile(info)
                found.append((info.name.removeprefix("./"), info.isdir(), info.mode, file.read() if file else b""))
        assert found == wanted
    with zipfile.ZipFile(io.BytesIO(whole(laid_out_as(ZIP, members, mtime)))) as archive_zip:
        assert archive_zip.testzip() is None
        infos = archive_zip.infolist()
        assert [archive_zip.read(info) for info in infos] == [content for *_, content in wanted]
        assert [info.external_attr >> 16 & 0o777 for info in infos] == [mode for _, _, mode, _ in wanted]
        assert [info.is_dir() for info in infos] == [is_folder for _, is_folder, _, _ in wanted]


@pytest.mark.parametrize(
    ("name", "command", "where"),
    [
        ("bentomodel", "xz -t -v", 0.5),
        ("bentomodel", "xz -l -v -v", 1),
        ("bentomodel", "7z t", 0.5),
        ("tar.gz", "gzip -t -v", 0.5),
        ("tar.gz", "pigz -t -v", 0.5),
        ("tar", "tar -t -v -f", 0),
        ("tar", "bsdtar -t -v -f", 0),
        ("zip", "unzip -t", 0.5),
        ("zip", "zipinfo -v", 1),
        ("zip", "bsdtar -x -O -f", 0.5),
    ],
)
def test_real_tools_find_nothing_wrong(name: str, command: str, where: float, tmp_path: Path) -> None:
    """A real tool finds no error.

    `where`: the part of the length at which the same tool notices a changed byte. That makes its silence meaningful.
    """
    assert shutil.which(command.split()[0]), f"{command.split()[0]} is missing: run ./scripts/test"
    content = whole(laid_out_as(FORMATS[name], golden.members(), golden.MTIME))
    path = tmp_path / ("golden.xz" if name == "bentomodel" else f"golden.{name}")
    path.write_bytes(content)
    code, said = _run(command, path)
    assert code == 0, said
    for complaint in ("warning", "caution", "mismatch", "bad crc", "error:", "not supported"):
        assert complaint not in said.lower(), said
    at = min(max(int(where * len(content)), 30), len(content) - 7)
    path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
    assert _run(command, path)[0] != 0


def _run(command: str, path: Path) -> tuple[int, str]:
    done = subprocess.run(
        [*command.split(), path], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    return done.returncode, done.stderr.decode(errors="replace") + done.stdout[:200_000].decode(errors="replace")
