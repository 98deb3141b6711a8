"""An imported file is read back: rclone with several streams hashes the file after closing it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import ROOT, Mounted, remove_model, run, wait_until
from tests.interop.conftest import SshServer
from tests.interop.uploads import Drop, Outcome, execute

RCLONE = ROOT / ".venv" / "bin" / "rclone"
ONCE = ["--config", "/dev/null", "--retries", "1", "--low-level-retries", "1", "--stats-one-line", "-v"]
STREAMS = ["--multi-thread-streams", "4", "--multi-thread-cutoff", "64k"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Copied"),
        (["--inplace"], "Copied"),
        (STREAMS, "Multi-thread Copied"),
        (["--inplace", *STREAMS], "Multi-thread Copied"),
    ],
)
def test_rclone_hashes_what_it_wrote(drop: Drop, options: list[str], said: str) -> None:
    upload = drop.upload(Outcome.IMPORTED)
    command = [RCLONE, "copy", *ONCE, *options, upload.source.parent, drop.incoming]
    done = execute(*command)
    assert done.returncode == 0, done
    assert f"{upload.name}: {said}" in done.stderr
    drop.check(upload)
    # With --no-traverse rclone asks for each name and finds it. Else it lists, and sends the file again.
    assert execute(*command, "--no-traverse").returncode == 0
    assert len(drop.receipts(upload.name)) == 1
    assert execute(*command).returncode == 0
    assert [receipt.state.value for receipt in drop.receipts(upload.name)] == ["imported", "unchanged"]


@pytest.mark.parametrize("outcome", [Outcome.IMPORTED, Outcome.TRUNCATED])
@pytest.mark.parametrize("options", [[], ["--inplace"]])
def test_rclone_over_sftp(drop: Drop, ssh_server: SshServer, options: list[str], outcome: Outcome) -> None:
    """rclone has md5sum run at the other end."""
    upload = drop.upload(outcome)
    user = run("id", "-un").stdout.strip()
    login = f"host=127.0.0.1,port={ssh_server.port},user={user},key_file={ssh_server.key}"
    done = execute(RCLONE, "copy", *ONCE, *options, upload.source.parent, f":sftp,{login}:{drop.incoming}")
    assert (done.returncode == 0) == (outcome is Outcome.IMPORTED), done
    if outcome is Outcome.IMPORTED:
        drop.check(upload)
    else:
        drop.expect_refusal(upload)
        assert not drop.in_store(upload.tag).exists()


def test_the_bytes_that_came_in(drop: Drop) -> None:
    upload, other = drop.upload(Outcome.IMPORTED), drop.upload(Outcome.IMPORTED, size=100_000)
    target = drop.incoming / upload.name
    run("cp", upload.source, target)
    with target.open("rb") as file:
        assert file.read() == upload.source.read_bytes()
        # Another import gets the name. It is read from now on, and the open file stays the same.
        run("cp", other.source, target)
        file.seek(1000)
        assert file.read() == upload.source.read_bytes()[1000:]
    assert target.read_bytes() == other.source.read_bytes()
    run("mv", target, drop.incoming / "renamed")
    assert (drop.incoming / "renamed").read_bytes() == other.source.read_bytes()
    remove_model(drop.store, other.tag)
    wait_until(lambda: not (drop.incoming / "renamed").exists(), 10, "the name of a model that is gone answers no more")


def test_gone_after_a_remount(mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """After a remount the bytes are gone, but the name still answers."""
    (tmp_path / "store").mkdir()
    drop = Drop(mounted(tmp_path / "store"), tmp_path / "scratch")
    upload = drop.upload(Outcome.IMPORTED)
    target = drop.incoming / upload.name
    run("cp", upload.source, target)
    drop.mount.stop()
    drop.mount.start()
    assert target.stat().st_size == upload.source.stat().st_size
    with pytest.raises(FileNotFoundError):
        os.open(target, os.O_RDONLY)
