"""Ranges of S3 objects, fetched in the calling thread, straight into the final buffer (`store.clients.s3_plain`)."""

from __future__ import annotations

import functools
import http.client
import time
from email.utils import parsedate_to_datetime
from typing import Any

from bentofs.store.clients.s3_plain import PlainRequests

_CHUNK = 256 << 10  # bytes taken from a connection at a time


def fetch_range(
    requests: PlainRequests, key: str, start: int, end: int, *, etag: str, seconds: float
) -> tuple[bytearray, dict[str, Any]] | None:
    """Return the bytes [start, end) of an object, maybe fewer, and its attributes: `ETag`, `LastModified`. None: the
    library must repeat the request, and interpret the answer.

    `etag`: the object must have it, if it is not empty; `seconds`: the time limit.

    Raises:
        OSError: a ConnectionError, a TimeoutError, or another error of a connection.
    """
    headers = {"Range": f"bytes={start}-{end - 1}"}
    if etag:
        headers["If-Match"] = f'"{etag}"'
    receive = functools.partial(_take, start=start, size=end - start, deadline=time.monotonic() + seconds)
    return requests.get(receive, key=key, headers=headers)


def _take(
    answer: http.client.HTTPResponse, *, start: int, size: int, deadline: float
) -> tuple[bytearray, dict[str, Any]] | None:
    if answer.status not in (200, 206) or not _begins_at(start, answer.headers.get("Content-Range", "")):
        return None
    content = _received(answer, size, deadline)
    told: dict[str, Any] = {"ETag": answer.headers.get("ETag")}
    modified = answer.headers.get("Last-Modified")
    if modified:
        told["LastModified"] = parsedate_to_datetime(modified)
    return content, told


def _received(answer: http.client.HTTPResponse, size: int, deadline: float) -> bytearray:
    """Read the body, which must not have more than `size` bytes."""
    content = bytearray(size)
    view = memoryview(content)
    received = 0
    # read1 makes one system call. A read that fills the buffer would wait as long as the server keeps trickling.
    while received < size and (chunk := answer.read1(min(_CHUNK, size - received))):
        view[received : received + len(chunk)] = chunk
        received += len(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError("the server takes too long")
    if received == size and answer.read(1):
        raise ConnectionError(f"the server sends more than the {size} bytes it was asked for")
    view.release()
    del content[received:]
    return content


def _begins_at(start: int, answered: str) -> bool:
    """True if an answer with this `Content-Range`, empty if there is none, begins at `start`."""
    return answered.startswith(f"bytes {start}-") if answered else start == 0
