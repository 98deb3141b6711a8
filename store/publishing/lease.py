"""Leases: the sole right, among all hosts, to write one version of a remote store.

A lease is an object beside the version, `<name>/.<version>.bentofs-claim`. It is made with If-None-Match, so only one
host gets it. Its holder renews it every `BEAT_SECONDS`, each time on the condition that the object is unchanged. A
lease that was not renewed for `EXPIRY_SECONDS` was left behind by a crash; both times are by the server's clock. Any
host may then take it over, again with a condition. Servers that ignore conditions are refused
(`store.storage.conditional_writes`).

Threading: one thread holds a lease; another one renews it.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time

from bentofs.store.clients.objects import WritableObjects
from bentofs.store.errors import (
    ConditionFailedError,
    ModelExistsError,
    RemoteNotFoundError,
    StoreError,
    StoreUnwritableError,
)
from bentofs.store.model.tag import Tag
from bentofs.store.storage.manifest import claim_key
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
_WAIT_SECONDS = 75.0  # for another host that writes the same version; longer than an abandoned lease lasts
_POLL_SECONDS = 0.3

_given_up: set[str] = set()  # tokens of leases that this process could not remove; they bind it no longer


class Lease:
    """A lease on one version, held within its context."""

    def __init__(self, objects: WritableObjects, tag: Tag, stops: CancelTokens = ()) -> None:
        """`stops`: once one is set, waiting for another host ends."""
        self._stops = stops
        self._objects = objects
        self._tag = tag
        self._key = claim_key(tag.name, tag.version)
        self._token = secrets.token_hex(16)
        self._lock = threading.Lock()  # held while renewing
        self._beats = 0
        self._etag = ""
        self._renewed = 0.0  # monotonic
        self._is_lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_now_and_then, name="claim", daemon=True)

    def __enter__(self) -> Lease:
        """Take the lease; wait up to `_WAIT_SECONDS` while another host has it.

        Raises:
            ModelExistsError: another host still writes this version.
            CancelledError: one of `stops` is set.
            StoreUnreadableError
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        while not self._try():
            if time.monotonic() > deadline:
                raise ModelExistsError(
                    f"{self._tag} is being imported by another host just now: copy it again when that is done"
                )
            refuse_if_stopped(self._stops)
            time.sleep(_POLL_SECONDS)
        try:
            self._thread.start()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._ended.set()
        self._thread.join()
        self._give_back()

    def _give_back(self) -> None:
        try:
            self.check()
            self._objects.delete([self._key])
        except (StoreError, RuntimeError) as failed:  # no thread may begin that sends the request, for example
            _given_up.add(self._token)
            log.info("the claim on %s is left to expire: %s", self._tag, failed)

    def check(self) -> None:
        """Make sure that the lease is still ours.

        Raises:
            StoreUnwritableError: it is lost; the objects written under it must not become a model.
            StoreUnreadableError
        """
        with self._lock:
            if not self._is_lost and time.monotonic() - self._renewed > BEAT_SECONDS / 2:
                self._renew()
            if self._is_lost:
                raise StoreUnwritableError(
                    f"{self._tag} took too long to write, and another host may have started to write it: copy it again"
                )

    def _try(self) -> bool:
        try:
            self._etag = self._put(only_new=True)
        except ConditionFailedError:
            if not self._is_ours({self._token}) and not self._take_over():
                return False
        self._renewed = time.monotonic()
        return True

    def _take_over(self) -> bool:
        """Take over an abandoned lease; False if it is not ours now."""
        try:
            found, age = self._objects.find(self._key)
            if age < EXPIRY_SECONDS and not self._is_ours(_given_up):
                return False
            self._etag = self._put(only_if=found.etag)
        except (RemoteNotFoundError, ConditionFailedError):
            return False
        log.info("%s: starting an interrupted import again", self._tag)
        return True

    def _put(self, *, only_new: bool = False, only_if: str = "") -> str:
        self._beats += 1
        told = {"by": self._token, "host": socket.gethostname(), "beat": self._beats}
        content = json.dumps(told).encode()
        return self._objects.put(self._key, content, only_new=only_new, only_if=only_if)

    def _is_ours(self, tokens: set[str]) -> bool:
        """Tell whether the lease in the store has one of these tokens; if so, take over its ETag. A write of ours may
        have succeeded although its answer was lost."""
        try:
            found, _ = self._objects.find(self._key)
            content = self._objects.read(found, 0, found.size)
        except (RemoteNotFoundError, ConditionFailedError):
            return False
        if not any(token.encode() in content for token in tokens):
            return False
        self._etag = found.etag
        return True

    def _renew(self) -> None:
        """Renew the lease. Call it under the lock."""
        begun = time.monotonic()
        try:
            self._etag = self._put(only_if=self._etag)
        except (ConditionFailedError, RemoteNotFoundError):
            if not self._is_ours({self._token}):
                self._is_lost = True
                return
        self._renewed = begun

    def _renew_now_and_then(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with self._lock:
                try:
                    self._renew()
                except StoreError as error:
                    log.info("the claim on %s could not be renewed: %s", self._tag, error)
                if time.monotonic() - self._renewed > EXPIRY_SECONDS / 2:
                    self._is_lost = True
                if self._is_lost:
                    return
