"""Releases of real BentoML as judges, stores that they made, mounts to copy into, a web server and an sshd. Each is
made once for many tests."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, Mounted, ended, home_of, run, wait_until
from tests.interop.judge_server import server_of
from tests.interop.uploads import Drop, WebServer, serving

JUDGES = ("1.4", "1.2")  # the newest of 1.4, and 1.2.20, which saves and reads archives by other code
RELEASES = ("1.4", "1.4.39", "1.3.22", "1.2")  # all that read our archives differently from their neighbours, or may


@dataclass(frozen=True)
class Judge:
    """One release of BentoML, in the environment that scripts/test made for it."""

    release: str

    @property
    def python(self) -> Path:
        python = ROOT / f".venv-bentoml-{self.release}" / "bin" / "python"
        assert python.exists(), f"{python} is missing: run ./scripts/test once, it installs BentoML there"
        return python

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.python), "-W", "ignore", str(ROOT / "tests" / "interop" / "judge.py"), *arguments]

    def _environment(self, base: Path) -> dict[str, str]:
        # Usage tracking off: a test must not talk to anyone.
        return {**os.environ, **home_of(base), "BENTOML_DO_NOT_TRACK": "True"}

    def run(self, base: Path, *arguments: str) -> str:
        """Run a command of judge.py with the home below `base`. Return its output."""
        server = server_of(self._command(), os.environ)
        return server.run(arguments, self._environment(base), seconds=180)

    def start(self, base: Path, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command(*arguments), env=self._environment(base), stdin=subprocess.DEVNULL)

    def cli(self, base: Path, *arguments: str) -> str:
        return run(self.python.with_name("bentoml"), *arguments, env=self._environment(base), seconds=120).stdout

    def imported(self, base: Path, *items: str) -> dict[str, dict[str, Any]]:
        """Import paths, or `path::format`, into a home. Return the judge's description of every model in it."""
        found: dict[str, dict[str, Any]] = json.loads(self.run(base, "imported", *items))
        return found

    def describe(self, base: Path, *tags: str) -> dict[str, dict[str, Any]]:
        """Return the judge's description of every model of a home, or of the models that it gets by these tags."""
        found: dict[str, dict[str, Any]] = json.loads(self.run(base, "describe", *tags))
        return found


@pytest.fixture(params=JUDGES)
def judge(request: pytest.FixtureRequest) -> Judge:
    return Judge(request.param)


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> Judge:
    """Each release that is tested."""
    return Judge(request.param)


@pytest.fixture(scope="session", params=JUDGES, ids=lambda release: f"made-by-{release}")
def made_by_bentoml(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store (bentoml/models) holds models that this release of BentoML made."""
    base = tmp_path_factory.mktemp(f"made-by-{request.param}")
    Judge(request.param).run(base, "save")
    return base


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drop]:
    """A mount of an empty store, for the tests of one file."""
    base = tmp_path_factory.mktemp("incoming")
    (base / "store").mkdir()
    with Mounted(base / "store", base / "mount") as mount:
        yield Drop(mount, base / "scratch")


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with serving() as server:
        yield server


@dataclass(frozen=True)
class SshServer:
    """A real sshd on loopback. The user of this process can log in with a key made for it."""

    port: int
    options: tuple[str, ...]
    key: Path
    known_hosts: Path


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    base = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", base / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host_key = (base / "host.pub").read_text()
    (base / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (base / "config").write_text(
        f"""ListenAddress 127.0.0.1
Port {port}
HostKey {base}/host
PidFile {base}/pid
AuthorizedKeysFile {base}/user.pub
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM {"yes" if _account_is_locked() else "no"}
Subsystem sftp internal-sftp
"""
    )
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert sshd, "sshd is missing: run ./scripts/test, it installs openssh-server"
    separation = Path("/run/sshd")  # needed by sshd when root starts it; Debian makes it with the service
    made_here = os.geteuid() == 0 and not separation.exists()
    if made_here:
        separation.mkdir(mode=0o755)
    options = {
        "Port": port,
        "IdentityFile": base / "user",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": base / "known_hosts",
        "BatchMode": "yes",
        "ConnectTimeout": 10,
    }
    arguments = tuple(part for name, value in options.items() for part in ("-o", f"{name}={value}"))
    try:
        with (
            (base / "log").open("wb") as log,
            ended(subprocess.Popen([sshd, "-D", "-e", "-f", str(base / "config")], stderr=log)) as process,
        ):

            def greets() -> bool:
                assert process.poll() is None, (base / "log").read_text()
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                        return connection.recv(4) == b"SSH-"
                except OSError:
                    return False

            wait_until(greets, 20, "sshd greets")
            yield SshServer(port, ("-F", "/dev/null", *arguments), base / "user", base / "known_hosts")
    finally:
        if made_here:
            separation.rmdir()


def _account_is_locked() -> bool:
    """Tell whether the account's password is locked, as root's is on many machines. sshd without PAM refuses such an
    account."""
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except PermissionError:
        return False
    return any(line.startswith("root:!") for line in lines)
