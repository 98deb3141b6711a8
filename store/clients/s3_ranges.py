"""S3Ranges: fetches ranges of S3 objects in the calling thread, straight into the final buffer.

The library takes milliseconds of CPU time for a request, and copies each byte several times. So it makes only the first
request. From that, S3Ranges learns the address and the signature scheme. It sends later requests itself, signed by the
library's signer.
Unusual requests are left to the library: other headers or signatures, proxies. So are all answers without bytes, so
that only one place interprets them.

Threading: any thread; each request has a connection to itself.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

_CHUNK = 256 << 10  # bytes taken from a connection at a time
_IDLE_SECONDS = 15.0  # longest idle time of a connection that is reused: servers close idle ones
_CREDENTIALS_SECONDS = 60.0  # for which they are cached; they are renewed minutes before they expire
_SIGNED_BY = "AWS4-HMAC-SHA256 Credential="
_BUSY = (408, 429)
_PLAIN = {
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "if-match",
    "range",
    "user-agent",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
}


class Manner(NamedTuple):
    """The way to request the objects of a bucket."""

    address: str  # scheme, host and port
    path: str  # before the key
    region: str  # for the signature; empty: requests are not signed


def manner_of(key: str, url: str, headers: Mapping[str, Any]) -> Manner | None:
    """Return the manner in which a request for an object was sent; None if it is unusual."""
    parts = urlsplit(url)
    named = _quoted(key)
    if parts.query or not parts.path.endswith(f"/{named}") or {name.lower() for name in headers} - _PLAIN:
        return None
    if parts.scheme not in ("http", "https") or get_environ_proxies(url):
        return None
    region = ""
    if "Authorization" in headers:
        signed = _text(headers["Authorization"])
        scope = signed.removeprefix(_SIGNED_BY).partition(",")[0].split("/")
        if not signed.startswith(_SIGNED_BY) or len(scope) < 5 or scope[-2:] != ["s3", "aws4_request"]:
            return None
        region = scope[-3]
    return Manner(f"{parts.scheme}://{parts.netloc}", parts.path[: len(parts.path) - len(named)], region)


class S3Ranges:
    """Requests for ranges of the objects of one bucket."""

    def __init__(
        self,
        manner: Manner,
        credentials: Callable[[], Any],
        *,
        certificates: str | None,
        connect_seconds: float,
        silence_seconds: float,
    ) -> None:
        """`credentials`: returns the current ones, as botocore's objects, or None; `certificates`: a file with the
        trusted authorities, None for the usual ones; the times are as for `store.clients.s3_client.S3Client`."""
        self._manner = manner
        self._ask_for_credentials = credentials
        self._connect_seconds = connect_seconds
        self._silence_seconds = silence_seconds
        self._context: ssl.SSLContext | None = None
        if manner.address.startswith("https:"):
            self._context = ssl.create_default_context(cafile=certificates or get_cert_path(True))
        self._lock = threading.Lock()  # guards the fields below
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []
        self._is_closed = False
        self._credentials_lock = threading.Lock()  # held during the request for them
        self._credentials: tuple[float, Any] | None = None

    def fetch(
        self, key: str, start: int, end: int, *, etag: str, seconds: float
    ) -> tuple[bytearray, dict[str, Any]] | None:
        """Return the bytes [start, end) of an object, maybe fewer, and its attributes: `ETag`, `LastModified`. None:
        the library must repeat the request, and interpret the answer.

        `etag`: the object must have it, if it is not empty; `seconds`: the time limit.

        Raises:
            OSError: a ConnectionError, a TimeoutError, or another error of a connection.
        """
        deadline = time.monotonic() + seconds
        path = self._manner.path + _quoted(key)
        headers = {"Range": f"bytes={start}-{end - 1}", "User-Agent": "bentofs"}
        if etag:
            headers["If-Match"] = f'"{etag}"'
        if self._manner.region:
            credentials = self._credentials_now()
            if credentials is None:
                return None
            headers = self._signed(path, headers, credentials)
        try:
            connection, answer = self._ask(path, headers)
        except ssl.SSLError:
            return None
        is_over = False
        try:
            if answer.status >= 500 or answer.status in _BUSY:
                raise ConnectionError(f"the server answers {answer.status} {answer.reason}")
            if answer.status not in (200, 206) or not _begins_at(start, answer.headers.get("Content-Range", "")):
                return None
            content = _received(answer, end - start, deadline)
            is_over = answer.isclosed() and not answer.length and not answer.will_close
        except http.client.HTTPException as error:
            raise ConnectionError(f"the answer is no HTTP: {type(error).__name__}") from error
        finally:
            if is_over:
                self._keep(connection)
            else:
                connection.close()
        told: dict[str, Any] = {"ETag": answer.headers.get("ETag")}
        modified = answer.headers.get("Last-Modified")
        if modified:
            told["LastModified"] = parsedate_to_datetime(modified)
        return content, told

    def close(self) -> None:
        """Close the connections. A connection in use is closed after its request."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _ask(
        self, path: str, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request and return the answer, with only its headers read."""
        while True:
            connection, is_new = self._connection()
            try:
                if is_new:
                    connection.connect()
                    connection.sock.settimeout(self._silence_seconds)
                connection.request("GET", path, headers=headers)
                return connection, connection.getresponse()
            except (ConnectionError, http.client.HTTPException) as error:
                connection.close()
                if not is_new:  # the server closed the idle connection: try another one
                    continue
                if isinstance(error, ConnectionError):
                    raise
                raise ConnectionError(f"the answer is no HTTP: {type(error).__name__}") from error
            except BaseException:
                connection.close()
                raise

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """Return an unused connection, and True if it is new, so not connected yet."""
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection, since = self._idle.pop()
            if time.monotonic() - since < _IDLE_SECONDS:
                return connection, False
            connection.close()
        host = urlsplit(self._manner.address).netloc
        if self._context is not None:
            return http.client.HTTPSConnection(host, timeout=self._connect_seconds, context=self._context), True
        return http.client.HTTPConnection(host, timeout=self._connect_seconds), True

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()

    def _signed(self, path: str, headers: Mapping[str, str], credentials: Any) -> dict[str, str]:
        """Return the headers with the library's signature."""
        request = AWSRequest("GET", self._manner.address + path, headers=headers)
        S3SigV4Auth(credentials, "s3", self._manner.region).add_auth(request)
        return dict(request.headers.items())

    def _credentials_now(self) -> Any:
        with self._credentials_lock:
            now = time.monotonic()
            if self._credentials is None or now - self._credentials[0] > _CREDENTIALS_SECONDS:
                self._credentials = now, self._ask_for_credentials()
            return self._credentials[1]


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


def _quoted(key: str) -> str:
    """Return a key quoted for a URL, and for the signature."""
    return quote(key, safe="/~")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
