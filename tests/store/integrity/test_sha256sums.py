"""Files of SHA-256 sums, as the tools of all systems write them."""

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.integrity.sha256sums import MAX_SUMS, read_sums, read_sums_beside, write_sums

_DIGEST = hashlib.sha256(b"x").hexdigest()
_OTHER = hashlib.sha256(b"y").hexdigest()
_UPPER = _DIGEST.upper()


@given(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1))
def test_ours(name: str) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    content = write_sums(digest, name)
    assert read_sums(content).by_path[name] == digest
    assert read_sums_beside(content, name) == {digest}


@pytest.mark.parametrize("option", ["--text", "--binary", "--tag", "--zero"])
def test_sha256sum(tmp_path: Path, option: str) -> None:
    sums = {}
    for path in ("x", "a b", "(x) = y", "back\\slash", "new\nline", "sub/x", "sub/deep/z", "caf\u00e9", '"quoted"'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
        sums[path] = hashlib.sha256(path.encode()).hexdigest()
    told = subprocess.run(["sha256sum", option, "./x", *list(sums)[1:]], cwd=tmp_path, capture_output=True, check=True)
    found = read_sums(told.stdout).by_path
    assert found.items() >= {**sums, "z": sums["sub/deep/z"]}.items()
    assert set(found) - set(sums) <= {"z", "quoted"}


@pytest.mark.parametrize(
    "command",
    [
        "busybox sha256sum x.zip",
        "shasum -a 256 x.zip",
        "openssl dgst -sha256 x.zip",
        "openssl dgst -sha256 -r x.zip",
        "openssl dgst -sha256 < x.zip",
        "7z h -scrcSHA256 x.zip",
        "busybox sha256sum < x.zip",
    ],
)
def test_other_tools(tmp_path: Path, command: str) -> None:
    (tmp_path / "x.zip").write_bytes(b"x")
    told = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True).stdout
    for content in (told, told.replace(b"\n", b"\r\n")):
        assert read_sums_beside(content, "x.zip") == {_DIGEST}


def _table(path: str, *more: str) -> str:
    """Return the output of `Get-FileHash x.zip | Out-File x.zip.sha256`; `>` writes the same."""
    lines = [
        "",
        "Algorithm       Hash                                                                   Path",
        "---------       ----                                                                   ----",
        *(f"SHA256          {_UPPER}       {each}".rstrip() for each in (path, *more)),
        "",
        "",
        "",
    ]
    return "\r\n".join(lines)


_WINDOWS = {
    "coreutils": f"{_DIGEST}  x.zip\r\n",
    "upper case": f"{_UPPER} *x.zip\r\n",
    "a path": f"{_DIGEST}  .\\x.zip\r\n",
    "a full path": f"{_DIGEST}  C:\\Users\\me\\x.zip\r\n",
    "a name in quotes": f'{_DIGEST}  "C:\\my files\\x.zip"\r\n',
    "BSD": f"SHA256 (.\\x.zip) = {_DIGEST}\r\n",
    "alone": f"{_UPPER}\r\n",
    "alone, unended": _UPPER,
    "base64": f"{base64.b64encode(bytes.fromhex(_DIGEST)).decode()}  x.zip\n",
    "Get-FileHash": _table("C:\\Users\\me\\x.zip"),
    "Get-FileHash on a narrow console": _table(""),
    "Get-FileHash of a long path": _table("C:\\Users\\me\\a long path to wh..."),
    "Get-FileHash | Format-List": "\r\n\r\nAlgorithm : SHA256\r\n"
    f"Hash      : {_UPPER}\r\nPath      : C:\\x\\x.zip\r\n\r\n",
    "Get-FileHash | ConvertTo-Csv": "#TYPE Microsoft.PowerShell.Utility.FileHash\r\n"
    f'"Algorithm","Hash","Path"\r\n"SHA256","{_UPPER}","C:\\x\\x.zip"\r\n',
    "Get-FileHash | ConvertTo-Json": json.dumps({"Algorithm": "SHA256", "Hash": _UPPER, "Path": "C:\\x\\x.zip"}),
    "certutil": f"SHA256 hash of x.zip:\r\n{_DIGEST}\r\nCertUtil: -hashfile command completed successfully.\r\n",
    "certutil of Windows 7": f"SHA256 hash of file x.zip:\r\n{bytes.fromhex(_DIGEST).hex(' ')}\r\n"
    "CertUtil: -hashfile command completed successfully.\r\n",
    "comments": f"; made by a tool\r\n# 2026\r\n{_DIGEST} *x.zip\r\n",
    "the name first": f"x.zip: {_DIGEST}\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be with a mark", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("form", _WINDOWS)
def test_windows(form: str, encoding: str) -> None:
    text = _WINDOWS[form]
    content = ("\ufeff" + text).encode("utf-16-be") if "mark" in encoding else text.encode(encoding)
    assert read_sums_beside(content, "x.zip") == {_DIGEST}


def test_names_of_windows_in_a_list() -> None:
    listed = f"{_DIGEST} *sub\\a.tar\r\n{_OTHER} *.\\b.tar\r\n".encode("utf-16")
    found = read_sums(listed).by_path
    assert (found["sub/a.tar"], found["a.tar"], found["b.tar"]) == (_DIGEST, _DIGEST, _OTHER)
    many = _table("C:\\x\\a.tar", "C:\\x\\b.tar").encode()
    assert read_sums(many).by_path.items() >= {"a.tar": _DIGEST, "b.tar": _DIGEST}.items()


def test_folders() -> None:
    assert read_sums(f"{_DIGEST}  /backup/x.zip\n".encode()).by_path["x.zip"] == _DIGEST
    two = read_sums(f"{_DIGEST}  a/x.zip\n{_OTHER}  b/x.zip\nnonsense\n".encode())
    assert two.by_path == {"a/x.zip": _DIGEST, "b/x.zip": _OTHER}


def test_other_names() -> None:
    """A single digest beside an archive is the archive's, whatever its name was. Several digests are of other files."""
    one, two = f"{_DIGEST}  x.zip\n", f"{_OTHER}  y.zip\n"
    assert read_sums_beside(one.encode(), "renamed.zip") == {_DIGEST}
    assert read_sums_beside((one + two).encode(), "y.zip") == {_OTHER}
    assert read_sums_beside((one + two).encode(), "renamed.zip") == set()
    shortened = _table("C:\\a long pa...").replace(_UPPER, _OTHER) + _table("C:\\another pa...")
    assert read_sums_beside(shortened.encode(), "x.zip") == {_DIGEST, _OTHER}


@pytest.mark.parametrize(
    "text",
    [
        f"{hashlib.sha512(b'x').hexdigest()}  x.zip\n",
        f"{hashlib.md5(b'x').hexdigest()}  x.zip\n",
        f"{_DIGEST[:40]}",
        f"{_DIGEST[:-1]}  x.zip\n",
        f"SHA512 (x.zip) = {hashlib.sha512(b'x').hexdigest()}\n",
        f"Algorithm Hash\r\nSHA1      {hashlib.sha1(b'x').hexdigest()}\r\n",
    ],
)
def test_a_checksum_that_cannot_be_read_is_an_error(text: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        with pytest.raises(DamagedArchiveError, match=r"^x\.zip\.sha256 beside it names a checksum"):
            read_sums_beside(text.encode(encoding), "x.zip")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"\r\n",
        b"404: Not Found",
        b"not there yet\n",
        f"<!DOCTYPE html><script src=main.{_DIGEST}.js></script>".encode(),
        f"\n<html><!-- {_DIGEST[:40]} --></html>".encode(),
        f'{{"error": "not found", "request": "{_DIGEST[:32]}"}}'.encode(),
    ],
)
def test_what_names_no_checksum_states_nothing(content: bytes) -> None:
    assert read_sums_beside(content, "x.zip") == set()


@pytest.mark.parametrize(
    "start",
    ["", "SHA256 (", f"SHA256 {_DIGEST}", f'"SHA256","{_DIGEST}",', f"Hash : {_DIGEST}\nPath :", f"{_DIGEST}", "\\"],
)
@pytest.mark.parametrize("filling", [" ", "a", "\\n", ") = ", "\t\r"])
def test_long_lines_take_no_long_time(start: str, filling: str) -> None:
    """Any user may send such a line. In time that grows with the square of the length, this would take hours."""
    read_sums((start + filling * (MAX_SUMS // len(filling)) + "x").encode())


@given(st.binary(max_size=300))
def test_anything(content: bytes) -> None:
    read_sums(content)
    read_sums((content + f"{_DIGEST}  x".encode())[-300:])
