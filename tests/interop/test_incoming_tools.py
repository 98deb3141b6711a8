"""Every tool that copies a model into `incoming/` learns the outcome. The rows are the design's table of tools, each
with the real tool, once with success and once with every kind of refusal."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.harness import run
from tests.interop.conftest import SshServer
from tests.interop.uploads import Drop, Outcome, Upload, WebServer, execute, shell


@dataclass(frozen=True)
class Bench:
    """The folders where the tools work."""

    drop: Drop
    web: WebServer
    ssh: SshServer

    @property
    def incoming(self) -> Path:
        return self.drop.incoming

    @property
    def login(self) -> str:
        return f"{run('id', '-un').stdout.strip()}@127.0.0.1"


@pytest.fixture(scope="module")
def bench(drop: Drop, web: WebServer, ssh_server: SshServer) -> Bench:
    return Bench(drop, web, ssh_server)


Sends = Callable[[Bench, Upload], "CompletedProcess[str]"]

_SHUTIL = "import shutil, sys; getattr(shutil, sys.argv[1])(sys.argv[2], sys.argv[3])"
_WRITE = "import sys; f = open(sys.argv[2], 'wb'); f.write(open(sys.argv[1], 'rb').read()); f.close()"
_TO_STDOUT = "import os, sys; os.write(1, open(sys.argv[1], 'rb').read())"
# A slow writer that goes on for long after the refusal.
_SLOWLY = "import os, time; [(os.write(1, b'no archive' * 6554), time.sleep(0.05)) for _ in range(150)]"
_NODE_WRITE = "const fs = require('fs'); fs.writeFileSync(process.argv[2], fs.readFileSync(process.argv[1]))"
_NODE_COPY = "require('fs').copyFileSync(process.argv[1], process.argv[2])"


def _copy(*command: str) -> Sends:
    """Make a command that takes a source and the folder to copy to."""
    return lambda bench, upload: execute(*command, upload.source, bench.incoming)


def _to_file(*command: str) -> Sends:
    """Make a command that takes a source and the file to write."""
    return lambda bench, upload: execute(*command, upload.source, bench.incoming / upload.name)


def _in_shell(script: str) -> Sends:
    """Make a script that reads $1 and writes $2."""
    return lambda bench, upload: shell(script, upload.source, bench.incoming / upload.name)


def _tar(bench: Bench, upload: Upload) -> "CompletedProcess[str]":
    outer = bench.drop.folder() / "outer.tar"
    run("tar", "-cf", outer, "-C", upload.source.parent, upload.name)
    return execute("tar", "-xf", outer, "-C", bench.incoming)


def _bsdtar(bench: Bench, upload: Upload) -> "CompletedProcess[str]":
    outer = bench.drop.folder() / "outer.tar"
    run("tar", "-cf", outer, "-C", upload.source.parent, upload.name)
    return execute("bsdtar", "-xf", outer, "-C", bench.incoming)


def _dd(*options: str) -> Sends:
    return lambda bench, upload: execute("dd", f"if={upload.source}", f"of={bench.incoming / upload.name}", *options)


def _scp(*options: str) -> Sends:
    return lambda bench, upload: execute(
        "scp", *options, *bench.ssh.options, upload.source, f"{bench.login}:{bench.incoming}/"
    )


def _sftp(bench: Bench, upload: Upload) -> "CompletedProcess[str]":
    batch = bench.drop.folder() / "batch"
    batch.write_text(f"put {upload.source} {bench.incoming}/\n")
    return execute("sftp", "-b", batch, *bench.ssh.options, bench.login)


def _curl(bench: Bench, upload: Upload) -> "CompletedProcess[str]":
    url = bench.web.offer(upload.name, upload.source.read_bytes())
    return execute("curl", "-sS", "-o", bench.incoming / upload.name, url)


def _unzip(bench: Bench, upload: Upload) -> "CompletedProcess[str]":
    outer = bench.drop.folder() / "outer.zip"
    run("zip", "-q", "-j", outer, upload.source)
    return execute("unzip", "-q", outer, "-d", bench.incoming)


def _wget(bench: Bench, upload: Upload) -> "CompletedProcess[str]":
    url = bench.web.offer(upload.name, upload.source.read_bytes())
    return execute("wget", "-q", "-P", bench.incoming, url)


def _curl_to_stdout(bench: Bench, upload: Upload) -> "CompletedProcess[str]":
    url = bench.web.offer(upload.name, upload.source.read_bytes())
    return shell('curl -sS "$1" >"$2"', url, bench.incoming / upload.name)


def _rsync_by_ssh(bench: Bench, upload: Upload) -> "CompletedProcess[str]":
    remote = " ".join(["ssh", *bench.ssh.options])
    return execute("rsync", "-a", "-e", remote, upload.source, f"{bench.login}:{bench.incoming}/")


@dataclass(frozen=True)
class Tool:
    """A tool that obeys the result of closing or renaming its output."""

    sends: Sends
    code: int = 1  # its exit code after a failure
    says: bool = True  # true if it prints the error
    stays: bool = True  # true if it leaves the refused file in incoming/


HEEDING = {
    "cp": Tool(_copy("cp")),
    "cp -p": Tool(_copy("cp", "-p")),
    "cp --sparse=always": Tool(_copy("cp", "--sparse=always")),
    "busybox cp": Tool(_copy("busybox", "cp")),
    "busybox dd": Tool(
        lambda bench, upload: execute(
            "busybox", "dd", f"if={upload.source}", f"of={bench.incoming / upload.name}", "bs=64k"
        )
    ),
    "install": Tool(_copy("install")),
    "mv": Tool(_copy("mv")),
    "dd": Tool(_dd()),
    "dd odd": Tool(_dd("bs=777")),
    "dd fsync": Tool(_dd("bs=64K", "conv=fsync")),
    "tee": Tool(_in_shell('tee "$2" <"$1" >/dev/null')),
    "cat": Tool(_in_shell('cat "$1" >"$2"')),
    "head": Tool(_in_shell('head -c 1G "$1" >"$2"')),
    "tar": Tool(_tar, code=2),
    "scp": Tool(_scp(), says=False),
    "scp -O": Tool(_scp("-O")),
    "scp -p": Tool(_scp("-p"), says=False),
    "sftp": Tool(_sftp, says=False),
    "curl": Tool(_curl, code=23, says=False),
    "shutil.copy": Tool(_to_file(sys.executable, "-c", _SHUTIL, "copy")),
    "shutil.copy2": Tool(_to_file(sys.executable, "-c", _SHUTIL, "copy2")),
    "python": Tool(_to_file(sys.executable, "-c", _WRITE)),
    "node copyFileSync": Tool(_to_file("node", "-e", _NODE_COPY), says=False, stays=False),
    "node writeFileSync": Tool(_to_file("node", "-e", _NODE_WRITE), says=False),
    "rsync": Tool(_copy("rsync", "-a"), code=23),
    "rsync without -t": Tool(_copy("rsync"), code=23),
    # Without a rename, close fails, which rsync reports as an error in file IO.
    "rsync --inplace": Tool(_copy("rsync", "-a", "--inplace"), code=11),
    "rsync over ssh": Tool(_rsync_by_ssh, code=23),
}


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("name", HEEDING)
def test_tool_learns_the_outcome(bench: Bench, name: str, outcome: Outcome) -> None:
    tool, upload = HEEDING[name], bench.drop.upload(outcome)
    # Keep a copy to compare: some tools, such as mv, remove the source.
    sent = Upload(bench.drop.folder() / upload.name, upload.model, upload.tag, outcome)
    shutil.copy2(upload.source, sent.source)
    done = tool.sends(bench, sent)
    assert done.returncode == (tool.code if outcome.value else 0), done
    if outcome.value and tool.says:
        assert os.strerror(outcome.value).lower() in (done.stdout + done.stderr).lower()
    bench.drop.check(upload, stays=tool.stays)
    assert sent.source.exists() == (name != "mv" or bool(outcome.value)), "mv keeps its source on an error"


# These tools close their output without checking the result. The reason is in the note, the log and the record.
IGNORING = {
    "bsdtar": _bsdtar,
    "unzip": _unzip,
    "wget": _wget,
    "curl > f": _curl_to_stdout,
    "python > f": _in_shell(f'{sys.executable} -c "{_TO_STDOUT}" "$1" >"$2"'),
    "openssl -out f": _in_shell('openssl enc -base64 -A -d -in <(base64 -w0 "$1") -out "$2"'),
}


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("name", IGNORING)
def test_programs_that_ignore_close(bench: Bench, name: str, outcome: Outcome) -> None:
    upload = bench.drop.upload(outcome)
    done = IGNORING[name](bench, upload)
    if outcome is not Outcome.NO_ARCHIVE:  # a write may already report that
        assert done.returncode == 0, done
    bench.drop.check(upload)
    if outcome.value:
        bench.drop.check_recorded(upload)


@pytest.mark.parametrize("name", ["curl > f", "python > f", "cat > f"])
def test_error_known_early_fails_a_write(bench: Bench, name: str) -> None:
    """A program that ignores close does not ignore write, and does not send gigabytes in vain."""
    upload = bench.drop.upload(Outcome.NO_ARCHIVE)
    junk = b"This is no archive.\n" * 500_000
    target = bench.incoming / upload.name
    if name == "curl > f":
        url = bench.web.offer(upload.name, junk, slowly=True)
        done = shell('curl -sS "$1" >"$2"', url, target)
        assert done.returncode == 23, done
    elif name == "python > f":
        done = shell(f'{sys.executable} -c "{_SLOWLY}" >"$1"', target)
        assert "Invalid argument" in done.stderr
    else:
        done = shell('(while echo "This is no archive."; do :; done) | (sleep 1; cat >"$1")', target)
        assert "Invalid argument" in done.stderr
    assert target.stat().st_size < len(junk) // 2
    bench.drop.check(upload)
    bench.drop.check_recorded(upload)


def test_mv_from_another_file_system(drop: Drop) -> None:
    """mv also works from memory. The other tests use a disk, which is another file system too."""
    for outcome in (Outcome.IMPORTED, Outcome.TRUNCATED):
        upload = drop.upload(outcome)
        source = Path("/dev/shm") / f"bentofs-test-{os.getpid()}" / upload.name
        source.parent.mkdir()
        try:
            shutil.copy2(upload.source, source)
            assert execute("mv", source, drop.incoming).returncode == (1 if outcome.value else 0)
            assert source.exists() == bool(outcome.value)
        finally:
            shutil.rmtree(source.parent)
        drop.check(upload)


@pytest.mark.parametrize("outcome", Outcome)
def test_gzip_beside_its_input(drop: Drop, outcome: Outcome) -> None:
    """gzip writes its output beside its input, and removes it when closing it fails."""
    upload = drop.upload(outcome, suffix=".tar")
    on_its_way = drop.incoming / f"{upload.name}.part"
    run("cp", upload.source, on_its_way)
    done = execute("gzip", "-k", on_its_way)
    zipped = Upload(upload.source.with_name(f"{on_its_way.name}.gz"), upload.model, upload.tag, outcome)
    assert done.returncode == (1 if outcome.value else 0), done
    if outcome.value:
        assert os.strerror(outcome.value) in done.stderr
        drop.check(zipped, stays=False)
    else:
        drop.check_imported(upload.tag, upload.model)
    run("rm", on_its_way)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("program", ["gzip", "xz -0", "bzip2", "pigz", "zstd"])
def test_compressors_into_a_redirection(drop: Drop, program: str, outcome: Outcome) -> None:
    upload = drop.upload(outcome, suffix=".tar")
    packed = Upload(drop.folder() / upload.name, upload.model, upload.tag, outcome)
    assert shell(f'{program} -c "$1" >"$2"', upload.source, packed.source).returncode == 0
    done = shell(f'{program} -c "$1" >"$2"', upload.source, drop.incoming / packed.name)
    if program in ("gzip", "xz -0"):  # the others ignore the result of close
        assert (done.returncode != 0) == bool(outcome.value), done
    drop.check(packed)
