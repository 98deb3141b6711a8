"""PlainRequests: requests to one S3 bucket, sent by the calling thread without the library.

The library takes milliseconds of CPU time for a request, copies each byte several times, and builds a dictionary for
each value of a listing. So it makes only the first request of a kind. From that, the address and the signature scheme
are learnt (`store.clients.s3_shortcut`), unless the user has named both (`store.clients.s3_environment`). Later
requests are sent here, signed by `store.clients.s3_signature`. Unusual requests are left to the library: other headers
or signatures, proxies. So are all answers that are no success, so that only one place interprets them.

Threading: any thread; each request has a connection to itself.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from bentofs.store.clients.s3_send import answer_on, send_body
from bentofs.store.clients.s3_signature import EMPTY_SHA256, Signer
from bentofs.store.errors import BadLocationError
from bentofs.store.util.cancel import CancelTokens, holding
from bentofs.store.util.display import printable

_IDLE_SECONDS = 15.0  # longest idle time of a connection that is reused: servers close idle ones
_CREDENTIALS_SECONDS = 60.0  # for which they are cached; they are renewed minutes before they expire
_SIGNED_BY = "AWS4-HMAC-SHA256 Credential="
_BUSY = (408, 429)
_PLAIN = {
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "content-length",
    "if-match",
    "range",
    "user-agent",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
}
_LISTING = {"continuation-token", "delimiter", "encoding-type", "list-type", "prefix"}  # parameters of a listing

_T = TypeVar("_T")


class Manner(NamedTuple):
    """The way to send requests of one kind to a bucket."""

    address: str  # scheme, host and port
    path: str  # before the key
    region: str  # for the signature; empty: requests are not signed


def manner_of_object(key: str, url: str, headers: Mapping[str, Any]) -> Manner | None:
    """Return the manner in which a request for an object was sent; None if it is unusual."""
    parts = urlsplit(url)
    named = _quoted(key)
    if parts.query or not parts.path.endswith(f"/{named}"):
        return None
    return _manner(url, parts.path[: len(parts.path) - len(named)], headers)


def manner_of_listing(url: str, headers: Mapping[str, Any]) -> Manner | None:
    """Return the manner in which a request for a page of a listing was sent; None if it is unusual."""
    parts = urlsplit(url)
    asked = parse_qs(parts.query, keep_blank_values=True)
    if asked.keys() - _LISTING or asked.get("list-type") != ["2"]:
        return None
    return _manner(url, parts.path, headers)


def manner_of_upload(key: str, url: str, headers: Mapping[str, Any]) -> Manner | None:
    """Return the manner in which a multipart upload of an object was begun; None if it is unusual."""
    address, _, query = url.partition("?")
    return manner_of_object(key, address, headers) if query.rstrip("=") == "uploads" else None


def uses_proxy(url: str) -> bool:
    """Tell whether the environment names a proxy for a URL."""
    parts = urlsplit(url)
    return parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.netloc)


def _manner(url: str, path: str, headers: Mapping[str, Any]) -> Manner | None:
    parts = urlsplit(url)
    if {name.lower() for name in headers} - _PLAIN:
        return None
    if parts.scheme not in ("http", "https") or uses_proxy(url):
        return None
    region = ""
    if "Authorization" in headers:
        signed = _text(headers["Authorization"])
        scope = signed.removeprefix(_SIGNED_BY).partition(",")[0].split("/")
        if not signed.startswith(_SIGNED_BY) or len(scope) < 5 or scope[-2:] != ["s3", "aws4_request"]:
            return None
        region = scope[-3]
    return Manner(f"{parts.scheme}://{parts.netloc}", path, region)


class PlainRequests:
    """Requests of one kind to one bucket."""

    def __init__(
        self,
        manner: Manner,
        credentials: Callable[[CancelTokens], Any],
        *,
        certificates: str | None,
        connect_seconds: float,
        silence_seconds: float,
        sending_seconds: float = 0.0,
    ) -> None:
        """`credentials`: returns the current ones as botocore's objects, or None. It heeds cancellation.
        `certificates`: a file with the trusted authorities, None for the usual ones; the times are as for
        `store.clients.s3_client.S3Client`. `sending_seconds`: the silence that ends a request with content, if it is
        longer than the usual one.

        Raises:
            BadLocationError: there are no certificates in the file.
        """
        self._manner = manner
        self._signer = Signer(manner.address, manner.region)
        self._ask_for_credentials = credentials
        self._connect_seconds = connect_seconds
        self._silence_seconds = silence_seconds
        self._sending_seconds = max(silence_seconds, sending_seconds)
        self._context: ssl.SSLContext | None = None
        if manner.address.startswith("https:"):
            self._context = _trusting(certificates or _usual_certificates())
        self._lock = threading.Lock()  # guards the fields below
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []
        self._is_closed = False
        self._credentials_lock = threading.Lock()  # held during the request for them
        self._credentials: tuple[float, Any] | None = None

    def get(
        self,
        receive: Callable[[http.client.HTTPResponse], _T | None],
        *,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _T | None:
        """Send a GET, like `send`."""
        return self.send("GET", receive, key=key, query=query, headers=headers)

    def send(
        self,
        method: str,
        receive: Callable[[http.client.HTTPResponse], _T | None],
        *,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | memoryview = b"",
        sha256: str = EMPTY_SHA256,
        stops: CancelTokens = (),
    ) -> _T | None:
        """Send a request, and return what `receive` makes of the answer. None, from it or otherwise: the library must
        repeat the request, and interpret the answer.

        `sha256`: of the content. `stops` are not heeded while a connection is made.

        Raises:
            OSError: a ConnectionError, a TimeoutError, or another error of a connection.
            CancelledError: one of `stops` is set.
        """
        path = self._manner.path + _quoted(key)
        asked = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted((query or {}).items()))
        sent = {"User-Agent": "bentofs", **(headers or {})}
        if method in ("POST", "PUT"):
            sent["Content-Length"] = str(len(content))
        if self._manner.region:
            credentials = self._credentials_now(stops)
            if credentials is None:
                return None
            sent = self._signer.signed(path, asked, sent, credentials, method=method, sha256=sha256)
        try:
            connection, answer = self._ask(method, f"{path}?{asked}" if asked else path, sent, content, stops)
        except (ssl.SSLError, ValueError):  # ValueError: a header is invalid. Its text holds the credentials.
            return None
        is_over = False
        try:
            if answer.status >= 500 or answer.status in _BUSY:
                raise ConnectionError(f"the server answers {answer.status} {answer.reason}")
            received = receive(answer)
            is_over = answer.isclosed() and not answer.length and not answer.will_close
            return received
        except http.client.HTTPException as error:
            raise ConnectionError(f"the answer is no HTTP: {type(error).__name__}") from error
        finally:
            if is_over:
                self._keep(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close the connections. A connection in use is closed after its request."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _ask(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes | memoryview, stops: CancelTokens
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request and return the answer, with only its headers read."""
        while True:
            connection, is_new = self._connection()
            try:
                if is_new:
                    connection.connect()
                connection.sock.settimeout(self._silence_seconds)
                connection.request(method, target, headers=headers)
                if content:
                    send_body(connection.sock, content, self._sending_seconds, stops)
                silence = self._sending_seconds if content else self._silence_seconds
                return connection, answer_on(connection, silence, stops)
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

    def _credentials_now(self, stops: CancelTokens) -> Any:
        with holding(self._credentials_lock, stops):
            now = time.monotonic()
            if self._credentials is None or now - self._credentials[0] > _CREDENTIALS_SECONDS:
                self._credentials = now, self._ask_for_credentials(stops)
            return self._credentials[1]


def _trusting(certificates: str) -> ssl.SSLContext:
    """Return the settings of connections to servers that the authorities in a file vouch for."""
    try:
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:
        reason = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise BadLocationError(
            f"{printable(certificates)}, which AWS_CA_BUNDLE or a configuration names, cannot be used: {reason}"
        ) from error


def _usual_certificates() -> str:
    """Return the file with the authorities that the library trusts."""
    from botocore.httpsession import get_cert_path  # takes 0.1 s to load

    return str(get_cert_path(True))


def _quoted(key: str) -> str:
    """Return a key quoted for a URL, and for the signature."""
    return quote(key, safe="/~")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
