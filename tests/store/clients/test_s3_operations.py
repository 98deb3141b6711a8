"""Objects written to real S3 servers without the library, and what servers answer that is no success."""

import contextlib
import hashlib
import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from bentofs.store.clients.part_buffers import PartBuffers
from bentofs.store.clients.request_body import HashedBody
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.clients.s3 import S3Objects
from bentofs.store.clients.s3_client import S3Client
from bentofs.store.clients.s3_operations import operation_named
from bentofs.store.clients.s3_plain import Manner, PlainRequests
from bentofs.store.errors import CancelledError, ConditionFailedError, RemoteDeniedError
from bentofs.store.formats.pieces import Literal
from bentofs.store.location import Location
from tests.buckets import Bucket
from tests.servers import SeaweedServer
from tests.store.clients.plain import without_library

_POLICY = RetryPolicy(connect_seconds=5, silence_seconds=5, attempts=3)
_CONTENT = os.urandom(20 << 20)  # three parts


@pytest.fixture
def objects(bucket: Bucket) -> Iterator[S3Objects]:
    with contextlib.closing(S3Objects(Location.parse(bucket.url), _POLICY)) as objects:
        yield objects


@pytest.mark.parametrize("is_named", [True, False])
def test_the_library_is_not_needed(
    bucket: Bucket, objects: S3Objects, monkeypatch: pytest.MonkeyPatch, is_named: bool
) -> None:
    if not is_named:  # then the first multipart upload shows the way
        monkeypatch.setattr("bentofs.store.clients.s3_client.environment_of", lambda _location: None)
        objects = S3Objects(Location.parse(bucket.url), _POLICY)
        objects.upload("first", Literal(_CONTENT))
    without_library(objects._client, monkeypatch)
    for key, content in (("a b+c/ü~", _CONTENT), ("small", b"small"), ("empty", b"")):
        etag = objects.upload(key, Literal(content))
        assert bucket.get(key) == content
        found = objects.look(key)
        assert (found.key, found.size) == (key, len(content))
        assert found.etag in (etag, hashlib.md5(content).hexdigest())  # rclone's is always the MD5
        assert abs(found.mtime_ns - time.time_ns()) < 600e9
        assert objects.find(key)[0] == found
    assert objects.put("put", b"x") == hashlib.md5(b"x").hexdigest()
    assert bucket.get("put") == b"x"
    if not is_named:
        objects.close()


def test_errors_are_the_librarys(bucket: Bucket, objects: S3Objects) -> None:
    if not isinstance(bucket.server, SeaweedServer):
        pytest.skip("rclone heeds no conditions")
    objects.put("a", b"old")
    with pytest.raises(ConditionFailedError):
        objects.upload("a", Literal(b"new"), only_new=True)
    assert bucket.get("a") == b"old"
    location = Location.parse(f"s3://{bucket.server.access_key}:wrong@{bucket.name}/x")
    with contextlib.closing(S3Objects(location, _POLICY)) as stranger, pytest.raises(RemoteDeniedError):
        stranger.upload("a", Literal(_CONTENT))


def test_other_arguments_are_left_to_the_library() -> None:
    body = HashedBody(memoryview(b"x"), "", "")
    part = {"UploadId": "u", "PartNumber": 1, "ContentLength": 1}
    assert operation_named("upload_part", body, part) is not None
    for name, content, arguments in (
        ("upload_part", body, {**part, "SSECustomerKey": "k"}),
        ("upload_part", body, {**part, "ContentLength": 2}),
        ("put_object", body, {"ContentLength": 1, "ACL": "private"}),
        ("create_multipart_upload", None, {"StorageClass": "GLACIER"}),
        ("delete_object", None, {}),
    ):
        assert operation_named(name, content, arguments) is None


def _requests(port: int, silence: float = 1.0) -> PlainRequests:
    return PlainRequests(
        Manner(f"http://127.0.0.1:{port}", "/b/", ""),
        lambda _stops: None,
        certificates=None,
        connect_seconds=2.0,
        silence_seconds=silence,
    )


@contextlib.contextmanager
def _deaf() -> Iterator[int]:
    """Give the port of a server that accepts connections and reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_server_that_reads_nothing() -> None:
    with _deaf() as port:
        operation = operation_named("put_object", _CONTENT, {})
        assert operation is not None
        with pytest.raises(TimeoutError):
            operation.send(_requests(port), "k", ())
        stop = threading.Event()
        for content in (_CONTENT, b"x"):  # while sending, and while waiting
            operation = operation_named("put_object", content, {})
            assert operation is not None
            stop.clear()
            timer = threading.Timer(0.3, stop.set)
            timer.start()
            begun = time.monotonic()
            with pytest.raises(CancelledError):
                operation.send(_requests(port, 60.0), "k", (stop,))
            assert time.monotonic() - begun < 30
            timer.join()


def test_a_server_that_refuses_before_it_has_read() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.wfile.flush()
            refused.wait(30)

        def log_message(self, *_: object) -> None:
            """Suppress the log."""

    refused = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        operation = operation_named("put_object", _CONTENT, {})
        assert operation is not None
        assert operation.send(_requests(server.server_port, 30.0), "k", ()) is None
        refused.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("complete_multipart_upload", b"<Error><Code>InternalError</Code></Error>"),
        ("complete_multipart_upload", b""),
        ("create_multipart_upload", b"<Other><UploadId>u</UploadId></Other>"),
        ("create_multipart_upload", b"no XML"),
    ],
)
def test_answers_that_are_no_success(name: str, answer: bytes) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Suppress the log."""

    arguments = {"UploadId": "u", "MultipartUpload": {"Parts": []}} if name.startswith("complete") else {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        operation = operation_named(name, None, arguments)
        assert operation is not None
        requests = _requests(server.server_port)
        assert operation.send(requests, "k", ()) is None
        requests.close()
        server.shutdown()


def test_a_content_is_read_once_and_in_turn() -> None:
    reads: list[int] = []

    class Content:
        length = len(_CONTENT)

        def read_into(self, views: Sequence[memoryview], offset: int) -> None:
            reads.append(offset)
            Literal(_CONTENT).read_into(views, offset)

    buffers = PartBuffers(1)
    with buffers.filled(Content(), 5, 8 << 20, ()) as body:
        assert body.content == _CONTENT[5 : 5 + (8 << 20)]
        assert body.md5() == hashlib.md5(body.content).hexdigest()
        assert body.sha256 == hashlib.sha256(body.content).hexdigest()
        assert body.read() == bytes(body.content)
        body.seek(0)
        assert body.read(10) == _CONTENT[5:15]
        assert sorted(set(reads)) == sorted(reads)
        stop = threading.Event()
        stop.set()
        with pytest.raises(CancelledError), buffers.filled(Content(), 0, 8 << 20, [stop]):
            """Never get here."""
    with buffers.filled(Content(), 0, 8 << 20, ()) as body:
        assert body.content == _CONTENT[: 8 << 20]


def test_the_client_loads_nothing_until_it_must(client: S3Client) -> None:
    assert client._library is None
    assert client._writes.requests is not None
