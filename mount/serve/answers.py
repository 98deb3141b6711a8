"""Answers: the statuses of errors, and answers that are one sentence.

A sentence of an error stands in the body, and in the reason phrase, since many clients show only that: wget, cadaver,
gio, rclone.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping

from aiohttp.web import BaseRequest, Response

from bentofs.mount.errors import errno_of
from bentofs.mount.serve.targets import BadTargetError
from bentofs.store.errors import (
    AlteredModelError,
    BadLocationError,
    BadModelError,
    BadTagError,
    CancelledError,
    DamagedArchiveError,
    InUseError,
    ModelExistsError,
    NoSpaceError,
    NotAnArchiveError,
    NotFoundError,
    RemoteError,
    SourceChangedError,
    StoreError,
    TargetExistsError,
    TooBigError,
)

log = logging.getLogger(__name__)

_LONGEST_REASON = 200  # characters

# A subclass comes before its base: the first match counts. All others are 500.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (BadTargetError, 400),
    (NotFoundError, 404),
    (BadTagError, 404),
    (BadLocationError, 404),
    (NotAnArchiveError, 415),
    (BadModelError, 422),
    (DamagedArchiveError, 422),
    (AlteredModelError, 500),
    (ModelExistsError, 409),
    (TargetExistsError, 409),
    (TooBigError, 413),
    (NoSpaceError, 507),
    (CancelledError, 409),
    (InUseError, 409),
    (SourceChangedError, 503),
    (RemoteError, 502),
)
_ERRNO_STATUSES = {
    errno.ENOENT: 404,
    errno.ENOTDIR: 404,
    errno.ENAMETOOLONG: 414,
    errno.EEXIST: 409,
    errno.EISDIR: 405,
    errno.ENOTEMPTY: 409,
    errno.EXDEV: 502,
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.EROFS: 403,
    errno.ENOSPC: 507,
    errno.EDQUOT: 507,
}


def status_of(error: Exception) -> int:
    """Return the status of an answer for an exception."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    if isinstance(error, OSError):
        return _ERRNO_STATUSES.get(error.errno or 0, 500)
    return 500


def refusal(request: BaseRequest | None, error: Exception, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for an exception. Log what this machine is to blame for."""
    status = status_of(error)
    if status >= 500:
        errno_of(error, "upload" if request is None else request.method)
    sentence = str(error) if isinstance(error, StoreError | BadTargetError) else _of_system(error)
    return sentence_answer(status, sentence, headers)


def sentence_answer(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that is one sentence."""
    text = " ".join(sentence.encode("utf-8", "backslashreplace").decode().split())
    answer = Response(status=status, reason=reason_phrase(text) or None, text=f"{text}\n", headers=headers)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def reason_phrase(sentence: str) -> str:
    """Return a sentence as a reason phrase: printable ASCII, one line, not too long."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in " ".join(sentence.split()))
    return plain[:_LONGEST_REASON]


def _of_system(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and status_of(error) < 500:
        return error.strerror
    return "the server failed: its log says why"
