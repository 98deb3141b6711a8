"""The client of a bucket: which requests need the library, and what a cancellation ends."""

import contextlib
import http.server
import os
import signal
import threading
from pathlib import Path

import pytest

from bentofs.store.clients import s3_shortcut
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.clients.s3 import S3Objects
from bentofs.store.clients.s3_client import S3Client
from bentofs.store.clients.s3_plain import Manner
from bentofs.store.clients.s3_shortcut import LESSONS, Shortcut
from bentofs.store.errors import BadLocationError, CancelledError, StoreError
from bentofs.store.location import Location
from bentofs.store.storage.open import StoreSpec
from bentofs.store.transfer.endpoints.pool import Endpoints
from tests.buckets import Bucket
from tests.harness import wait_until
from tests.servers import RcloneServer
from tests.store.clients.plain import answering, requests_at, serving

_MANNER = Manner("http://h:9", "/b/", "")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-user")


def _client(port: int) -> S3Client:
    location = Location.parse(f"s3://bucket?endpoint_url=http://127.0.0.1:{port}")
    return S3Client(location, connect_seconds=5, silence_seconds=5)


def test_writes_need_no_library_after_a_busy_time() -> None:
    count = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            nonlocal count
            count += 1
            if count % 2:
                self.close_connection = True
                return
            self.send_response(503 if count < 2 * LESSONS + 3 else 200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Suppress the log."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with contextlib.closing(_client(server.server_port)) as client:
            for _ in range(2 * LESSONS + 3):
                with pytest.raises(ConnectionError):
                    client.ask("put_object", Key="k", Body=b"x")
            assert client.ask("put_object", Key="k", Body=b"x") == {"ETag": '"x"'}
            assert client._library is None
        server.shutdown()


@pytest.mark.parametrize("known", [_MANNER, None])
def test_lessons_are_limited_for_a_time(monkeypatch: pytest.MonkeyPatch, known: Manner | None) -> None:
    shortcut = Shortcut("GetObject", LESSONS, lambda _manner: requests_at(9), known)
    for _ in range(LESSONS):
        shortcut.learn(_MANNER)
        assert shortcut.requests is not None
        shortcut.drop(shortcut.requests)
    shortcut.learn(_MANNER)
    assert shortcut.requests is None
    monkeypatch.setattr(s3_shortcut, "_PERIOD_SECONDS", 0.0)
    shortcut.learn(_MANNER)
    assert shortcut.requests is not None


@pytest.mark.parametrize("name", ["AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"])
def test_credentials_with_a_line_break_are_not_shown(
    rclone: RcloneServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable, value in {**Bucket(rclone).environment(), name: "SECRETTOKEN123456\r"}.items():
        monkeypatch.setenv(variable, value)
    policy = RetryPolicy(connect_seconds=5, silence_seconds=5, attempts=1)
    with contextlib.closing(S3Objects(Location.parse("s3://stores/x"), policy)) as objects:
        with pytest.raises(StoreError) as raised:
            objects.list_objects("")
        assert "SECRETTOKEN" not in str(raised.value)


def test_a_header_that_cannot_be_sent_is_left_to_the_library() -> None:
    with serving(answering(200, b"x")) as port:
        assert requests_at(port).get(lambda answer: answer.read(), headers={"If-Match": "SECRET\r"}) is None


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9")
    with pytest.raises(BadLocationError, match=f"^{path}"):
        StoreSpec.named("s3://bucket/x").open()
    with (
        contextlib.closing(Endpoints()) as endpoints,
        pytest.raises(BadLocationError, match=f"^{path}"),
        endpoints.target(Location.parse("s3://bucket/x")),
    ):
        """Never get here."""


def test_a_wait_for_credentials_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    program, pid = tmp_path / "program", tmp_path / "pid"
    program.write_text(f"#!/bin/sh\necho $$ >>{pid}\nexec sleep 60\n")
    program.chmod(0o700)
    config = tmp_path / "config"
    config.write_text(f"[default]\nregion = us-east-1\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    ends: list[BaseException] = []

    def ask(client: S3Client, stop: threading.Event) -> None:
        try:
            client.ask("head_object", Key="k", stops=(stop,))
        except BaseException as error:
            ends.append(error)

    with contextlib.closing(_client(9)) as client:
        stops = [threading.Event(), threading.Event()]
        threads = [threading.Thread(target=ask, args=(client, stop)) for stop in stops]
        threads[0].start()
        wait_until(pid.exists, 60, "the program runs")
        threads[1].start()  # it waits for the first one
        for stop, thread in reversed(list(zip(stops, threads, strict=True))):
            stop.set()
            thread.join(20)
            assert not thread.is_alive()
        assert [type(error) for error in ends] == [CancelledError, CancelledError]
        started = [int(line) for line in pid.read_text().split()]
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in started), 10, "it has ended")
