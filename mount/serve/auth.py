"""Auth: the users and tokens that a server knows.

A file has lines of `htpasswd -B` (`user:$2y$...`), and bearer tokens, one a line. A client shows a password or a token.
A client that knows only passwords may show a token as the password of any user.

No text here ever has a password, a token or a hash in it.
Threading: the event loop's thread, but for the check of a hash, which takes a tenth of a second on purpose.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import bcrypt
from cachetools import LRUCache

from bentofs.mount.errors import CannotMountError
from bentofs.mount.serve.variables import TOKEN_VARIABLE
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_TOKEN = re.compile(r"[!-~]+")
_LEAST_TOKEN = 16  # characters
_MOST_COST = 16  # of a hash: each more doubles the time of a check
_MOST_FILE = 1 << 20  # bytes
_BELIEVED_SECONDS = 300.0  # for which a checked header counts as checked
_BELIEVED = 1000  # headers
_AT_ONCE, _WAITING = 2, 32  # checks of hashes
_LONGEST_PASSWORD = 72  # bytes; bcrypt knows no longer ones


class TooManyChecksError(Exception):
    """So many passwords are being checked that this one cannot wait."""


@dataclass(frozen=True)
class Credentials:
    """The hashes and tokens that a server accepts. Its `repr` shows none of them."""

    hashes: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # by user
    tokens: Sequence[bytes] = field(default=(), repr=False)

    @property
    def are_there(self) -> bool:
        """True if there is any user or token."""
        return bool(self.hashes or self.tokens)


def read_credentials(file: str | None, token: str | None) -> Credentials:
    """Read a file of users and tokens; None for no file. `token`: one more.

    Raises:
        CannotMountError: the file cannot be read, or something in it is wrong.
    """
    hashes: dict[str, bytes] = {}
    tokens = [_checked_token(token, TOKEN_VARIABLE)] if token is not None else []
    if file is not None:
        shown = printable(file)
        try:
            with open(file, "rb") as content:
                lines = content.read(_MOST_FILE).decode("utf-8", "surrogateescape").splitlines()
        except OSError as error:
            raise CannotMountError(f"{shown} cannot be read: {error.strerror}", 2) from None
        for number, line in enumerate(map(str.strip, lines), 1):
            if not line or line.startswith("#"):
                continue
            user, colon, hashed = line.partition(":")
            if not colon:
                tokens.append(_checked_token(line, f"line {number} of {shown}"))
                continue
            match = _HASH.fullmatch(hashed)
            if match is None or int(match[1]) > _MOST_COST:
                raise CannotMountError(
                    f"line {number} of {shown} has no bcrypt hash of a cost of at most {_MOST_COST}: make it with "
                    "`htpasswd -B`",
                    2,
                )
            hashes[user] = hashed.encode()
        if not hashes and not tokens:
            raise CannotMountError(f"{shown} has no user and no token: add one with `htpasswd -B {shown} NAME`", 2)
    return Credentials(hashes, tuple(tokens))


class Authenticator:
    """Checks what clients show."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._key = secrets.token_bytes(32)
        self._believed: LRUCache[bytes, float] = LRUCache(_BELIEVED)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        costs = [int(hashed.split(b"$")[2]) for hashed in credentials.hashes.values()]
        # The check of an unknown user takes as long as that of a known one.
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(max(costs, default=4)))

    @property
    def is_needed(self) -> bool:
        """True if clients must show something."""
        return self._credentials.are_there

    @property
    def challenges(self) -> list[str]:
        """Return the values of WWW-Authenticate."""
        found = ['Basic realm="bentofs", charset="UTF-8"']
        return [*found, 'Bearer realm="bentofs"'] if self._credentials.tokens else found

    async def accepts(self, header: str | None) -> bool:
        """Tell whether a header Authorization shows what this server knows.

        Raises:
            TooManyChecksError
        """
        scheme, _, shown = (header or "").partition(" ")
        if scheme.lower() == "bearer":
            return self._has_token(shown.strip().encode("utf-8", "surrogateescape"))
        if scheme.lower() != "basic":
            return False
        name = hmac.digest(self._key, shown.encode("utf-8", "surrogateescape"), hashlib.sha256)
        if self._believed.get(name, 0.0) > time.monotonic():
            return True
        try:
            user, colon, password = base64.b64decode(shown.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        if not colon:
            return False
        accepted = self._has_token(password) or await self._has_password(user, password)
        if accepted:
            self._believed[name] = time.monotonic() + _BELIEVED_SECONDS
        return accepted

    def _has_token(self, shown: bytes) -> bool:
        found = [hmac.compare_digest(token, shown) for token in self._credentials.tokens]
        return any(found)

    async def _has_password(self, user: bytes, password: bytes) -> bool:
        if not self._credentials.hashes or not 0 < len(password) <= _LONGEST_PASSWORD:
            return False
        if self._waiting >= _WAITING:
            raise TooManyChecksError
        hashed = self._credentials.hashes.get(user.decode("utf-8", "surrogateescape"))
        self._waiting += 1
        try:
            async with self._turns:
                fits = await asyncio.to_thread(bcrypt.checkpw, password, hashed or self._nobody)
        finally:
            self._waiting -= 1
        return fits and hashed is not None


def _checked_token(token: str, where: str) -> bytes:
    if not _TOKEN.fullmatch(token) or len(token) < _LEAST_TOKEN:
        raise CannotMountError(
            f"{where} is no token: it must have {_LEAST_TOKEN} or more letters, digits and signs, no blanks; make one "
            "with `openssl rand -hex 32`",
            2,
        )
    return token.encode()
