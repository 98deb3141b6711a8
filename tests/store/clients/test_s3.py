"""Objects in S3: the check that they still equal their listing, and the parts used of answers."""

import http.server
import random
import threading
import time
from contextlib import suppress

import pytest

from bentofs.store.clients.objects import ObjectInfo
from bentofs.store.errors import SourceChangedError, UnreachableError
from bentofs.store.storage.base import Entry
from bentofs.store.storage.open import StoreSpec
from tests.buckets import Bucket
from tests.servers import RcloneServer


@pytest.mark.parametrize("rclone", [(), ("--etag-hash=",)], ids=["etags", "no-etags"], indirect=True)
def test_an_object_that_is_listed_with_another_time_than_it_is_sent_with(
    rclone: RcloneServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object has not changed. `rclone serve s3` answers so for all objects of `rclone copy`, which sends along the
    file's modification time. It sometimes does so for an object that is written while a second passes."""
    bucket = Bucket(rclone)
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    storage = StoreSpec.named(bucket.url, ttl=0.1).open_remote()
    object_ = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/m/v1/w"}

    def put(content: bytes, modified: int) -> Entry:
        bucket.client.put_object(**object_, Body=content, Metadata={"mtime": str(modified)})
        time.sleep(0.2)  # the listing has expired
        (entry,) = storage.walk("m/v1")[0]
        assert entry.identity is not None
        assert entry.identity.mtime_ns // 10**9 == modified
        assert bucket.client.head_object(**object_)["LastModified"].timestamp() > modified
        return entry

    def read(entry: Entry, start: int, end: int) -> bytes:
        assert entry.identity is not None
        content = bytearray(end - start)
        storage.open_file(entry.source, entry.identity).read_into([memoryview(content)], start)
        return bytes(content)

    old, new = random.Random(1).randbytes(300_000), random.Random(2).randbytes(300_000)
    first = put(old, 1_600_000_000)
    assert read(first, 0, 1000) == old[:1000]  # by the library,
    assert read(first, 1000, 2000) == old[1000:2000]  # without it
    second = put(new, 1_600_000_001)
    assert read(second, 0, 3000) == new[:3000], "what is kept of the old one does not stand for the new one"
    with pytest.raises(SourceChangedError):
        read(first, 0, 3000)


def test_a_server_that_knows_no_ranges() -> None:
    """The answer is not read into memory whole, and none of it is taken for the requested range."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("ETag", '"e"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            listing = b"<ListBucketResult/>" if "list-type" in self.path else b""
            self.send_header("Content-Length", str(len(listing) or 1 << 40))
            self.end_headers()
            self.wfile.write(listing)
            with suppress(OSError):  # the client closed the connection
                while not listing:
                    self.wfile.write(bytes(1 << 20))

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {"endpoint_url": f"http://127.0.0.1:{server.server_port}", "key": "some-key", "secret": "some-secret"}
        storage = StoreSpec.named("s3://bucket/models", options=options, patience=10.0).open_remote()
        with pytest.raises(UnreachableError, match="more than the 100 bytes"):
            storage.objects.read(ObjectInfo("x", 1 << 40, "e", 1_767_225_600_000_000_000), 100, 200)
        server.shutdown()
