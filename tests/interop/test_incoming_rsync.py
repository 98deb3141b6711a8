"""rsync into `incoming/`: nothing is sent twice, with any options, and one refused file stops no other."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.transfer.receipt import ReceiptState
from tests.harness import Mounted, make_model, remove_model, run, wait_until
from tests.interop.conftest import SshServer
from tests.interop.uploads import Drop, Outcome, Upload, execute, imports_of

OPTIONS = {
    "-a": ["-a"],
    "-rt": ["-rt"],
    "--inplace": ["-a", "--inplace"],
    "--delay-updates": ["-a", "--delay-updates"],
    "--partial": ["-a", "--partial"],
    "--partial-dir": ["-a", "--partial-dir=.rsync-partial"],
    "-W": ["-a", "-W"],
    "--no-W": ["-a", "--no-W"],
    "--append-verify": ["-a", "--append-verify"],
    "--fsync": ["-a", "--fsync"],
    "-z": ["-az"],
    "-X -H -S": ["-aXHS"],
    "--size-only": ["-r", "--size-only"],
}


def sent(output: str) -> int:
    """Return how many files a run of rsync with --stats sent."""
    found = re.search(r"Number of regular files transferred: ([\d,]+)", output)
    assert found, output
    return int(found[1].replace(",", ""))


def nest(drop: Drop) -> tuple[Path, list[Upload]]:
    """Make a folder of three archives, two of them further down."""
    folder = drop.folder()
    uploads = []
    for below, suffix in ((".", ".bentomodel"), ("one", ".zip"), ("one/two", ".tar.gz")):
        upload = drop.upload(Outcome.IMPORTED, suffix=suffix, size=50_000)
        path = folder / below / upload.name
        path.parent.mkdir(exist_ok=True)
        shutil.copy2(upload.source, path)
        os.utime(path, ns=(1, 1_600_000_000_123_456_789))
        uploads.append(Upload(path, upload.model, upload.tag, upload.outcome))
    return folder, uploads


def check_all(drop: Drop, source: Path, target: Path, uploads: list[Upload]) -> None:
    for upload in uploads:
        drop.check(upload, target / upload.source.relative_to(source))


@pytest.mark.parametrize("name", OPTIONS)
def test_second_run_sends_nothing(drop: Drop, name: str) -> None:
    source, uploads = nest(drop)
    target = drop.incoming / source.name
    command = ["rsync", "--stats", *OPTIONS[name], f"{source}/", f"{target}/"]
    assert sent(run(*command).stdout) == 3
    check_all(drop, source, target, uploads)
    assert sent(run(*command).stdout) == 0
    check_all(drop, source, target, uploads)
    for upload in uploads:
        assert [receipt.state for receipt in drop.receipts(upload.name)] == [ReceiptState.IMPORTED]
    files = [name for _, _, names in os.walk(target) for name in names]
    assert files == [], "nothing is left lying"


def test_temporary_folder(drop: Drop) -> None:
    """With --temp-dir the temporary names have no dot in front; the folder has one."""
    source, uploads = nest(drop)
    target = drop.incoming / source.name
    temporary = drop.incoming / ".temporary"
    temporary.mkdir()
    command = ["rsync", "-a", "--stats", f"--temp-dir={temporary}", f"{source}/", f"{target}/"]
    assert sent(run(*command).stdout) == 3
    check_all(drop, source, target, uploads)
    assert sent(run(*command).stdout) == 0


def test_by_checksum(drop: Drop) -> None:
    """-c reads the file's bytes. For half a minute these are the uploaded bytes, so nothing is sent.

    Later they are gone. Then all is sent again, and is unchanged. A busy machine may take that long here.
    """
    source, uploads = nest(drop)
    target = drop.incoming / source.name
    for states in ({ReceiptState.IMPORTED}, {ReceiptState.IMPORTED, ReceiptState.UNCHANGED}):
        run("rsync", "-ac", f"{source}/", f"{target}/")
        check_all(drop, source, target, uploads)
        assert {drop.receipts(upload.name)[-1].state for upload in uploads} <= states


def test_over_ssh(drop: Drop, ssh_server: SshServer) -> None:
    source, uploads = nest(drop)
    target = drop.incoming / source.name
    login = f"{run('id', '-un').stdout.strip()}@127.0.0.1"
    remote = " ".join(["ssh", *ssh_server.options])
    command = ["rsync", "-a", "--stats", "-e", remote, f"{source}/", f"{login}:{target}/"]
    assert sent(run(*command).stdout) == 3
    check_all(drop, source, target, uploads)
    assert sent(run(*command).stdout) == 0


def test_a_changed_archive_is_sent_alone(drop: Drop) -> None:
    source, uploads = nest(drop)
    target = drop.incoming / source.name
    command = ["rsync", "-a", "--stats", f"{source}/", f"{target}/"]
    assert sent(run(*command).stdout) == 3
    fourth = drop.upload(Outcome.IMPORTED, suffix=".tar")
    shutil.copy2(fourth.source, source)
    os.utime(uploads[0].source, ns=(1, 1_700_000_000_000_000_000))
    assert sent(run(*command).stdout) == 2
    check_all(drop, source, target, uploads)
    drop.check(fourth, target / fourth.name)
    assert sent(run(*command).stdout) == 0


def test_delete_removes_no_model(drop: Drop) -> None:
    """An imported file is not listed, so --delete has nothing to delete."""
    source, uploads = nest(drop)
    target = drop.incoming / source.name
    run("rsync", "-a", f"{source}/", f"{target}/")
    gone = uploads.pop()
    (target / "left over.txt").write_text("something else")
    gone.source.unlink()
    for when in ("--delete-before", "--delete-after", "--delete-delay"):
        run("rsync", "-a", when, f"{source}/", f"{target}/")
    check_all(drop, source, target, uploads)
    drop.check_imported(gone.tag, gone.model)
    assert os.listdir(target / "one" / "two") == []
    assert not (target / "left over.txt").exists()


def test_a_deleted_model_is_sent_again(drop: Drop) -> None:
    source, uploads = nest(drop)
    target = drop.incoming / source.name
    command = ["rsync", "-a", "--stats", f"{source}/", f"{target}/"]
    run(*command)
    remove_model(drop.store, uploads[1].tag)
    gone = target / uploads[1].source.relative_to(source)
    wait_until(lambda: not gone.exists(), 10, "the name of a model that is gone answers no more")
    assert sent(run(*command).stdout) == 1
    check_all(drop, source, target, uploads)


@pytest.mark.parametrize("outcome", [Outcome.TRUNCATED, Outcome.NO_ARCHIVE, Outcome.TAKEN])
def test_a_refused_file_does_not_stop_the_others(drop: Drop, outcome: Outcome) -> None:
    source = drop.folder()
    bad = drop.upload(outcome, name=f"a-refused-{outcome.name}.bentomodel", size=3_000_000)
    good = [drop.upload(Outcome.IMPORTED, suffix=".zip") for _ in range(3)]
    for upload in (bad, *good):
        shutil.copy2(upload.source, source)
    done = execute("rsync", "-a", f"{source}/", f"{drop.incoming}/")
    assert done.returncode == 23, done
    assert os.strerror(outcome.value) in done.stderr
    assert f"{bad.name}" in done.stderr
    for upload in (bad, *good):
        drop.check(upload)
    again = execute("rsync", "-a", "--stats", f"{source}/", f"{drop.incoming}/")
    # The refused bytes stand under their name, with the size and time of the source.
    assert (again.returncode, sent(again.stdout)) in ((0, 0), (23, 1)), again
    for upload in good:
        drop.check(upload)


def test_a_whole_mount_into_another(mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """`rsync -a by-format/bentomodel/ incoming/` works every night, over restarts of both mounts."""
    origin, store = tmp_path / "origin", tmp_path / "store"
    store.mkdir()
    tags = ["iris:v1", "iris:v2", "a.b:v1.zip", "language:20240101"]
    for number, tag in enumerate(tags):
        make_model(origin, tag, {"weights.bin": os.urandom(100_000), "notes/read.me": b"text" * number})
    giving, taking = mounted(origin), mounted(store)

    def nightly(form: str) -> int:
        source, target = f"{giving.path}/by-format/{form}/", f"{taking.path}/incoming/"
        return sent(run("rsync", "-a", "--stats", source, target).stdout)

    def check() -> None:
        assert run("diff", "-r", "-x", "latest", origin, store).stdout == ""
        listed = [name for _, _, names in os.walk(taking.path / "incoming") for name in names]
        assert listed == []

    assert nightly("bentomodel") == len(tags)
    check()
    assert (store / "iris" / "latest").read_text() == (origin / "iris" / "latest").read_text()
    assert nightly("bentomodel") == 0
    for mount in (giving, taking):
        mount.stop()
        mount.start()
    assert nightly("bentomodel") == 0, "after a remount"
    check()
    assert nightly("zip") == len(tags), "in another format: other names"
    check()
    assert nightly("zip") == 0
    make_model(origin, "iris:v3", {"weights.bin": os.urandom(1000)})
    remove_model(store, "iris:v1")
    wait_until(
        lambda: giving.shows("iris:v3") and not (taking.path / "incoming/iris/iris-v1.bentomodel").exists(),
        10,
        "both mounts see what changed",
    )
    assert nightly("bentomodel") == 2
    check()


def test_folders_of_a_mount_into_another(mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """A folder of by-format/folder is imported at sync. Until then it is kept unchanged."""
    origin, store = tmp_path / "origin", tmp_path / "store"
    store.mkdir()
    for tag in ("iris:v1", "iris:v2"):
        make_model(origin, tag, {"weights.bin": os.urandom(100_000), "inner/archive.zip": b"PK\x05\x06" + bytes(18)})
    giving, taking = mounted(origin), mounted(store)
    command = ["rsync", "-a", "--stats", f"{giving.path}/by-format/folder/", f"{taking.path}/incoming/"]
    assert sent(run(*command).stdout) == 7
    assert sent(run(*command).stdout) == 0
    assert not (store / "iris").exists()
    run("sync", taking.path / "incoming" / "iris")
    assert run("diff", "-r", "-x", "latest", origin, store).stdout == ""


def test_all_formats_of_a_mount_into_another(mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """`rsync -a by-format/ incoming/` sends each model in every format and as a folder. The first to come is
    imported."""
    origin, store = tmp_path / "origin", tmp_path / "store"
    store.mkdir()
    for tag in ("iris:v1", "language:v1"):
        make_model(origin, tag, {"weights.bin": os.urandom(100_000)})
    giving, taking = mounted(origin), mounted(store)
    command = ["rsync", "-a", "--stats", f"{giving.path}/by-format/", f"{taking.path}/incoming/"]
    archives, files = 2 * 4, 2 * 3
    assert sent(run(*command).stdout) == archives + files
    assert run("diff", "-r", origin, store).stdout == ""
    states = [receipt["state"] for receipt in imports_of(taking)]
    assert sorted(states) == ["imported"] * 2 + ["unchanged"] * (archives - 2)
    assert sent(run(*command).stdout) == 0
    run("sync", taking.path / "incoming/folder")
    assert [name for _, _, names in os.walk(taking.path / "incoming") for name in names if name != "latest"] == []
    assert run("diff", "-r", origin, store).stdout == ""
