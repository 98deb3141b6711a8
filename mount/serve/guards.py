"""Guards: the checks that a request passes before any handler sees it.

- Its Host must be an address, or a name that is known to lead here. A page of another site may give its own name this
  machine's address ("DNS rebinding"), and would read the store with its visitor's browser.
- It must show a password or a token, if there are any.
- If it changes something, it must not come from a page of another site.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp.web import BaseRequest, Response

from bentofs.mount.serve.answers import sentence_answer
from bentofs.mount.serve.auth import Authenticator, Credentials, TooManyChecksError
from bentofs.mount.serve.targets import Target

_HARMLESS = ("GET", "HEAD", "OPTIONS", "PROPFIND")
_ZONE = re.compile(r"[\w.-]{1,32}", re.ASCII)  # of an IPv6 address: the name of an interface
_OWN_SITE = ("same-origin", "none")  # of Sec-Fetch-Site


class Guards:
    """The checks of one server."""

    def __init__(self, names: Iterable[str], credentials: Credentials) -> None:
        """`names`: further names that lead to this server."""
        own = {"localhost", socket.gethostname(), *names}
        self._names = {name.rstrip(".").lower() for name in own}
        self._authenticator = Authenticator(credentials)

    @property
    def knows_users(self) -> bool:
        """True if a client must show a password or a token."""
        return self._authenticator.is_needed

    async def check(self, request: BaseRequest, target: Target) -> Response | None:
        """Return the refusal of a request; None if it may pass."""
        host = target.host if target.host is not None else request.headers.get("Host")
        if host is not None and not self._leads_here(host):
            return sentence_answer(
                421, "this server does not go by the name in the request's Host: start it with --host NAME"
            )
        header = request.headers.get("Authorization")
        if self._authenticator.is_needed:
            try:
                accepted = await self._authenticator.accepts(header)
            except TooManyChecksError:
                return sentence_answer(503, "too many passwords are being checked: try again", {"Retry-After": "2"})
            if not accepted:
                answer = sentence_answer(401, "a user and password, or a token, is needed")
                for challenge in self._authenticator.challenges:
                    answer.headers.add("WWW-Authenticate", challenge)
                return answer
        if request.method not in _HARMLESS and not _is_of_own_site(request, host):
            return sentence_answer(403, "a page of another site must not change anything here")
        return None

    def _leads_here(self, host: str) -> bool:
        name = _without_port(host)
        return name is not None and (name in self._names or _is_address(name))


def _without_port(host: str) -> str | None:
    """Return the name of a Host header; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment or not parts.hostname:
        return None
    return parts.hostname.rstrip(".").lower()


def _is_address(name: str) -> bool:
    address, percent, zone = name.partition("%")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return not percent or _ZONE.fullmatch(zone) is not None


def _is_of_own_site(request: BaseRequest, host: str | None) -> bool:
    """Return True if a request comes from one of our own pages, or from no page at all."""
    if request.headers.get("Authorization", "").lower().startswith("bearer "):
        return True  # no browser adds that by itself
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in _OWN_SITE:
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    parts = urlsplit(origin)
    own = host or ""
    return parts.netloc.lower() in (own.lower(), f"{own.lower()}:{443 if parts.scheme == 'https' else 80}")
