"""The manner of requests to a server that the user has named, with credentials that the user has given.

Then nothing has to be learnt from the library, which takes 0.7 s of CPU time to load. This covers servers other than
AWS's: their address is the endpoint, and the bucket is the first part of the path. All that could mean more to the
library is left to it: configuration files, profiles, other variables and parameters, proxies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from bentofs.store.clients.s3_plain import Manner, uses_proxy
from bentofs.store.clients.s3_signature import GivenCredentials
from bentofs.store.location import Location

_PARAMETERS = {"endpoint_url", "region", "connect_timeout", "read_timeout"}
_HARMLESS = {"AWS_EC2_METADATA_DISABLED", "AWS_EXECUTION_ENV", "AWS_PAGER"}
_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
_CERTIFICATES = "AWS_CA_BUNDLE"
_OTHER_FILES = ("/etc/boto.cfg", "~/.boto")
_CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGION = "us-east-1"  # of the library, if none is named
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PRINTABLE = re.compile(r"[!-~]+")  # credentials that can be sent in a header
_OF_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".aws")


class Environment(NamedTuple):
    """A server and a user."""

    endpoint: str  # as the user wrote it
    objects: Manner
    listings: Manner
    credentials: GivenCredentials
    certificates: str | None  # a file with the trusted authorities; None for the usual ones


def environment_of(location: Location, variables: Mapping[str, str] = os.environ) -> Environment | None:
    """Return the manner of requests to a bucket. None: only the library can tell. Reads no content of any file."""
    named = {name for name in variables if name.startswith(("AWS_", "BOTO"))}
    known = {*_HARMLESS, *_FILES, *_CREDENTIALS, *_ENDPOINTS, _CERTIFICATES, "AWS_DEFAULT_REGION"}
    if named - known or any(name.startswith("FSSPEC_") for name in variables) or location.params.keys() - _PARAMETERS:
        return None
    files = [variables.get(name) or usual for name, usual in _FILES.items()]
    if any(os.path.exists(os.path.expanduser(path)) for path in (*files, *_OTHER_FILES, "~/.config/fsspec")):
        return None
    credentials = _credentials_of(location, variables)
    endpoint = location.params.get("endpoint_url") or next(filter(None, map(variables.get, _ENDPOINTS)), "")
    if credentials is None or not isinstance(endpoint, str) or not _is_plain(endpoint, location.host):
        return None
    region = str(location.params.get("region") or variables.get("AWS_DEFAULT_REGION") or _REGION)
    address = endpoint.rstrip("/")
    bucket = f"/{location.host}"
    return Environment(
        endpoint,
        Manner(address, f"{bucket}/", region),
        Manner(address, bucket, region),
        credentials,
        variables.get(_CERTIFICATES) or None,
    )


def _credentials_of(location: Location, variables: Mapping[str, str]) -> GivenCredentials | None:
    if location.user or location.password:
        key, secret, token = location.user, location.password, None
    else:
        key, secret = variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")
        token = variables.get("AWS_SESSION_TOKEN")
    if not key or not secret or not all(_PRINTABLE.fullmatch(part) for part in (key, secret, token) if part):
        return None
    return GivenCredentials(key, secret, token)


def _is_plain(endpoint: str, bucket: str) -> bool:
    """Tell whether the library, too, would ask this server for paths that begin with the bucket."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return (
        usual is not None
        and port != usual  # the library leaves it out of the `Host` header
        and bool(host)
        and not host.endswith(_OF_AWS)
        and parts.netloc == parts.netloc.lower()
        and "@" not in parts.netloc
        and parts.path in ("", "/")
        and not parts.query
        and not parts.fragment
        and _BUCKET.fullmatch(bucket) is not None
        and not uses_proxy(endpoint)
    )
