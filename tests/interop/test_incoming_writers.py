"""Programs that write an archive into `incoming/` in ways of their own: they flush early or twice, seek back, hand
their descriptor on, or give the file its name at the end. Only the whole file counts."""

import functools
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from bentofs.store.transfer.receipt import ReceiptState
from tests.harness import run, wait_until
from tests.interop.uploads import Drop, Outcome, Upload, execute, pack, shell


def check_one_import(drop: Drop, name: str, state: str = "imported") -> None:
    assert [receipt["state"] for receipt in drop.imports(name)] == [state]


# Flushes.


@pytest.mark.parametrize("script", ['cat "$1" >"$2"', 'dd status=none if="$1" of="$2"', 'cat <"$1" | dd of="$2"'])
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_flushed_often_imported_once(drop: Drop, script: str, suffix: str) -> None:
    """A shell's redirection is flushed before its first byte, and cat closes its output before it ends."""
    upload = drop.upload(Outcome.IMPORTED, suffix=suffix)
    assert shell(script, upload.source, drop.incoming / upload.name).returncode == 0
    drop.check(upload)
    check_one_import(drop, upload.name)
    assert drop.mount.log().count(f"{upload.name}: {upload.tag} ") == 1


def test_refused_once(drop: Drop) -> None:
    upload = drop.upload(Outcome.TRUNCATED)
    assert shell('cat "$1" >"$2"', upload.source, drop.incoming / upload.name).returncode == 1
    drop.check(upload)
    drop.expect_refusal(upload, times=1)
    check_one_import(drop, upload.name, "refused")


@pytest.mark.parametrize("suffix", [".bentomodel", ".tar", ".tar.gz", ".zip"])
def test_written_by_two_programs(drop: Drop, suffix: str) -> None:
    """The first program closes the file in the middle, and learns that it is no whole archive. The second adds the
    rest."""
    upload = drop.upload(Outcome.IMPORTED, suffix=suffix)
    half = str(upload.source.stat().st_size // 2)
    script = '(head -c "$3" "$1"; tail -c +"$(($3 + 1))" "$1") >"$2"'
    assert shell(script, upload.source, drop.incoming / upload.name, half).returncode == 0
    drop.mount.allow_log(f"{upload.name} was not imported: ")
    drop.check(upload)
    assert drop.imports(upload.name)[-1]["state"] == "imported"


def test_appended_in_many_parts(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED, suffix=".tar.gz")
    content, target = upload.source.read_bytes(), drop.incoming / upload.name
    drop.mount.allow_log(f"{upload.name} was not imported: ")
    part = len(content) // 5
    for at in range(0, len(content), part):
        done = execute("bash", "-c", 'cat "$1" >>"$2"', "bash", _file(drop, content[at : at + part]), target)
        assert (done.returncode == 0) == (at + part >= len(content)), done
    drop.check(upload)


def _file(drop: Drop, content: bytes) -> Path:
    path = drop.folder() / "part"
    path.write_bytes(content)
    return path


def test_child_inherits_the_descriptor(drop: Drop) -> None:
    """A child that closes its copy in the middle does no harm. Programs that start others pass on a copy
    unwittingly."""
    upload = drop.upload(Outcome.IMPORTED)
    content = upload.source.read_bytes()
    drop.mount.allow_log(f"{upload.name} was not imported: ")
    with (drop.incoming / upload.name).open("wb", buffering=0) as file:
        for at in range(0, len(content), 50_000):
            file.write(content[at : at + 50_000])
            subprocess.run(["true"], pass_fds=[file.fileno()], check=True, timeout=20)
    drop.check(upload)
    check_one_import(drop, upload.name)


def test_child_outlives_the_writer(drop: Drop) -> None:
    """A child that closes the file last delays nothing: the outcome is known at the writer's close."""
    upload = drop.upload(Outcome.IMPORTED)
    with (drop.incoming / upload.name).open("wb", buffering=0) as file:
        file.write(upload.source.read_bytes())
        child = subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()])
    try:
        drop.check(upload)
    finally:
        child.kill()
        child.wait(10)
    check_one_import(drop, upload.name)


def test_opened_for_writing_and_left_alone(drop: Drop) -> None:
    """A file that touch or a browser's placeholder makes is neither a model nor a mistake."""
    target = drop.incoming / "placeholder.zip"
    run("touch", target)
    assert target.name in os.listdir(drop.incoming)
    assert target.stat().st_size == 0
    assert drop.imports(target.name) == []
    assert not target.with_name(f"{target.name}.error").exists()
    run("rm", target)
    assert not target.exists()


# Programs that make an archive right there.


def _by_tarfile(mode: str) -> str:
    return f"import sys, tarfile\nwith tarfile.open(sys.argv[2], {mode!r}) as tar: tar.add(sys.argv[1], '.')"


_BY_ZIPFILE = """
import pathlib, sys, zipfile
model = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(sys.argv[2], "w", zipfile.ZIP_DEFLATED) as archive:
    for path in sorted(model.rglob("*")):
        archive.write(path, path.relative_to(model))
"""
_BY_SHUTIL = """
import shutil, sys
shutil.make_archive(sys.argv[2].removesuffix(sys.argv[3]), sys.argv[4], sys.argv[1])
"""
_PYTHON = f"{sys.executable} -c "

ARCHIVERS = {
    "tar cf": (".tar", 'tar -cf "$2" -C "$1" .'),
    "tar czf": (".tar.gz", 'tar -czf "$2" -C "$1" .'),
    "tar cJf": (".tar.xz", 'XZ_OPT=-0 tar -cJf "$2" -C "$1" .'),
    "tar cjf": (".tar.bz2", 'tar -cjf "$2" -C "$1" .'),
    "tar --zstd": (".tar.zst", 'tar --zstd -cf "$2" -C "$1" .'),
    "tar c >": (".tar", 'tar -c -C "$1" . >"$2"'),
    "tar c | gzip": (".tgz", 'set -o pipefail; tar -c -C "$1" . | gzip -1 >"$2"'),
    "tar c | xz": (".bentomodel", 'set -o pipefail; tar -c -C "$1" . | xz -0 -c >"$2"'),
    "tar c | dd": (".tar", 'set -o pipefail; tar -c -C "$1" . | dd of="$2" bs=1000'),
    "bsdtar": (".tar.gz", 'bsdtar -czf "$2" -C "$1" .'),
    "zip -r": (".zip", 'cd "$1" && zip -q -r "$2" .'),
    "zip -r -": (".zip", 'cd "$1" && zip -q -r - . >"$2"'),
    "7z": (".zip", 'cd "$1" && 7z a -bd -mx1 "$2" .'),
    "tarfile w": (".tar", f'{_PYTHON} "{_by_tarfile("w")}" "$1" "$2"'),
    "tarfile w:gz": (".tar.gz", f'{_PYTHON} "{_by_tarfile("w:gz")}" "$1" "$2"'),
    "tarfile w:xz": (".bentomodel", f'{_PYTHON} "{_by_tarfile("w:xz")}" "$1" "$2"'),
    "zipfile": (".zip", f'{_PYTHON} \'{_BY_ZIPFILE}\' "$1" "$2"'),
    "make_archive zip": (".zip", f'{_PYTHON} \'{_BY_SHUTIL}\' "$1" "$2" .zip zip'),
    "make_archive gztar": (".tar.gz", f'{_PYTHON} \'{_BY_SHUTIL}\' "$1" "$2" .tar.gz gztar'),
}
# These programs are known to close their output without checking. The outcome is in the note beside it.
_HEED_NOTHING = {"bsdtar", "7z", "tar cjf"}


@pytest.mark.parametrize("outcome", [Outcome.IMPORTED, Outcome.TAKEN])
@pytest.mark.parametrize("program", ARCHIVERS)
def test_archive_made_right_there(drop: Drop, program: str, outcome: Outcome) -> None:
    suffix, script = ARCHIVERS[program]
    tag, model = drop.model()
    if outcome is Outcome.TAKEN:
        drop.take(tag)
    target = drop.incoming / f"{tag.replace(':', '-')}{suffix}"
    done = shell(script, model, target, seconds=60)
    if outcome is Outcome.IMPORTED:
        assert done.returncode == 0, done
        drop.check_imported(tag, model)
        assert target.name not in os.listdir(drop.incoming)
        assert target.stat().st_size > 0
        return
    # Any name may be logged: zip first writes under another one.
    drop.mount.expect_log(rf"was not imported: {tag} is in the store with other content")
    if program not in _HEED_NOTHING:
        assert done.returncode != 0, done
    assert sorted(os.listdir(drop.in_store(tag))) == ["model.yaml", "other.bin"]
    assert any(receipt["errno"] == "EEXIST" and tag in receipt["error"] for receipt in drop.imports())


def test_out_of_order(drop: Drop) -> None:
    """dd writes the second half first."""
    upload = drop.upload(Outcome.IMPORTED, suffix=".zip")
    drop.mount.allow_log(f"{upload.name} was not imported: ")
    target, half = drop.incoming / upload.name, upload.source.stat().st_size // 2
    options = ["iflag=skip_bytes", "oflag=seek_bytes", "conv=notrunc", "status=none"]
    execute("dd", f"if={upload.source}", f"of={target}", f"skip={half}", f"seek={half}", *options)
    assert execute("dd", f"if={upload.source}", f"of={target}", "count=1", f"bs={half}", *options).returncode in (0, 1)
    drop.check(upload)


# Names that files have while they arrive.

ON_THE_WAY = {
    "firefox": "{}.part",
    "chrome": "{}.crdownload",
    "safari": "{}.download",
    "winscp": "{}.filepart",
    "tmp": "{}.tmp",
    "dot": ".{}",
    "capitals": "{}.PART",
    "chrome, unknown": "Unconfirmed 4711.crdownload",
    "gvfs": ".goutputstream-A1B2C3",
}


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("habit", ON_THE_WAY)
def test_imported_when_it_gets_its_name(drop: Drop, habit: str, outcome: Outcome) -> None:
    upload = drop.upload(outcome, suffix=".zip")
    temporary, target = drop.incoming / ON_THE_WAY[habit].format(upload.name), drop.incoming / upload.name
    if habit == "firefox":
        run("touch", target)  # it reserves the name this way
    copied = execute("cp", upload.source, temporary)
    assert copied.returncode == 0 or outcome is Outcome.NO_ARCHIVE, copied
    assert outcome is Outcome.TAKEN or not drop.in_store(upload.tag).exists()
    assert temporary.name in os.listdir(drop.incoming)
    assert outcome is Outcome.NO_ARCHIVE or temporary.stat().st_size == upload.source.stat().st_size
    assert not target.with_name(f"{target.name}.error").exists(), "nothing is decided yet"
    moved = execute("mv", temporary, target)
    assert moved.returncode == (1 if outcome.value else 0), moved
    drop.check(upload, stays=False)
    if outcome.value:
        if outcome is Outcome.TRUNCATED:  # mv has sentences of its own for EINVAL and EEXIST
            assert os.strerror(outcome.value) in moved.stderr
        left = [path for path in (temporary, target) if path.exists() and path.stat().st_size]
        assert len(left) == 1, "its bytes are under one of the names"
        assert outcome is Outcome.NO_ARCHIVE or left[0].read_bytes() == upload.source.read_bytes()
        assert f"{target.name} was not imported" in target.with_name(f"{target.name}.error").read_text()
    else:
        assert temporary.name not in os.listdir(drop.incoming)
    assert not temporary.with_name(f"{temporary.name}.error").exists()


def test_renamed_while_it_is_written(drop: Drop) -> None:
    """The outcome is decided when writing ends, under the new name."""
    upload = drop.upload(Outcome.IMPORTED)
    content, temporary = upload.source.read_bytes(), drop.incoming / f"{upload.name}.part"
    with temporary.open("wb", buffering=0) as file:
        file.write(content[:100_000])
        temporary.rename(drop.incoming / upload.name)
        assert not drop.in_store(upload.tag).exists()
        assert (drop.incoming / upload.name).stat().st_size == 100_000
        file.write(content[100_000:])
    drop.check(upload)


def test_from_a_folder_of_downloads(drop: Drop) -> None:
    """rsync's --delay-updates and --partial-dir write below folders that begin with a dot, and move the files out of
    them."""
    upload = drop.upload(Outcome.IMPORTED)
    folder = drop.incoming / ".downloads"
    folder.mkdir()
    run("cp", upload.source, folder)
    assert not drop.in_store(upload.tag).exists()
    run("mv", folder / upload.name, drop.incoming)
    drop.check(upload)
    run("rmdir", folder)


def test_refused_and_then_whole(drop: Drop) -> None:
    """The reason is removed when it no longer holds."""
    bad = drop.upload(Outcome.TRUNCATED)
    assert execute("cp", bad.source, drop.incoming).returncode == 1
    drop.check(bad)
    pack(bad.model, bad.source)
    run("cp", bad.source, drop.incoming)
    drop.check(Upload(bad.source, bad.model, bad.tag, Outcome.IMPORTED))
    assert [receipt["state"] for receipt in drop.imports(bad.name)] == ["refused", "imported"]


def test_refused_and_removed(drop: Drop) -> None:
    bad = drop.upload(Outcome.TRUNCATED)
    assert execute("cp", bad.source, drop.incoming).returncode == 1
    drop.check(bad)
    run("rm", drop.incoming / bad.name)
    assert [name for name in os.listdir(drop.incoming) if name.startswith(bad.name)] == []


# Views while an import runs and afterwards.


def _has_size(path: Path, size: int) -> bool:
    return path.stat().st_size == size


def test_running_upload_is_listed(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED)
    content, target = upload.source.read_bytes(), drop.incoming / upload.name
    with target.open("wb", buffering=0) as file:
        for end in (1, 70_000, 200_001):
            file.write(content[file.tell() : end])
            assert target.name in os.listdir(drop.incoming)
            assert os.fstat(file.fileno()).st_size == end
            wait_until(functools.partial(_has_size, target, end), 5, "the size that stat tells grows")
        assert target.read_bytes() == content[:200_001], "what is here can be read back"
        # Read in this process: a program that is started closes the descriptor that it inherits, which flushes it.
        running = wait_until(lambda: [r for r in drop.receipts(upload.name) if r.received], 10, "its progress")
        assert (running[-1].state, running[-1].received) == (ReceiptState.RECEIVING, 200_001)
        file.write(content[200_001:])
    drop.check(upload)
    check_one_import(drop, upload.name)


def test_imported_name(drop: Drop) -> None:
    """An imported name answers stat. For half a minute it gives the bytes that came in."""
    upload = drop.upload(Outcome.IMPORTED)
    target = drop.incoming / upload.name
    run("cp", "-p", upload.source, target)
    # The kernel believes for a second that the file is undecided.
    wait_until(lambda: target.stat().st_mtime_ns == upload.source.stat().st_mtime_ns, 5, "it has its source's time")
    assert target.read_bytes() == upload.source.read_bytes()
    run("cp", "-u", upload.source, target)  # not newer, so not sent
    check_one_import(drop, upload.name)
    run("cp", upload.source, target)
    run("cp", "-p", upload.source, target)
    assert [r["state"] for r in drop.imports(upload.name)] == ["imported", "unchanged", "unchanged"]
    drop.check(upload)
    run("mv", upload.source, target)
    assert not upload.source.exists()


def test_removing_an_imported_name(drop: Drop) -> None:
    """The model stays; the name answers no more."""
    upload = drop.upload(Outcome.IMPORTED)
    target = drop.incoming / upload.name
    run("cp", upload.source, target)
    run("rm", target)
    assert not target.exists()
    drop.check_imported(upload.tag, upload.model)
    assert execute("rm", target).returncode == 1


def test_renaming_an_imported_name(drop: Drop) -> None:
    """zip does so: it first writes under a name of its own."""
    upload = drop.upload(Outcome.IMPORTED)
    old, new = drop.incoming / upload.name, drop.incoming / f"renamed-{upload.name}"
    run("cp", upload.source, old)
    run("mv", old, new)
    assert not old.exists()
    assert new.stat().st_size == upload.source.stat().st_size
    assert new.name not in os.listdir(drop.incoming)
    drop.check_imported(upload.tag, upload.model)


def test_name_of_a_deleted_model(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED)
    target = drop.incoming / upload.name
    run("cp", upload.source, target)
    shutil.rmtree(drop.in_store(upload.tag))
    wait_until(lambda: not target.exists(), 10, "the name of a model that is gone answers no more")
    run("cp", upload.source, target)
    drop.check(upload)


# Times, modes and owners.


@pytest.mark.parametrize("state", ["spooled", "imported"])
def test_touch_chmod_chown(drop: Drop, state: str) -> None:
    upload = drop.upload(Outcome.IMPORTED)
    target = drop.incoming / f"{upload.name}{'.part' if state == 'spooled' else ''}"
    run("cp", upload.source, target)
    before = target.stat()
    run("touch", "-a", "-d", "2001-02-03 04:05:06", target)
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    run("touch", "-m", "-d", "2002-03-04 05:06:07.123456789 UTC", target)
    assert target.stat().st_mtime_ns == 1015218367_123456789
    begun = time.time()
    run("touch", target)
    assert begun - 5 <= target.stat().st_mtime <= time.time() + 5
    run("touch", "-d", "1969-07-20 20:17:40 UTC", target)
    assert target.stat().st_mtime == -14182940
    for command in (["chmod", "600"], ["chmod", "a+x"], ["chown", "65534:65534"], ["chgrp", "65534"]):
        run(*command, target)
    assert target.stat().st_size == upload.source.stat().st_size
    if state == "spooled":
        run("mv", target, drop.incoming / upload.name)
        assert (drop.incoming / upload.name).stat().st_mtime == -14182940
    drop.check(upload)


def test_copy2_sets_times_afterwards(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED)
    os.utime(upload.source, ns=(1, 1_234_567_890_123_456_789))
    shutil.copy2(upload.source, drop.incoming)
    assert (drop.incoming / upload.name).stat().st_mtime_ns == 1_234_567_890_123_456_789
    drop.check(upload)


def test_zip_and_tar_written_by_python_in_this_process(drop: Drop) -> None:
    """Members are written with open(..., "w"), whose headers are patched afterwards."""
    tag, model = drop.model()
    with zipfile.ZipFile(drop.incoming / "patched.zip", "w") as archive:
        for path in sorted(model.rglob("*")):
            if path.is_file():
                with archive.open(str(path.relative_to(model)), "w") as member:
                    member.write(path.read_bytes())
    drop.check_imported(tag, model)
    tag, model = drop.model()
    with tarfile.open(str(drop.incoming / "streamed.tar.gz"), "w|gz") as tar:
        tar.add(model, ".")
    drop.check_imported(tag, model)
