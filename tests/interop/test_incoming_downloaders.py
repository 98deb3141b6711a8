"""Programs that download with several connections, straight into `incoming/`. They reserve room first, write in any
order, and keep a control file beside the file until it is whole."""

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.interop.uploads import Drop, Outcome, Upload, WebServer, execute

SIZE = 3 << 20  # bytes: more than one piece for each connection


@dataclass(frozen=True)
class Downloader:
    """A program: its command for a URL, a folder and a name, and the suffix of its control file."""

    command: Callable[[str, Path, str], list[str | Path]]
    control: str


def aria2c(*options: str) -> Downloader:
    return Downloader(
        lambda url, folder, name: ["aria2c", "-q", "-c", "-x2", "-s2", "-k1M", *options, "-d", folder, "-o", name, url],
        ".aria2",
    )


DOWNLOADERS = {
    "aria2c": aria2c(),
    "aria2c that writes zeros": aria2c("--file-allocation=prealloc", "--no-file-allocation-limit=1"),
    "aria2c that allocates": aria2c("--file-allocation=falloc", "--no-file-allocation-limit=1"),
    "aria2c that allocates nothing": aria2c("--file-allocation=none"),
    "axel": Downloader(lambda url, folder, name: ["axel", "-q", "-n", "2", "-o", folder / name, url], ".st"),
    "lftp": Downloader(
        lambda url, folder, name: [
            *(
                "lftp",
                "-c",
                f"set pget:save-status 1; set pget:min-chunk-size 64k; pget -n 2 -c {url} -o {folder}/{name}",
            )
        ],
        ".lftp-pget-status",
    ),
}


def command_of(name: str, upload: Upload, drop: Drop, web: WebServer, *, slowly: bool = False) -> list[str | Path]:
    url = web.offer(upload.name, upload.source.read_bytes(), slowly=slowly)
    return DOWNLOADERS[name].command(url, drop.incoming, upload.name)


def left_of(upload: Upload, drop: Drop) -> list[str]:
    return sorted(name for name in os.listdir(drop.incoming) if name.startswith(upload.name))


@contextlib.contextmanager
def started(command: list[str | Path]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Where the tests run in the background, SIGINT is ignored, also by the programs that they start.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize(("name", "suffix"), [*((name, ".tar") for name in DOWNLOADERS), ("aria2c", ".zip")])
def test_a_download_is_imported(drop: Drop, web: WebServer, name: str, suffix: str) -> None:
    upload = drop.upload(Outcome.IMPORTED, suffix=suffix, size=SIZE)
    done = execute(*command_of(name, upload, drop, web))
    assert done.returncode == 0, done
    drop.check_imported(upload.tag, upload.model)
    assert left_of(upload, drop) == []


@pytest.mark.parametrize("name", ["aria2c", "axel", "lftp"])
def test_a_download_that_is_no_model(drop: Drop, web: WebServer, name: str) -> None:
    """No program looks at the result of closing the file or of removing the control file."""
    upload = drop.upload(Outcome.TAKEN, suffix=".tar", size=SIZE)
    drop.expect_refusal(upload)
    execute(*command_of(name, upload, drop, web))
    assert left_of(upload, drop) == [upload.name, f"{upload.name}.error"]
    drop.check_recorded(upload)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
@pytest.mark.parametrize("name", ["aria2c", "aria2c that writes zeros", "axel", "lftp"])
def test_a_download_that_is_gone_on_with(drop: Drop, web: WebServer, name: str, end: signal.Signals) -> None:
    """Until a download is resumed and done, nothing is imported, and no mistake is reported."""
    upload = drop.upload(Outcome.IMPORTED, suffix=".tar", size=SIZE)
    control = f"{upload.name}{DOWNLOADERS[name].control}"
    command = command_of(name, upload, drop, web, slowly=True)
    sent = web.sent_slowly
    with started(command) as process:
        wait_until(lambda: control in os.listdir(drop.incoming), 30, "there is a control file")
        wait_until(lambda: web.sent_slowly > sent + (512 << 10), 30, "a part has come")
        process.send_signal(end)
        process.wait(30)
    assert left_of(upload, drop) == [upload.name, control]
    assert not drop.in_store(upload.tag).exists()
    command_of(name, upload, drop, web)
    done = execute(*command)
    assert done.returncode == 0, done
    drop.check_imported(upload.tag, upload.model)
    assert left_of(upload, drop) == []


def test_a_control_file_that_a_user_removes(drop: Drop, web: WebServer) -> None:
    """A file whose control file a user removes is judged then, by the bytes that were written of it."""
    upload = drop.upload(Outcome.IMPORTED, suffix=".tar", size=SIZE)
    drop.expect_refusal(upload)
    command = command_of("aria2c that writes zeros", upload, drop, web, slowly=True)
    sent = web.sent_slowly
    with started(command):
        wait_until(lambda: len(left_of(upload, drop)) == 2, 30, "there is a control file")
        wait_until(lambda: web.sent_slowly > sent + (512 << 10), 30, "a part has come")
    (drop.incoming / f"{upload.name}.aria2").unlink()
    assert left_of(upload, drop) == [upload.name, f"{upload.name}.error"]
    assert "bytes never came" in (drop.incoming / f"{upload.name}.error").read_text()
    assert not drop.in_store(upload.tag).exists()


def test_an_archive_whose_name_looks_like_a_control_file(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED, suffix=".tar")
    assert execute("cp", upload.source, drop.incoming / "weights.st").returncode == 0
    drop.check_imported(upload.tag, upload.model)


def test_a_file_of_weights_whose_name_looks_like_a_control_file(drop: Drop, tmp_path: Path) -> None:
    """A file of weights with the name of a control file is no archive, and its user is told."""
    drop.mount.expect_log("weights.st was not imported: this is an unknown kind of file")
    (tmp_path / "weights.st").write_bytes(b"\x01weights" * 1000)
    assert execute("cp", tmp_path / "weights.st", drop.incoming).returncode == 1
    (drop.incoming / "weights.st").unlink()


def test_a_folder_whose_file_is_being_downloaded(drop: Drop, web: WebServer) -> None:
    tag, model = drop.model(SIZE)
    folder = drop.incoming / tag.partition(":")[0]
    url = web.offer("weights.bin", (model / "weights.bin").read_bytes(), slowly=True)
    execute("cp", "-r", model, folder)
    (folder / "weights.bin").unlink()
    command = DOWNLOADERS["aria2c that writes zeros"].command(url, folder, "weights.bin")
    drop.mount.expect_log("a file in it is still being downloaded: sync the directory when [^ ]*.aria2 has gone")
    sent = web.sent_slowly
    with started(command):
        wait_until((folder / "weights.bin.aria2").exists, 30, "there is a control file")
        wait_until(lambda: web.sent_slowly > sent + (512 << 10), 30, "a part has come")
    assert execute("sync", folder).returncode == 1
    assert not drop.in_store(tag).exists()
    web.offer("weights.bin", (model / "weights.bin").read_bytes())
    assert execute(*command).returncode == 0
    assert execute("sync", folder).returncode == 0
    drop.check_imported(tag, model)


def test_an_archive_beside_which_another_with_such_a_name_waits(drop: Drop) -> None:
    first = drop.upload(Outcome.TAKEN, suffix=".tar")
    second = drop.upload(Outcome.IMPORTED, suffix=".tar")
    drop.mount.expect_log("model.st was not imported")
    assert execute("cp", first.source, drop.incoming / "model.st").returncode == 1
    assert execute("cp", second.source, drop.incoming / "model").returncode == 0
    drop.check_imported(second.tag, second.model)
    (drop.incoming / "model.st").unlink()
