"""Exceptions to errno, and the barrier around every callback."""

import errno
import logging
from collections.abc import Callable

import pytest

from bentofs.mount.errors import errno_of, exit_status_of
from bentofs.mount.kernel.libfuse2.engine import _answer
from bentofs.mount.kernel.workers import Workers
from bentofs.store import errors
from bentofs.store.errors import StoreError

TABLE = {
    errors.NotFoundError: errno.ENOENT,
    errors.BadTagError: errno.EINVAL,
    errors.BadModelError: errno.EINVAL,
    errors.UnsafeMemberError: errno.EINVAL,
    errors.SourceChangedError: errno.ESTALE,
    errors.StoreUnreadableError: errno.EIO,
    errors.StoreDeniedError: errno.EIO,
    errors.StoreUnwritableError: errno.EIO,
    errors.StagingError: errno.EIO,
    errors.DamagedArchiveError: errno.EBADMSG,
    errors.UnwrittenBytesError: errno.EBADMSG,
    errors.AlteredModelError: errno.EIO,
    errors.NotAModelError: errno.EINVAL,
    errors.NotAnArchiveError: errno.EINVAL,
    errors.TooBigError: errno.EFBIG,
    errors.NoSpaceError: errno.ENOSPC,
    errors.ModelExistsError: errno.EEXIST,
    errors.OtherContentError: errno.EEXIST,
    errors.CancelledError: errno.ECANCELED,
    errors.PostponedError: errno.ECANCELED,
    errors.InUseError: errno.EBUSY,
    errors.BadLocationError: errno.EINVAL,
    errors.RemoteError: errno.EIO,
    errors.UnreachableError: errno.EIO,
    errors.ConditionFailedError: errno.ESTALE,
    errors.RemoteDeniedError: errno.EACCES,
    errors.RemoteNotFoundError: errno.ENOENT,
    errors.MissingStoreError: errno.EIO,  # models that were there are not gone because of it
    errors.NoHomeError: errno.EIO,
    errors.MissingFileError: errno.ENOENT,
    errors.ReadOnlyError: errno.EROFS,
    errors.TargetExistsError: errno.EEXIST,
}
STATUSES = {
    errors.NotFoundError: 3,
    errors.BadTagError: 2,
    errors.BadModelError: 5,
    errors.UnsafeMemberError: 5,
    errors.SourceChangedError: 1,
    errors.StoreUnreadableError: 1,
    errors.StoreDeniedError: 1,
    errors.StoreUnwritableError: 1,
    errors.StagingError: 1,
    errors.DamagedArchiveError: 5,
    errors.UnwrittenBytesError: 5,
    errors.AlteredModelError: 5,
    errors.NotAModelError: 5,
    errors.NotAnArchiveError: 5,
    errors.TooBigError: 5,
    errors.NoSpaceError: 6,
    errors.ModelExistsError: 4,
    errors.OtherContentError: 4,
    errors.CancelledError: 130,
    errors.PostponedError: 130,
    errors.InUseError: 1,
    errors.BadLocationError: 2,
    errors.RemoteError: 7,
    errors.UnreachableError: 7,
    errors.ConditionFailedError: 1,
    errors.RemoteDeniedError: 8,
    errors.RemoteNotFoundError: 3,
    errors.MissingStoreError: 3,
    errors.NoHomeError: 1,
    errors.MissingFileError: 3,
    errors.ReadOnlyError: 1,
    errors.TargetExistsError: 4,
}


def all_errors(base: type[Exception] = StoreError) -> set[type[Exception]]:
    return {found for kind in base.__subclasses__() for found in {kind, *all_errors(kind)}}


def test_every_error_of_the_store_has_an_errno(expect_log: Callable[[str], None]) -> None:
    assert set(TABLE) == all_errors()
    expect_log("read: x")  # EIO and EACCES log their reason
    assert {kind: errno_of(kind("x"), "read") for kind in TABLE} == TABLE


def test_every_error_of_the_store_has_an_exit_status() -> None:
    assert set(STATUSES) == all_errors()
    assert {kind: exit_status_of(kind("x")) for kind in STATUSES} == STATUSES
    assert exit_status_of(PermissionError(errno.EACCES, "x")) == 1  # of this machine, not of a server
    assert exit_status_of(KeyError("x")) == 1


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EROFS, "x"), errno.EROFS),
        (OSError("without errno"), errno.EIO),  # plain fusepy turns this into an early end of file
        (OSError(-5, "negative"), errno.EIO),
        (OSError(0, "zero"), errno.EIO),
        (KeyError("x"), errno.EIO),
        (MemoryError(), errno.EIO),
        (SystemExit(0), errno.EIO),
        (KeyboardInterrupt(), errno.EIO),
        (GeneratorExit(), errno.EIO),
        (RecursionError(), errno.EIO),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), errno.EIO),
        (StopIteration(), errno.EIO),
    ],
    ids=repr,
)
def test_whatever_a_callback_raises_ends_in_an_errno(
    error: BaseException, number: int, expect_log: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise error

    if number == errno.EIO:
        expect_log("read failed unexpectedly")
    workers = Workers(1)
    workers._local.worker = type("Worker", (), {"busy_since": 0.0})()
    with caplog.at_level(logging.ERROR):
        assert workers.guard("read", fail, _answer)(1, 2) == -number
    if number == errno.EIO:
        assert caplog.records[0].exc_info is not None


def test_a_broken_store_does_not_flood_the_log(
    expect_log: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    expect_log("getattr: the disk is gone")
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            assert errno_of(errors.StoreUnreadableError("the disk is gone"), "getattr") == errno.EIO
    assert len(caplog.records) == 1
