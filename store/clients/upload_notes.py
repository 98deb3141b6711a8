"""Notes on unfinished multipart uploads: S3 keeps, and charges for, the parts of an upload that was never ended.

Each upload has a note in the user's state directory as long as it runs: a file that its process keeps locked. A note
without a lock was left by a process that was killed, or that could not reach its server. The next process that writes
to the bucket aborts that upload.

Threading: any thread, any number of processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from bentofs.store.errors import NoHomeError
from bentofs.store.paths import state_folder

log = logging.getLogger(__name__)

_MAX_NOTE = 16 << 10  # bytes


class Unfinished:
    """The notes on the uploads to one bucket."""

    def __init__(self, bucket: str) -> None:
        """`bucket`: its endpoint and name, so that buckets with the same name elsewhere differ."""
        self._prefix = hashlib.sha256(bucket.encode()).hexdigest()[:16]
        try:
            self._folder = os.path.join(state_folder(), "uploads")
        except NoHomeError:
            self._folder = ""

    @contextmanager
    def noted(self, path: str, upload: str) -> Iterator[Callable[[], None]]:
        """Keep a note on an upload during the context. The note stays unless the yielded function is called."""
        note = os.path.join(self._folder, f"{self._prefix}-{secrets.token_hex(8)}")
        descriptor = -1
        try:
            for folder in (os.path.dirname(self._folder), self._folder):  # the mode is for the last one only
                os.makedirs(folder, mode=0o700, exist_ok=True)
            descriptor = os.open(note, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, json.dumps([path, upload]).encode())
        except OSError as error:
            log.info("the upload of %s could not be noted, so a crash would leave its parts in S3: %s", path, error)

        def done() -> None:
            with suppress(OSError):
                os.unlink(note)

        try:
            yield done
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def left_behind(self) -> Iterator[tuple[str, str, Callable[[], None]]]:
        """Yield the path and id of each upload whose process is gone, and a function that deletes its note."""
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            return
        for name in names:
            if not name.startswith(self._prefix):
                continue
            note = os.path.join(self._folder, name)
            with suppress(OSError, ValueError):
                descriptor = os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path, upload = json.loads(os.read(descriptor, _MAX_NOTE))
                    yield str(path), str(upload), lambda note=note: os.unlink(note)  # type: ignore[misc]
                finally:
                    os.close(descriptor)
