"""An upload becomes a model, or its program learns why not."""

import contextlib
import errno
import gzip
import io
import json
import lzma
import os
import re
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, Mounted, ended, make_model, run, wait_until
from tests.incoming import (
    area_of,
    cp,
    imports,
    imports_command,
    made_tar,
    same,
    spooled,
)
from tests.mount.incoming.putting import (
    Mount,
    in_incoming,
    member,
    nothing_is_staged,
    put,
    slow_copy,
    tar_with,
    yaml_of,
)


def zip_with(*names: str, content: bytes = b"x") -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.yaml", yaml_of("bad:v1"))
        for name in names:
            file.writestr(name, content)
    return archive.getvalue()


def tar_of_yaml(text: str) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info, content = member("model.yaml", text.encode())
        tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


def stored_zip_with_wrong_crc() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.writestr("model.yaml", yaml_of("bad:v1"))
        file.writestr("w", b"needle in the haystack" * 100)
    content = archive.getvalue()
    return flipped(content, content.index(b"needle") + 3)


def overlapping_zip() -> bytes:
    """Return a zip with two entries that share the same bytes, like a zip bomb."""
    content = bytearray(zip_with("a", "b", content=b"y" * 100_000))
    entries = [at for at in range(len(content)) if content[at : at + 4] == b"PK\x01\x02"]
    content[entries[2] + 42 : entries[2] + 46] = content[entries[1] + 42 : entries[1] + 46]
    return bytes(content)


def tar_with_size_field(field: bytes) -> bytes:
    content = bytearray(tar_with(member("huge", b"h" * 600)))
    at = content.index(b"huge\0")
    content[at + 124 : at + 136] = field
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    return bytes(content)


BOMB = (
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{one}: &{one} [{','.join([f'*{other}'] * 9)}]\n" for other, one in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + yaml_of("bad:v1").decode()
)


REFUSED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "no archive": (lambda: b"These are no bytes of an archive.\n" * 100, errno.EINVAL, "not an archive"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(5000), errno.EINVAL, "not an archive"),
    "no model.yaml": (lambda: _no_model_yaml(), errno.EINVAL, "model.yaml"),
    "a bad tag": (lambda: tar_with(tag="Upper Case:v1"), errno.EINVAL, "tag|name"),
    "a tag with a newline": (
        lambda: tar_of_yaml(yaml_of("bad:v1").decode().replace("bad", '"bad\\n"')),
        errno.EINVAL,
        "tag|name",
    ),
    "yaml that blows up": (lambda: tar_of_yaml(BOMB), errno.EINVAL, "model.yaml"),
    "yaml with a Python tag": (
        lambda: tar_of_yaml("x: !!python/object/apply:os.system ['touch /tmp/pwned']\n" + yaml_of("bad:v1").decode()),
        errno.EINVAL,
        "model.yaml",
    ),
    "a large model.yaml": (lambda: gzip.compress(tar_of_yaml("#" * 100_000_000), 1), errno.EINVAL, "model.yaml"),
    "tar cut short": (lambda: tar_with(member("z", b"z" * 5000))[:4000], errno.EBADMSG, "cut short|ends"),
    "gzip cut short": (lambda: gzip.compress(tar_with())[:-20], errno.EBADMSG, "cut short|ends|damaged"),
    "gzip with a wrong CRC": (
        lambda: flipped(gzip.compress(tar_with()), -6 % len(gzip.compress(tar_with()))),
        errno.EBADMSG,
        "damaged|CRC",
    ),
    "xz cut short": (lambda: lzma.compress(tar_with())[:-10], errno.EBADMSG, "cut short|ends|damaged"),
    "xz with a wrong byte": (lambda: flipped(lzma.compress(tar_with()), 100), errno.EBADMSG, "damaged"),
    "zip cut short": (lambda: zip_with("a")[:-30], errno.EBADMSG, "cut short|damaged|ends"),
    "zip with a wrong CRC": (stored_zip_with_wrong_crc, errno.EBADMSG, "CRC"),
    "an absolute member": (lambda: tar_with(member("/etc/pwned", b"x")), errno.EINVAL, "leads out"),
    "a member above": (lambda: tar_with(member("a/../../pwned", b"x")), errno.EINVAL, "leads out"),
    "a zip member above": (lambda: zip_with("../pwned"), errno.EINVAL, "leads out"),
    "a symbolic link out": (
        lambda: tar_with(member("l", type=tarfile.SYMTYPE, linkname="../../../../etc/passwd")),
        errno.EINVAL,
        "out of the model",
    ),
    "an absolute symbolic link": (
        lambda: tar_with(member("l", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        errno.EINVAL,
        "out of the model",
    ),
    "a hard link out": (
        lambda: tar_with(member("l", type=tarfile.LNKTYPE, linkname="../../etc/passwd")),
        errno.EINVAL,
        "out of the model",
    ),
    "written through a link": (
        lambda: tar_with(member("l", type=tarfile.SYMTYPE, linkname="/tmp"), member("l/pwned", b"x")),
        errno.EINVAL,
        "link",
    ),
    "a device": (lambda: tar_with(member("d", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), errno.EINVAL, "device"),
    "a fifo": (lambda: tar_with(member("f", type=tarfile.FIFOTYPE)), errno.EINVAL, "device|pipe"),
    "a file as a folder": (lambda: tar_with(member("w/below", b"x")), errno.EINVAL, "directory"),
    "a huge size": (
        lambda: tar_with_size_field(b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7),
        errno.EBADMSG,
        "size|damaged|cut short",
    ),
    "a negative size": (lambda: tar_with_size_field(b"\xff" * 11 + b"\xf0"), errno.EBADMSG, "size|damaged"),
    "overlapping entries": (overlapping_zip, errno.EBADMSG, "overlap|damaged"),
    "too many members": (
        lambda: tar_with(*(member(f"e{number}") for number in range(120))),
        errno.EFBIG,
        "--max-members",
    ),
    "too large": (lambda: gzip.compress(tar_with(member("z", bytes(60_000_000))), 1), errno.EFBIG, "--max-expanded"),
}


def _no_model_yaml() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(*_with_stream(member("weights", b"w")))
    return archive.getvalue()


def _with_stream(pair: tuple[tarfile.TarInfo, bytes]) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return pair[0], io.BytesIO(pair[1])


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount with low limits, whose store has one model."""
    base = tmp_path_factory.mktemp("strict")
    store = base / "bentoml" / "models"
    make_model(store, "good:v1", {"w": b"good"})
    options = ["--max-members", "100", "--max-expanded", "50M"]
    with Mounted(
        store, base / "mount", options=options, limit=900.0
    ) as mounted:  # it lives as long as this module runs
        mounted.allow_log("was not imported")
        yield mounted


_ADVICE = re.compile(
    "; (copy|make|mend) |: (copy|make|import|replace|put|write|keep|join|rename|remove|leave|use|--max)|must lie|--max-"
)


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(strict: Mounted, what: str) -> None:
    """A refusal has an errno, a sentence beside the file, and a record. Nothing of the upload stays anywhere."""
    build, number, words = REFUSED[what]
    content = build()
    for left in in_incoming(strict):
        os.unlink(strict.path / "incoming" / left)
    before = sorted(strict.store.rglob("*"))
    name = f"{what}.tar"
    assert errno.errorcode.get(put(strict, name, content)) == errno.errorcode[number]
    note = (strict.path / "incoming" / f"{name}.error").read_text()
    assert note.startswith(f"{name} was not imported: ")
    assert re.search(words, note), note
    assert _ADVICE.search(note), f"{note} does not say what to do"
    receipt = imports(strict)[-1]
    assert (receipt["file"], receipt["state"], receipt["errno"]) == (name, "refused", errno.errorcode[number])
    assert receipt["error"] in note
    assert name in strict.log()
    assert sorted(strict.store.rglob("*")) == before
    nothing_is_staged(strict)
    assert sorted(path.name for path in spooled(area_of(strict.store))) == [name, f"{name}.error"]
    assert not Path("/tmp/pwned").exists()
    # The user can remove the file. Its note goes with it.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(strict.path / "incoming" / name)
    assert in_incoming(strict) == []


def test_a_new_upload_takes_the_reason_of_the_last_one_away(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    mount.expect_log("not imported", times=1)
    archive = made_tar(tmp_path, "m:v1", {"w": b"w"})
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 100)
    target = mount.path / "incoming/m.tar"
    assert cp(tmp_path / "bad.tar", target).returncode == 1
    note = mount.path / "incoming/m.tar.error"
    assert "not an archive" in note.read_text()
    with target.open("wb", buffering=0) as file:
        file.write(archive.read_bytes())
        assert not note.exists()
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_a_refused_file_can_be_copied_again(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    mount.expect_log("m-v1.tar was not imported", times=1)
    whole = made_tar(tmp_path, "m:v1").read_bytes()
    assert put(mount, "m-v1.tar", whole[:2000]) == errno.EBADMSG
    assert in_incoming(mount) == ["m-v1.tar", "m-v1.tar.error"]
    assert put(mount, "m-v1.tar", whole) == 0
    assert in_incoming(mount) == []
    assert [receipt["state"] for receipt in imports(mount)] == ["refused", "imported"]
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_a_failed_close_is_not_final(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """More bytes may come: they are appended, and the whole is imported."""
    mount = mounted(store)
    mount.expect_log("was not imported")
    whole = made_tar(tmp_path, "m:v1", {"w": os.urandom(300_000)}).read_bytes()
    assert put(mount, "m.tar", whole[:200_000]) == errno.EBADMSG
    with open(mount.path / "incoming/m.tar", "ab") as file:
        file.write(whole[200_000:])
    same(tmp_path / "made/m/v1", store / "m/v1")
    assert in_incoming(mount) == []


def test_what_is_known_to_be_bad_fails_the_next_write(store: Path, mounted: Mount) -> None:
    """The next write fails, for programs that ignore the error of close."""
    mount = mounted(store)
    mount.expect_log("was not imported", times=1)
    content = tar_with(member("../out", b"x")) + bytes(1_000_000)

    def write_on() -> None:
        with open(mount.path / "incoming/m.tar", "wb", 0) as file:
            file.write(content)
            for _ in range(2000):
                file.write(bytes(100_000))
                time.sleep(0.005)  # a slow writer
            pytest.fail("no write was refused")

    with pytest.raises(OSError, match="Invalid argument") as raised:
        write_on()
    assert raised.value.errno == errno.EINVAL
    assert "leads out" in (mount.path / "incoming/m.tar.error").read_text()
    assert imports(mount)[-1]["errno"] == "EINVAL"
    nothing_is_staged(mount)


def test_imports_table_and_follow(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    mount.expect_log("bad.tar was not imported", times=1)
    assert imports(mount) == []
    follower = subprocess.Popen(
        [*map(str, imports_command(mount)), "--follow", "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    lines: list[dict[str, object]] = []

    def follow() -> None:
        assert follower.stdout is not None
        lines.extend(json.loads(line) for line in follower.stdout)

    with ended(follower):
        reader = threading.Thread(target=follow)
        reader.start()
        content = made_tar(tmp_path, "m:v1", {"w": os.urandom(2_000_000)}).read_bytes()
        with slow_copy(mount.path / "incoming/slow.tar", tmp_path / "pipe") as file:
            file.write(content[:1_000_000])
            # Running imports are listed with their progress.
            wait_until(
                lambda: [r for r in imports(mount) if r["received"] >= 900_000],
                20,
                "the progress is told",
                interval=0.3,
            )
            running = imports(mount)[-1]
            assert (running["file"], running["ended"], running["state"]) == ("slow.tar", None, "receiving")
            wait_until(lambda: [line for line in lines if line["state"] == "receiving"], 30, "the follower tells it")
            file.write(content[1_000_000:])
        assert put(mount, "bad.tar", b"bad" * 100) == errno.EINVAL
        wait_until(
            lambda: {line["state"] for line in lines} >= {"receiving", "imported", "refused"}, 20, "all is followed"
        )
    reader.join(10)
    table = run(*imports_command(mount), cwd=ROOT).stdout.splitlines()
    assert table[0].split() == ["Started", "File", "Outcome", "Model", "Received", "Reason"]
    assert "slow.tar" in table[1]
    assert "m:v1" in table[1]
    assert "bad.tar" in table[2]
    assert "not an archive" in table[2]
    mount.stop()
    kept = imports(mount)
    assert [(receipt["file"], receipt["state"]) for receipt in kept] == [
        ("slow.tar", "imported"),
        ("bad.tar", "refused"),
    ]
    mount._expectations.clear()
    mount.start()
    assert imports(mount) == kept
