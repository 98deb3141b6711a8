"""Names of every kind in `incoming/`, with common tools."""

import os
import re

import pytest

from bentofs.store.util.display import printable
from tests.harness import run
from tests.interop.uploads import Drop, Outcome, Upload, execute

UNDECODABLE = os.fsdecode(b"Gr\xfc\xdfe-\xff\xfe.tar.gz")
NAMES = {
    "spaces": " a name  with spaces .tar.gz",
    "quotes": 'it\'s a "quoted" `name` $HOME.tar.gz',
    "newline": "two\nlines.tar.gz",
    "escape": "\x1b[31mred\x1b[0m\t.tar.gz",
    "wildcards": "*?[a-z]{b,c}.tar.gz",
    "backslash": "back\\slash\\n.tar.gz",
    "dash": "-rf.tar.gz",
    "percent": "100%25 %s %d.tar.gz",
    "undecodable": UNDECODABLE,
    "unicode": "模型 Ünïcödé 🌸.tar.gz",
    "combining": "Ame\u0301lie\u200b.tar.gz",
    "right to left": "\u202egz.rat.tar.gz",
    "255 bytes": "l" * 248 + ".tar.gz"[:7],
    "255 bytes of unicode": "模" * 83 + "abcdef",
    "no suffix": "model",
    "one letter": "m",
    "another suffix": "model.bin",
    "tilde in front": "~model.tar.gz",
    "looks like rsync's, without its dot": "model.tar.gz.AbCdEf",
}


@pytest.mark.parametrize("command", [["cp", "--"], ["rsync", "-a", "--"]], ids=["cp", "rsync"])
@pytest.mark.parametrize("kind", NAMES)
def test_name(drop: Drop, kind: str, command: list[str]) -> None:
    upload = drop.upload(Outcome.IMPORTED, NAMES[kind], suffix=".tar.gz", size=20_000)
    run(*command, upload.source, f"{drop.incoming}/")
    drop.check(upload)
    assert drop.receipts(upload.name)[-1].tag == upload.tag
    run("rm", "--", drop.incoming / upload.name)
    assert not (drop.incoming / upload.name).exists()


@pytest.mark.parametrize("kind", NAMES)
def test_name_that_is_refused(drop: Drop, kind: str) -> None:
    upload = drop.upload(Outcome.TRUNCATED, NAMES[kind], suffix=".tar.gz", size=20_000)
    target = drop.incoming / upload.name
    done = execute("cp", "--", upload.source, f"{drop.incoming}/")
    assert done.returncode == 1
    assert "Bad message" in done.stderr
    assert target.read_bytes() == upload.source.read_bytes()
    note = target.with_name(f"{target.name}.error")
    drop.mount.expect_log(f"{re.escape(printable(upload.name))} was not imported: ")
    if len(os.fsencode(note.name)) > 255:
        # There is no room for the suffix. The log and the record have the reason.
        drop.mount.expect_log("its note could not be written")
    else:
        assert b"was not imported: " in note.read_bytes()
    assert drop.receipts(upload.name)[-1].errno == "EBADMSG"
    run("rm", "--", target)
    assert not [name for name in os.listdir(drop.incoming) if name.startswith(upload.name)]


def test_imports_tells_every_name(drop: Drop) -> None:
    """`bentofs imports` prints one line of JSON for each name, with any characters."""
    names = {f"listed {name}" for name in NAMES.values() if len(os.fsencode(name)) < 200}
    for name in names:
        upload = drop.upload(Outcome.IMPORTED, name, suffix=".tar.gz", size=1000)
        run("cp", "--", upload.source, f"{drop.incoming}/")
    assert {receipt["file"] for receipt in drop.imports() if receipt["file"].startswith("listed ")} == names


def test_name_that_is_too_long(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED)
    done = execute("cp", upload.source, drop.incoming / ("l" * 256))
    assert "File name too long" in done.stderr


@pytest.mark.parametrize("kind", ["spaces", "newline", "undecodable", "unicode", "255 bytes"])
def test_name_of_a_folder(drop: Drop, kind: str) -> None:
    """Archives one and two folders down are imported each by itself."""
    upload = drop.upload(Outcome.IMPORTED, suffix=".zip", size=20_000)
    folder = drop.incoming / NAMES[kind] / NAMES[kind]
    folder.mkdir(parents=True)
    run("cp", upload.source, folder)
    drop.check(upload, folder / upload.name)
    run("rmdir", folder, folder.parent)


def test_names_that_differ_in_case_or_form_are_different(drop: Drop) -> None:
    names = ["Model.zip", "model.zip", "MODEL.ZIP", "mod\u00e9l.zip", "mode\u0301l.zip"]
    uploads: list[Upload] = []
    for name in names:
        upload = drop.upload(Outcome.IMPORTED, name, suffix=".zip", size=1000)
        run("cp", upload.source, drop.incoming)
        uploads.append(upload)
    for upload in uploads:
        drop.check(upload)


def test_links_and_devices_do_not_come_in(drop: Drop) -> None:
    source = drop.folder()
    (source / "link.zip").symlink_to("/etc/passwd")
    os.mkfifo(source / "fifo.zip")
    for path in (source / "link.zip", source / "fifo.zip"):
        done = execute("cp", "-a", path, drop.incoming)
        assert done.returncode == 1
        assert "Operation not permitted" in done.stderr
    assert execute("ln", "-s", "/etc/passwd", drop.incoming / "link").returncode == 1
    assert sorted(name for name in os.listdir(drop.incoming) if "link" in name or "fifo" in name) == []
