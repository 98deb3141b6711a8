"""Operations on single S3 objects without the library (`store.clients.s3_plain`), under the library's names.

An answer is what the library would return, as far as it is used. Every other answer, and every operation with other
arguments, is left to the library.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from bentofs.store.clients.request_body import HashedBody
from bentofs.store.clients.s3_plain import PlainRequests
from bentofs.store.clients.s3_signature import EMPTY_SHA256
from bentofs.store.util.cancel import CancelTokens

_LARGEST = 1 << 20  # bytes of an answer
_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_ENCRYPTED = {
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
}
_CONDITIONS = {"IfMatch": "If-Match", "IfNoneMatch": "If-None-Match"}

Answer = dict[str, Any]


class Operation(NamedTuple):
    """A request for an object."""

    method: str
    receive: Callable[[http.client.HTTPResponse], Answer | None]
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    content: bytes | memoryview = b""
    sha256: str = EMPTY_SHA256

    def send(self, requests: PlainRequests, key: str, stops: CancelTokens) -> Answer | None:
        """Return the answer. None: the library must repeat the request. Raises what `PlainRequests.send` raises."""
        return requests.send(
            self.method,
            self.receive,
            key=key,
            query=self.query,
            headers=self.headers,
            content=self.content,
            sha256=self.sha256,
            stops=stops,
        )


def operation_named(name: str, body: object, arguments: Mapping[str, Any]) -> Operation | None:
    """Return an operation with these arguments of the library, besides the bucket and the key. None: it is not plain.

    `body`: the content, bytes or a body; None for none.
    """
    given = dict(arguments)
    headers = {_CONDITIONS[each]: str(given.pop(each)) for each in _CONDITIONS if each in given}
    if name == "head_object" and not given:
        return Operation("HEAD", _attributes, headers=headers)
    if name == "create_multipart_upload" and not given and not headers:
        return Operation("POST", _begun, {"uploads": ""})
    if name == "complete_multipart_upload" and given.keys() == {"UploadId", "MultipartUpload"}:
        content = _parts_list(given["MultipartUpload"]["Parts"])
        sha256 = hashlib.sha256(content).hexdigest()
        return Operation("POST", _completed, {"uploadId": given["UploadId"]}, headers, content, sha256)
    length = given.pop("ContentLength", None)
    if isinstance(body, HashedBody) and length == len(body.content):
        written = Operation("PUT", _written, {}, headers, body.content, body.sha256)
    elif isinstance(body, bytes) and length is None:
        written = Operation("PUT", _written, {}, headers, body, hashlib.sha256(body).hexdigest())
    else:
        return None
    if name == "put_object" and not given:
        return written
    if name == "upload_part" and given.keys() == {"UploadId", "PartNumber"} and not headers:
        return written._replace(query={"partNumber": str(given["PartNumber"]), "uploadId": given["UploadId"]})
    return None


def _attributes(answer: http.client.HTTPResponse) -> Answer | None:
    answer.read()  # nothing; but it ends the answer
    length, modified = answer.headers.get("Content-Length"), answer.headers.get("Last-Modified")
    if answer.status != 200 or length is None or not length.isdecimal() or modified is None:
        return None
    told = {name.lower(): text for name, text in answer.headers.items()}
    return {
        **_written_headers(answer),
        "ContentLength": int(length),
        "LastModified": parsedate_to_datetime(modified),
        "ResponseMetadata": {"HTTPHeaders": told},
    }


def _written(answer: http.client.HTTPResponse) -> Answer | None:
    return _written_headers(answer) if _content(answer) is not None and answer.headers.get("ETag") else None


def _written_headers(answer: http.client.HTTPResponse) -> Answer:
    encrypted = {name: text for name, header in _ENCRYPTED.items() if (text := answer.headers.get(header)) is not None}
    return {"ETag": answer.headers.get("ETag"), **encrypted}


def _begun(answer: http.client.HTTPResponse) -> Answer | None:
    upload = _fields(answer, "InitiateMultipartUpload").get("UploadId")
    return {"UploadId": upload} if upload else None


def _completed(answer: http.client.HTTPResponse) -> Answer | None:
    """Return the answer. It may begin as a success, and be an error."""
    etag = _fields(answer, "CompleteMultipartUpload").get("ETag")
    return {"ETag": etag} if etag else None


def _fields(answer: http.client.HTTPResponse, tag: str) -> dict[str, str]:
    """Return the fields of an answer in XML, without their namespace. Empty if its root does not begin with `tag`: S3
    adds `Result` to the operation's name, rclone does not."""
    try:
        root = ElementTree.fromstring(_content(answer) or b"")
    except ElementTree.ParseError:
        return {}
    return {_local(field): field.text or "" for field in root} if _local(root).startswith(tag) else {}


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _content(answer: http.client.HTTPResponse) -> bytes | None:
    """Return the whole answer; None if it is no success."""
    if answer.status != 200:
        return None
    content = answer.read(_LARGEST)
    answer.read(1)  # nothing; but it ends the answer, so that the connection is used again
    return content


def _parts_list(parts: list[dict[str, Any]]) -> bytes:
    listed = "".join(
        f"<Part><ETag>{escape(part['ETag'])}</ETag><PartNumber>{part['PartNumber']}</PartNumber></Part>"
        for part in parts
    )
    return f'<CompleteMultipartUpload xmlns="{_SPACE}">{listed}</CompleteMultipartUpload>'.encode()
