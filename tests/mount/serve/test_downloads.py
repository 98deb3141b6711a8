"""`bentofs serve`: programs that download with ranges, over connections that break."""

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from tests.harness import make_model, run, wait_until
from tests.servers import Proxy
from tests.serving import Served
from tests.waiting import wait_until_settled

SIZE = 12 << 20
TAR = "/models/iris/v1/iris-v1.tar"
WHEEL = "tool-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("server")
    wheel = base / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tool/__init__.py", b"")
        file.writestr("tool/weights.bin", os.urandom(300_000))
        file.writestr("tool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n")
        file.writestr("tool-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("tool-1.0.dist-info/RECORD", "tool/__init__.py,,\n")
    make_model(base / "models", "iris:v1", {"w.bin": os.urandom(SIZE), WHEEL: wheel.read_bytes()})
    wait_until_settled(base / "models")
    with Served(base / "models", base) as server:
        yield server


@pytest.fixture
def breaking(server: Served, proxies: Callable[[int], Proxy]) -> Iterator[Proxy]:
    """A proxy to the server that resets all connections once 5 MB have come, and then works."""
    proxy = proxies(server.address[1])
    broken: list[int] = []

    def trouble(proxy: Proxy) -> str | None:
        if not broken and proxy.received > 5_000_000:
            broken.append(proxy.received)
            return "reset"
        return None

    proxy.trouble_when = trouble
    yield proxy
    assert broken


@pytest.mark.parametrize(
    "command",
    [
        ["curl", "-sSf", "--retry", "5", "--retry-all-errors", "--retry-delay", "1", "-C", "-", "-o", "got"],
        ["wget", "-q", "-c", "-t", "5", "--waitretry", "1", "-O", "got"],
        ["aria2c", "-q", "-x4", "-s4", "-k1M", "-m5", "--retry-wait=1", "--file-allocation=none", "-o", "got"],
    ],
    ids=lambda command: str(command[0]),
)
def test_a_connection_that_breaks(server: Served, breaking: Proxy, tmp_path: Path, command: list[str]) -> None:
    want = server.get(TAR).body
    run(*command, f"{breaking.endpoint}{TAR}", cwd=tmp_path)
    assert (tmp_path / "got").read_bytes() == want
    assert breaking.received < len(want) * 1.7


def test_pip(server: Served, tmp_path: Path) -> None:
    """It reads the listing of a directory for links, and a wheel's metadata by ranges."""
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "download", "--no-index"]
    page = f"{server.url}/models/iris/v1/files/"
    run(*pip, "--no-deps", "--use-feature=fast-deps", "--no-cache-dir", "--find-links", page, "tool", cwd=tmp_path)
    assert (tmp_path / WHEEL).read_bytes() == server.get(f"/models/iris/v1/files/{WHEEL}").body
    (tmp_path / WHEEL).unlink()
    run(*pip, "--no-deps", "--no-cache-dir", f"{page}{WHEEL}", cwd=tmp_path)
    assert zipfile.ZipFile(tmp_path / WHEEL).testzip() is None


def test_a_member_of_a_zip_by_ranges(server: Served) -> None:
    """Little more than the member is moved."""
    url = f"{server.url}/models/iris/v1/iris-v1.zip"
    server.ask("HEAD", "/models/iris/v1/iris-v1.zip")
    before = moved(server)
    with fsspec.open(url, "rb", block_size=64 << 10) as file, zipfile.ZipFile(file) as archive:
        assert archive.read(WHEEL) == server.get(f"/models/iris/v1/files/{WHEEL}").body
    wait_until(lambda: moved(server) - before > 300_000, 5, "the server counts what it sent")
    assert moved(server) - before < 1_000_000


def moved(server: Served) -> int:
    """Return how many bytes of zips were read."""
    metrics = server.get("/.bentofs/metrics").body.decode()
    found = re.search(r'^bentofs_read_bytes_total\{kind="zip"\} (\d+)', metrics, re.MULTILINE)
    return int(found[1]) if found else 0
