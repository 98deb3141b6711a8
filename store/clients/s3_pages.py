"""Pages of listings of an S3 bucket, without the library (`store.clients.s3_plain`).

The library takes ten times as long to parse a page, which a store of ten thousand models has dozens of.
"""

from __future__ import annotations

import functools
import http.client
import time
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from bentofs.store.clients.objects import Listing, ObjectInfo
from bentofs.store.clients.s3_plain import PlainRequests

_CHUNK = 256 << 10  # bytes taken from a connection at a time
_LARGEST = 64 << 20  # bytes; a page has a thousand keys of at most a kilobyte each


def fetch_page(requests: PlainRequests, prefix: str, more: str, *, delimiter: str, seconds: float) -> Listing | None:
    """Return one page of a listing of all keys that begin with `prefix`. None: the library must repeat the request, and
    interpret the answer.

    `more`: the token of this page; `seconds`: the time limit.

    Raises:
        OSError: a ConnectionError, a TimeoutError, or another error of a connection.
    """
    query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
    query |= ({"continuation-token": more} if more else {}) | ({"delimiter": delimiter} if delimiter else {})
    content = requests.get(functools.partial(_take, deadline=time.monotonic() + seconds), query=query)
    return page_of(content) if content is not None else None


def page_of(content: bytes) -> Listing | None:
    """Parse the answer to a request for a page. None: it is none, or an unusual one."""
    try:
        root = ElementTree.fromstring(content)
        if not root.tag.endswith("ListBucketResult"):
            return None
        space = root.tag.removesuffix("ListBucketResult")
        is_quoted = root.findtext(f"{space}EncodingType") == "url"
        key, size, etag, modified = (f"{space}{name}" for name in ("Key", "Size", "ETag", "LastModified"))
        times: dict[str, int] = {}  # a page has few different ones
        objects: list[ObjectInfo] = []
        for element in root.iter(f"{space}Contents"):
            fields = {field.tag: field.text or "" for field in element}
            time = fields.get(modified, "")
            if time not in times:
                times[time] = _mtime_ns(time)
            objects.append(ObjectInfo(fields[key], int(fields[size]), fields.get(etag, "").strip('"'), times[time]))
        folders = [element.findtext(f"{space}Prefix") or "" for element in root.iter(f"{space}CommonPrefixes")]
        if is_quoted:
            objects = [ObjectInfo(_unquoted(info.key), *info[1:]) for info in objects]
            folders = [_unquoted(folder) for folder in folders]
    except (ElementTree.ParseError, KeyError, ValueError):
        return None
    return Listing(objects, folders, root.findtext(f"{space}NextContinuationToken") or "")


def mtime_ns_of(modified: Any) -> int:
    """Return a time of the library, in whole milliseconds, in ns since 1970; 0 for none."""
    return int(modified.timestamp() * 1000) * 1_000_000 if isinstance(modified, datetime) else 0


def _mtime_ns(text: str) -> int:
    if not text:
        return 0
    return mtime_ns_of(datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else "")))


def _unquoted(key: str) -> str:
    return unquote_plus(key) if "%" in key or "+" in key else key


def _take(answer: http.client.HTTPResponse, *, deadline: float) -> bytes | None:
    """Return the whole answer; None if it is no page."""
    if answer.status != 200:
        return None
    chunks: list[bytes] = []
    received = 0
    while chunk := answer.read1(_CHUNK):
        chunks.append(chunk)
        received += len(chunk)
        if received > _LARGEST:
            return None
        if time.monotonic() > deadline:
            raise TimeoutError("the server takes too long")
    if answer.length:
        raise ConnectionError(f"the answer ended {answer.length} bytes early")
    answer.read(1)  # nothing; but it ends the answer, so that the connection is used again
    return b"".join(chunks)
