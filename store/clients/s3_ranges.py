"""Ranges of S3 objects, fetched in the calling thread, straight into the final buffer (`store.clients.s3_plain`)."""

from __future__ import annotations

import functools
import http.client
import time
from email.utils import parsedate_to_datetime
from typing import Any

from bentofs.store.clients.s3_plain import PlainRequests

_CHUNK = 1 << 20  # bytes taken from a connection at a time


def fetch_range(
    requests: PlainRequests,
    key: str,
    start: int,
    end: int,
    *,
    etag: str,
    into: bytearray | None = None,
    seconds: float,
) -> tuple[bytearray, dict[str, Any]] | None:
    """Return the bytes [start, end) of an object, maybe fewer, and its attributes: `ETag`, `LastModified`. None: the
    library must repeat the request, and interpret the answer.

    `etag`: the object must have it, if it is not empty; `into`: a buffer for the bytes, which is returned if it has
    their size; `seconds`: the time limit.

    Raises:
        OSError: a ConnectionError, a TimeoutError, or another error of a connection.
    """
    headers = {"Range": f"bytes={start}-{end - 1}"}
    if etag:
        headers["If-Match"] = f'"{etag}"'
    content = into if into is not None and len(into) == end - start else bytearray(end - start)
    receive = functools.partial(_take, start=start, content=content, deadline=time.monotonic() + seconds)
    return requests.get(receive, key=key, headers=headers)


def _take(
    answer: http.client.HTTPResponse, *, start: int, content: bytearray, deadline: float
) -> tuple[bytearray, dict[str, Any]] | None:
    if answer.status not in (200, 206) or not _begins_at(start, answer.headers.get("Content-Range", "")):
        return None
    _receive(answer, content, deadline)
    told: dict[str, Any] = {"ETag": answer.headers.get("ETag")}
    modified = answer.headers.get("Last-Modified")
    if modified:
        told["LastModified"] = parsedate_to_datetime(modified)
    return content, told


def _receive(answer: http.client.HTTPResponse, content: bytearray, deadline: float) -> None:
    """Read the body into a buffer, which must not be too small. Cut off what is not filled."""
    size = len(content)
    received = 0
    with memoryview(content) as view:
        while received < size and (count := _read_once(answer, view[received : received + _CHUNK])):
            received += count
            if time.monotonic() > deadline:
                raise TimeoutError("the server takes too long")
    if received == size and answer.read(1):
        raise ConnectionError(f"the server sends more than the {size} bytes it was asked for")
    del content[received:]


def _read_once(answer: http.client.HTTPResponse, view: memoryview) -> int:
    """Read what is there into a view, by one system call. Return the number of bytes; 0 at the end.

    A read that fills the view would wait as long as the server keeps trickling, and `read1` has no view."""
    length = answer.length
    if answer.chunked or length is None:
        chunk = answer.read1(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)
    stream = answer.fp
    if not length or stream is None:
        return 0
    count = stream.readinto1(view[:length])
    answer.length = length - count
    return count


def _begins_at(start: int, answered: str) -> bool:
    """True if an answer with this `Content-Range`, empty if there is none, begins at `start`."""
    return answered.startswith(f"bytes {start}-") if answered else start == 0
