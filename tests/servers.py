"""A pytest plugin: real servers on loopback for tests of transfers and remote stores. Each starts when it is first
requested: SeaweedFS and rclone for S3, pyftpdlib for FTP. A proxy before them makes trouble.

Servers keep their data on disk, so that one that was killed and started again still has it. They end with the test
process, also if it is killed.
"""

import contextlib
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import botocore.config
import botocore.session
import pytest

from tests.harness import wait_until

_START_SECONDS = 60.0
# A server ends with the thread that started it (setpriv), so that thread must live as long as this process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="starter")
_BESIDE_PYTHON = Path(sys.executable).parent


def free_port() -> int:
    """Return a port that nobody listens on, and that the system gives to no outgoing connection. A server that is
    started a little later, or again, must still find it free."""
    while True:
        port = random.SystemRandom().randrange(10_240, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class _Server:
    """A server as a subprocess."""

    def __init__(self, base: Path) -> None:
        base.mkdir(parents=True, exist_ok=True)
        self.base = base
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        assert self._process is None, "it runs already"
        with (self.base / "server.log").open("ab") as log:
            self._process = _starter.submit(
                subprocess.Popen[bytes],
                ["setpriv", "--pdeathsig", "KILL", *self._command()],
                cwd=self.base,
                env={**os.environ, "HOME": str(self.base), "TMPDIR": str(self.base)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ).result()
        try:
            wait_until(self._is_up, _START_SECONDS, f"{self.base.name} answers; see {self.base}/server.log", 0.1)
        except BaseException:
            self.kill()
            raise

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.base / "server.log").read_text(errors="replace")[-5000:]
        return self._answers()

    def kill(self) -> None:
        """End it at once. Harmless when it has ended already."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def pause(self) -> None:
        """Stop its answers, while its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class S3Server(_Server):
    """An S3 server that takes only its own keys."""

    honours_conditions = True  # true if it obeys If-None-Match

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.port = free_port()
        self.access_key = "AK" + secrets.token_hex(9).upper()
        self.secret_key = secrets.token_hex(20)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return the environment variables for AWS's own tools."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            # Use nothing of the user who runs the tests, and look for no credentials on a machine in the cloud.
            "AWS_CONFIG_FILE": str(self.base / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.base / "no-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """Return botocore's client, for an independent look at the server's objects."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(
                connect_timeout=5,
                read_timeout=30,
                retries={"max_attempts": 2},
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def new_bucket(self) -> str:
        """Return the name of a bucket that nobody else has."""
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Return all objects of a bucket, with their sizes."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def content(self, bucket: str, key: str) -> bytes:
        found: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return found

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.client().put_object(Bucket=bucket, Key=key, Body=content)

    def unfinished_uploads(self, bucket: str) -> list[str]:
        """Return the keys of multipart uploads that were neither completed nor aborted."""
        found = self.client().list_multipart_uploads(Bucket=bucket)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):  # it is not there yet; this shows in many ways
            self.client().list_buckets()
            return True
        return False


class SeaweedServer(S3Server):
    """SeaweedFS: master, volume server, filer and S3 gateway in one process."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        names = ("master", "volume", "filer")
        self._ports = {name: (free_port(), free_port()) for name in names}
        self._s3_grpc = free_port()

    def _command(self) -> list[str]:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = self.base / "s3.json"
        config.write_text(
            json.dumps({"identities": [{"name": "test", "credentials": credentials, "actions": actions}]})
        )
        # A bucket takes one volume, not seven. There may be many: each test has a bucket.
        (self.base / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        data = self.base / "data"
        data.mkdir(exist_ok=True)
        ports = [
            f"-{name}.{option}={port}"
            for name, (http, grpc) in self._ports.items()
            for option, port in (("port", http), ("port.grpc", grpc))
        ]
        return [
            str(_BESIDE_PYTHON / "weed"),
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *ports,
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=2000",
            "-volume.minFreeSpace=100MiB",
            "-s3",
            "-s3.autoCreateBucket=false",
            f"-s3.port={self.port}",
            f"-s3.port.grpc={self._s3_grpc}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config}",
        ]

    def kill(self) -> None:
        super().kill()
        for port in (self.port, self._s3_grpc, *itertools.chain(*self._ports.values())):
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # wherever TMPDIR is
                left.unlink()

    def _answers(self) -> bool:
        if not super()._answers():
            return False
        with contextlib.suppress(Exception):  # the gateway answers before there is a place for bytes
            client = self.client()
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="is-it-up")
            client.put_object(Bucket="is-it-up", Key="probe", Body=b"x")
            return True
        return False


class RcloneServer(S3Server):
    """`rclone serve s3` of a folder: another implementation that starts fast. It ignores If-None-Match."""

    honours_conditions = False

    def __init__(self, base: Path, *options: str) -> None:
        super().__init__(base)
        self._options = options

    def _command(self) -> list[str]:
        data = self.base / "data"
        data.mkdir(exist_ok=True)
        return [
            str(_BESIDE_PYTHON / "rclone"),
            "serve",
            "s3",
            str(data),
            f"--addr=127.0.0.1:{self.port}",
            f"--auth-key={self.access_key},{self.secret_key}",
            "--vfs-cache-mode=off",
            f"--cache-dir={self.base}/cache",
            f"--config={self.base}/rclone.conf",
            *self._options,
        ]


class FtpServer(_Server):
    """pyftpdlib with one user in its own folder. The password needs quoting in a URL."""

    user = "some@one"
    password = "p@ss/w:rd%"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.port = free_port()
        self.root = base / "root"
        self.root.mkdir(exist_ok=True)

    def _command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "pyftpdlib",
            "--interface=127.0.0.1",
            f"--port={self.port}",
            f"--directory={self.root}",
            "--write",
            f"--username={self.user}",
            f"--password={self.password}",
        ]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return connection.recv(3) == b"220"
        except OSError:
            return False


class Proxy:
    """A TCP proxy on loopback in front of a server. `received` and `sent` count the bytes that clients got and gave.

    `trouble` is the fault: None, or "reset" (connections are reset), "close" (connections end, in good order), "hang"
    (nothing passes any more), "503" (requests of new connections are answered with it), or "refuse" (connections are
    closed at once). `trouble_when`, if set, is called with the proxy while bytes pass, and returns the fault.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = 0
        self.sent = 0
        self.connections = 0
        self.trouble: str | None = None
        self.bytes_per_second: float | None = None
        self.trouble_when: Callable[[Proxy], str | None] | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._ended.set()
        self._listener.close()
        self.reset()

    def reset(self) -> None:
        """Reset all open connections."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), name="proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.trouble_when is not None:
            self.trouble = self.trouble_when(self)
        if self.trouble in ("refuse", "reset"):
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._to), timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._open |= {client, server}
        back = threading.Thread(target=self._pass, args=(server, client, False), name="proxy", daemon=True)
        back.start()
        self._pass(client, server, True)
        back.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _pass(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                if self.bytes_per_second:
                    time.sleep(len(content) / self.bytes_per_second)
                if self.trouble_when is not None:
                    self.trouble = self.trouble_when(self)
                while self.trouble == "hang" and not self._ended.is_set():
                    time.sleep(0.02)  # between two looks
                if self.trouble == "reset":
                    self.reset()
                    return
                if self.trouble == "close":
                    break
                if self.trouble == "503" and is_request and content.partition(b" ")[0].isalpha():
                    source.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    break
                target.sendall(content)
                if is_request:
                    self.sent += len(content)
                else:
                    self.received += len(content)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _running(server: _Server) -> Iterator[Any]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """One SeaweedFS for all tests. Each test has a bucket of its own. Do not stop it: start another one for that."""
    yield from _running(SeaweedServer(tmp_path_factory.mktemp("seaweed")))


@pytest.fixture
def rclone(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RcloneServer]:
    """A `rclone serve s3` for one test, which may kill it and start it again. Its parameter: further options."""
    yield from _running(RcloneServer(tmp_path / "rclone", *getattr(request, "param", ())))


@pytest.fixture
def ftp_server(tmp_path: Path) -> Iterator[FtpServer]:
    """An FTP server for one test, which may kill it and start it again."""
    yield from _running(FtpServer(tmp_path / "ftp"))


@pytest.fixture
def proxies() -> Iterator[Callable[[int], Proxy]]:
    """Give a maker of proxies to ports. They are closed with the test."""
    made: list[Proxy] = []

    def make(port: int) -> Proxy:
        made.append(Proxy(port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
