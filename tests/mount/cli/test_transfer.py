"""`bentofs export` and `bentofs import`: their output, their exit status, and that secrets stay secret."""

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, ended, home_of, make_model, run, wait_until
from tests.servers import FtpServer, Proxy, S3Server

_SECRET = "do-not-tell-9f8e7d"


class Shell:
    """Run `bentofs` in its own directory. Two tests of one command do not share homes."""

    def __init__(self, base: Path) -> None:
        self.base = base / "work"
        self.base.mkdir()
        self.environment = {**os.environ, **home_of(base), "PYTHONPATH": str(ROOT)}
        self.store = base / "bentoml" / "models"
        self.other = base / "other"
        self.other.mkdir()

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "bentofs.mount", *map(str, arguments)]

    def __call__(self, *arguments: str | Path, **options: object) -> "subprocess.CompletedProcess[bytes]":
        options.setdefault("env", self.environment)
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            self.command(*arguments), cwd=self.base, capture_output=True, timeout=60, check=False, **options
        )

    def succeeds(self, *arguments: str | Path, **options: object) -> str:
        done = self(*arguments, **options)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode()

    def fails(self, status: int, *arguments: str | Path, **options: object) -> str:
        """Assert that the command fails with one sentence and this status; return its stderr."""
        done = self(*arguments, **options)
        errors = done.stderr.decode()
        assert done.returncode == status, done
        assert "Traceback" not in errors
        if status != 2:
            assert re.fullmatch(r"bentofs: [^\n]+\n", errors), errors
        return errors


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    make_model(shell.store, "iris:v1", {"w": os.urandom(3 << 20)}, creation_time="2026-01-01T00:00:00+00:00")
    make_model(shell.store, "iris:v2", {"w": b"2"})
    yield shell
    assert not any(Path(shell.environment["TMPDIR"]).iterdir())


def test_there_and_back(shell: Shell) -> None:
    said = shell.succeeds("export", "iris:v1", "m.tar")
    assert re.fullmatch(rf"iris:v1 -> {shell.base}/m\.tar \(3\.2 MB, \d+\.\d s\)\n", said), said
    said = shell.succeeds("import", "m.tar", "--store", shell.other)
    assert re.fullmatch(rf"{shell.base}/m\.tar -> iris:v1: imported \(3\.2 MB, .* s\)\n", said), said
    assert ": unchanged (" in shell.succeeds("import", "m.tar", "--store", shell.other)
    assert shell.succeeds("import", "m.tar", "--store", shell.other, "--quiet") == ""
    assert shell.succeeds("export", "iris", "--quiet") == ""
    assert (shell.base / "iris-v2.bentomodel").exists()


def test_json(shell: Shell) -> None:
    said = json.loads(shell.succeeds("export", "iris:v1", "m.tar", "--json", "--sha256"))
    digest = (shell.base / "m.tar.sha256").read_text().split()[0]
    assert said.pop("seconds") >= 0
    size = (shell.base / "m.tar").stat().st_size
    assert said == {"tag": "iris:v1", "url": f"{shell.base}/m.tar", "size": size, "sha256": digest}
    said = json.loads(shell.succeeds("import", "m.tar", "--json", "--store", shell.other))
    assert (said["tag"], said["outcome"], said["sha256"], said["size"]) == ("iris:v1", "imported", digest, size)
    done = shell("import", "m.tar", "missing", "--json", "--store", shell.other)
    assert [json.loads(line).get("status", 0) for line in sorted(done.stdout.splitlines())] == [3, 0]


def test_what_macos_adds_is_left_out_and_said(shell: Shell) -> None:
    run("cp", "-r", shell.store / "iris/v1", shell.base / "mac")
    (shell.base / "mac/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    run("tar", "-cf", "m.tar", "-C", "mac", ".", cwd=shell.base)
    said = shell.succeeds("import", "m.tar", "--store", shell.other)
    assert ": imported; left out 1 file that macOS adds: .DS_Store (" in said
    said = json.loads(shell.succeeds("import", "mac/", "--json", "--store", shell.other))
    assert (said["outcome"], said["note"]) == ("unchanged", "left out 1 file that macOS adds: .DS_Store")


def test_a_store_that_is_not_there_is_made(shell: Shell) -> None:
    archive = shell.base / "m.tar"
    shell.succeeds("export", "iris:v1", archive)
    shell.succeeds("import", archive, "--store", "new/deep/models")
    shell.succeeds("import", "-", "--store", "piped", input=archive.read_bytes())
    for store in ("new/deep/models", "piped"):
        subprocess.run(["diff", "-r", shell.store / "iris/v1", shell.base / store / "iris/v1"], check=True)
    assert "no model store" in shell.fails(3, "export", "iris:v1", "x.tar", "--store", "nowhere")
    assert not (shell.base / "nowhere").exists()
    (shell.base / "file").write_bytes(b"")
    assert "no model store" in shell.fails(3, "import", archive, "--store", "file")
    assert "Not a directory" in shell.fails(1, "import", archive, "--store", "file/models")


def test_many_at_once(shell: Shell) -> None:
    make_model(shell.store, "a-b:c", {"x": b"1"})
    make_model(shell.store, "a:b-c", {"x": b"2"})
    said = shell.succeeds("export", "--all", "all/", "--format", "zip", "--jobs", "4")
    assert said.count(" -> ") == 4
    found = sorted(str(path.relative_to(shell.base)) for path in shell.base.rglob("*.zip"))
    # Two tags with the same file name get a directory each.
    assert found == ["all/a-b/a-b-c.zip", "all/a/a-b-c.zip", "all/iris-v1.zip", "all/iris-v2.zip"]
    shell.succeeds("import", *found, "--store", shell.other)
    subprocess.run(["diff", "-r", str(shell.store), str(shell.other)], check=True)
    shell.succeeds("export", "iris:v1", "iris:v2", "two/", "--format", "folder")
    assert sorted(os.listdir(shell.base / "two")) == ["iris-v1", "iris-v2"]
    assert "several models" in shell.fails(2, "export", "iris:v1", "iris:v2", "file.zip")
    # --all writes the same layout for one model as for several.
    one = shell.base / "one"
    make_model(one, "iris:v1", {"x": b"1"})
    for options in ((), ("--format", "folder")):
        shell.succeeds("export", "--all", "of-one", "--store", one, *options)
    assert sorted(os.listdir(shell.base / "of-one")) == ["iris-v1", "iris-v1.bentomodel"]
    (shell.base / "missing").mkdir()
    done = shell("export", "no:v1", "iris:v1", "missing/", "--json")
    assert [json.loads(line).get("status", 0) for line in sorted(done.stdout.splitlines())] == [3, 0]
    assert os.listdir(shell.base / "missing") == ["iris-v1.bentomodel"]


def test_standard_input_and_output(shell: Shell) -> None:
    done = shell("export", "iris:v1", "-", "--format", "tar")
    assert done.returncode == 0
    assert b"iris:v1 -> standard output" in done.stderr
    (shell.base / "m.tar").write_bytes(done.stdout)
    with tarfile.open(shell.base / "m.tar") as archive:
        assert archive.getnames() == ["model.yaml", "w"]
    assert "standard input -> " not in shell.succeeds(
        "import", "-", "--store", shell.other, input=done.stdout, env=shell.environment
    )
    with (shell.base / "m.tar").open("rb") as file:
        assert ": unchanged" in shell.succeeds("import", "-", "--store", shell.other, stdin=file)
    done = shell("export", "iris:v1", "-", "--format", "zip", "--quiet")
    assert done.stderr == b""
    # Import a zip with a link from a pipe. Only the zip's central directory, at the end, says that it is a link.
    (shell.store / "iris/v1/link").symlink_to("w")
    subprocess.run(["zip", "-qry", str(shell.base / "m.zip"), "."], cwd=shell.store / "iris/v1", check=True)
    (shell.other / "iris/v1").rename(shell.base / "old")
    shell.succeeds("import", "-", "--store", shell.other, input=(shell.base / "m.zip").read_bytes())
    assert (shell.other / "iris/v1/link").read_bytes() == (shell.store / "iris/v1/w").read_bytes()
    assert "one archive" in shell.fails(2, "export", "iris:v1", "iris:v2", "-")


def test_a_shells_targets(shell: Shell) -> None:
    """Targets like /dev/stdout are written in place. Messages are not mixed into them."""
    shell.succeeds("export", "iris:v1", "expected.tar")
    script = """
        { printf head; $B export iris:v1 /dev/stdout --format tar; } > appended
        $B export iris:v1 /dev/stdout --format tar | cat > piped
        $B export iris:v1 >(cat > substituted) --format tar --quiet
        $B export iris:v1 /dev/fd/7 --format tar 7>&1 | cat > merged
    """
    environment = shell.environment | {"B": shlex.join(shell.command())}
    subprocess.run(["bash", "-ec", script], cwd=shell.base, env=environment, timeout=180, check=True)
    expected = (shell.base / "expected.tar").read_bytes()
    assert (shell.base / "appended").read_bytes() == b"head" + expected
    for name in ("piped", "merged"):
        assert (shell.base / name).read_bytes() == expected, name
    # bash does not wait for this process.
    wait_until(lambda: (shell.base / "substituted").read_bytes() == expected, 20, "the substituted process ends")
    # The command itself opens files. One of them gets this number.
    assert "/dev/fd/9 cannot be written: it is not open" in shell.fails(1, "export", "iris:v1", "/dev/fd/9")
    assert "takes one archive" in shell.fails(2, "export", "iris:v1", "/dev/stdout", "--sha256")
    assert "takes one archive" in shell.fails(2, "export", "--all", "/dev/stdout")


def test_a_last_tag_is_not_taken_for_a_path(shell: Shell) -> None:
    assert "is a tag where a PATH belongs" in shell.fails(2, "export", "iris:v1", "lily:v1")
    assert not list(shell.base.glob("*.bentomodel"))
    shell.succeeds("export", "iris:v1", "./lily:v1")
    assert (shell.base / "lily:v1.bentomodel").is_file()
    assert "localhost:1" in shell.fails(
        7, "export", "iris:v1", "localhost:1", "--protocol", "ftp", "--subpath", "a.zip"
    )


def test_closed_standard_input_and_output(shell: Shell) -> None:
    for arguments, name in ((("export", "iris:v1", "-"), "output"), (("import", "-"), "input")):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-m", "bentofs.mount", *arguments],
            cwd=ROOT,
            env=shell.environment,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert re.fullmatch(rf"bentofs: .*standard {name} cannot be .*: Bad file descriptor\n", done.stderr)


def _polls(pid: int) -> bool:
    with contextlib.suppress(OSError):  # a thread ended meanwhile
        return any("poll" in (task / "wchan").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_standard_input_is_silent(shell: Shell, number: signal.Signals) -> None:
    reader, writer = os.pipe()
    try:
        with ended(
            subprocess.Popen(
                ["env", "--default-signal=INT", *shell.command("import", "-", "--store", shell.other)],
                cwd=shell.base,
                env=shell.environment,
                stdin=reader,
                stderr=subprocess.PIPE,
                text=True,
            )
        ) as process:
            wait_until((shell.other.parent / ".other.bentofs" / "receipts.sqlite").exists, 20, "the import begins")
            wait_until(lambda: _polls(process.pid), 20, "the import waits for standard input")
            process.send_signal(number)
            _, told = process.communicate(timeout=10)
        assert process.returncode == 130
        assert told.startswith("bentofs: interrupted")
    finally:
        os.close(reader)
        os.close(writer)


def test_statuses(shell: Shell) -> None:
    shell.succeeds("export", "iris:v1", "m.tar")
    shell.fails(2, "export")
    shell.fails(2, "export", "iris:v1", "m", "--format", "rar")
    shell.fails(2, "export", "iris:v1", "nope://x")
    shell.fails(2, "export", "Not A Tag", "x")
    shell.fails(3, "export", "missing:v1", "x")
    shell.fails(3, "import", "missing.tar")
    shell.fails(4, "import", _other_content(shell, "m2.tar"))
    (shell.base / "junk").write_bytes(b"junk" * 1000)
    shell.fails(5, "import", "junk")
    (shell.base / "cut.tar").write_bytes((shell.base / "m.tar").read_bytes()[:100_000])
    shell.fails(5, "import", "cut.tar")
    shell.fails(5, "import", "m.tar", "--format", "zip")
    shell.fails(6, "export", "iris:v1", "/dev/full", "--format", "tar")
    aws = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": _SECRET}
    assert _SECRET not in shell.fails(7, "import", "s3://b/k", env=shell.environment | aws)


def _other_content(shell: Shell, name: str) -> str:
    make_model(shell.other, "iris:v1", {"w": b"other"})
    shell.succeeds("export", "iris:v1", name, "--store", shell.other)
    return name


def test_denied_and_credentials_from_the_environment(shell: Shell, ftp_server: FtpServer) -> None:
    url = f"ftp://127.0.0.1:{ftp_server.port}/m.tar"
    said = shell.fails(8, "export", "iris:v1", f"ftp://me:{_SECRET}@127.0.0.1:{ftp_server.port}/m.tar")
    assert _SECRET not in said
    environment = shell.environment | {"BENTOFS_USER": ftp_server.user, "BENTOFS_PASSWD": ftp_server.password}
    said = shell.succeeds("export", "iris:v1", url, env=environment)
    assert ftp_server.password not in said
    assert (ftp_server.root / "m.tar").exists()
    parts = ("--protocol", "ftp", "--subpath", "m.tar", "--user", ftp_server.user, "--passwd", ftp_server.password)
    shell.succeeds("import", f"127.0.0.1:{ftp_server.port}", *parts, "--store", shell.other)
    assert _SECRET not in shell.fails(2, "import", f"ftp://me:{_SECRET}@host/x", "--passwd", _SECRET)


def test_no_secret_among_the_arguments_that_others_see(
    shell: Shell, seaweed: S3Server, proxies: Callable[[int], Proxy]
) -> None:
    proxy = proxies(seaweed.port)
    proxy.trouble = "hang"
    environment = shell.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}
    url = f"s3://me:{_SECRET}@bucket/m.tar?token={_SECRET}"
    command = shell.command("export", "iris:v1", url)
    with ended(subprocess.Popen(command, env=environment, cwd=shell.base, stderr=subprocess.DEVNULL)) as process:
        wait_until(lambda: proxy.connections, 30, "it connects")
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert _SECRET.encode() not in seen
    assert b"s3://bucket/m.tar" in seen
    parts = ("--protocol", "s3", "--user", "me", "--passwd", _SECRET)
    command = shell.command("export", "iris:v1", "bucket/m.tar", *parts)
    with ended(subprocess.Popen(command, env=environment, cwd=shell.base, stderr=subprocess.DEVNULL)) as process:
        before = proxy.connections
        wait_until(lambda: proxy.connections > before, 30, "it connects")
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert _SECRET.encode() not in seen


def test_secrets_are_hidden_before_anything_else_is_loaded(shell: Shell) -> None:
    """Until then, all users can read them. So the process needs nothing of the commands or the library."""
    script = """
import os, sys
from bentofs.mount.__main__ import main
def hide(program, command, environment):
    loaded = [name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names]
    print(*sorted(loaded), *map(os.fsdecode, command), sep="\\n")
    sys.stdout.flush()
    os._exit(0)
os.execve = hide
main()
"""
    command = [sys.executable, "-S", "-c", script, "list", "--store", f"s3://me:{_SECRET}@b/p", "--timeout=1"]
    paths = os.pathsep.join([str(ROOT / ".src"), *(path for path in sys.path if path.endswith("site-packages"))])
    environment = shell.environment | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("bentofs")] == [
        "bentofs",
        "bentofs.mount",
        "bentofs.mount.__main__",
        "bentofs.mount.daemon",
        "bentofs.mount.daemon.argv_secrets",
        "bentofs.store",
        "bentofs.store.util",
        "bentofs.store.util.display",
        "bentofs.store.util.urls",
    ]
    assert "click" not in done.stdout.splitlines()
    assert done.stdout.splitlines()[-4:] == ["list", "--store", "s3://b/p", "--timeout=1"]


def test_progress_on_a_terminal(shell: Shell) -> None:
    """The progress bar shows amount, rate and remaining time. Without a terminal there is no bar."""
    os.mkfifo(shell.base / "slow")
    ours, theirs = pty.openpty()
    try:
        command = shell.command("export", "iris:v1", "slow", "--format", "tar")
        with ended(
            subprocess.Popen(
                command,
                env=shell.environment | {"TERM": "xterm", "COLUMNS": "120"},
                cwd=shell.base,
                stdout=subprocess.DEVNULL,
                stderr=theirs,
            )
        ) as process:
            seen = ""

            def shows_rate() -> bool:
                nonlocal seen
                seen += os.read(ours, 10_000).decode(errors="replace")
                return bool(re.search(r"iris:v1.*%.*/3\.\d MB.*/s.*\d:\d\d", seen))

            with (shell.base / "slow").open("rb") as pipe:
                pipe.read(1 << 20)
                wait_until(shows_rate, 20, "a bar is shown")
                while pipe.read(1 << 20):
                    pass
            assert process.wait(20) == 0
    finally:
        os.close(ours)
        os.close(theirs)
