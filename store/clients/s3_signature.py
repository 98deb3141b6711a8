"""Signer: signatures of requests to S3, by AWS's scheme (Signature Version 4), the same as the library's.

The library's signer takes as much processor time for a request as all the rest of it, and 0.2 s to load.

Threading: any thread.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_SCHEME = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256().hexdigest()
_UNSIGNED = {"content-length", "user-agent"}
_PORTS = {"http": 80, "https": 443}


class GivenCredentials(NamedTuple):
    """Credentials that the user gave, with the names of botocore's."""

    access_key: str
    secret_key: str
    token: str | None


class Signer:
    """The signer of requests to one server in one region."""

    def __init__(self, address: str, region: str) -> None:
        """`address`: scheme, host and port."""
        parts = urlsplit(address)
        host = parts.hostname or ""
        self._host = f"[{host}]" if ":" in host else host
        if parts.port is not None and parts.port != _PORTS.get(parts.scheme):
            self._host += f":{parts.port}"
        self._region = region
        self._key: tuple[tuple[str, str], bytes] | None = None  # day and secret key, and the key made of them

    def signed(
        self,
        path: str,
        query: str,
        headers: Mapping[str, str],
        credentials: Any,
        *,
        method: str = "GET",
        sha256: str = EMPTY_SHA256,
    ) -> dict[str, str]:
        """Return the headers of a request with its signature.

        `path`, `query`: as they are sent, the query's parameters sorted; `credentials`: as botocore's objects;
        `sha256`: of the content, hexadecimal.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        sent = {**headers, "X-Amz-Date": moment, "X-Amz-Content-SHA256": sha256}
        if credentials.token:
            sent["X-Amz-Security-Token"] = credentials.token
        named = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
        named["host"] = self._host
        names = sorted(named.keys() - _UNSIGNED)
        lines = "".join(f"{name}:{named[name]}\n" for name in names)
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{sha256}"
        scope = f"{moment[:8]}/{self._region}/s3/aws4_request"
        text = f"{_SCHEME}\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = _hmac(self._key_of(moment[:8], credentials.secret_key), text).hex()
        sent["Authorization"] = (
            f"{_SCHEME} Credential={credentials.access_key}/{scope}, SignedHeaders={';'.join(names)}, "
            f"Signature={signature}"
        )
        return sent

    def _key_of(self, day: str, secret: str) -> bytes:
        kept = self._key
        if kept is None or kept[0] != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = _hmac(key, part)
            self._key = kept = ((day, secret), key)
        return kept[1]


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
