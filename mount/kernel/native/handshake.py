"""INIT: agree with the kernel on a version, on features and on the sizes of requests."""

from __future__ import annotations

import errno
import mmap
import os
from typing import NamedTuple

from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.native.protocol import (
    IN_HEADER,
    INIT_IN,
    INIT_IN_FLAGS2,
    INIT_OUT,
    MAJOR,
    NEWEST_MINOR,
    OLDEST_MINOR,
    OUT_HEADER,
    InitFlag,
    Opcode,
)
from bentofs.mount.kernel.workers import MAX_WORKERS

MAX_TRANSFER = 1 << 20  # bytes of one READ or WRITE
_PAGE = mmap.PAGESIZE  # 64 KiB on some ARM machines
BUFFER_SIZE = MAX_TRANSFER + _PAGE  # bytes of the longest request: a WRITE with its headers

# Left out on purpose:
# - ASYNC_DIO: the kernel would not report signals for a reader with O_DIRECT, which then could not be killed.
# - AUTO_INVAL_DATA: a node has one generation, so its cached pages stay valid as long as it lives.
# - POSIX_LOCKS, FLOCK_LOCKS: without them the kernel keeps locks itself.
# - WRITEBACK_CACHE: writes would come late, and a write error would come after close.
# - DIRECT_IO_ALLOW_MMAP: a shared map of an upload would be written after its close.
_WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.BIG_WRITES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.ABORT_ERROR
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.INIT_EXT
)


class Agreement(NamedTuple):
    """The version and the features that the kernel and the daemon agreed on."""

    minor: int  # of the protocol's version
    flags: InitFlag


class Offer(NamedTuple):
    """The kernel's offer in INIT."""

    major: int
    minor: int
    max_readahead: int  # bytes
    flags: int

    @classmethod
    def parse(cls, body: bytes) -> Offer:
        """Parse the body of an INIT request, with the length of any version."""
        major, minor, max_readahead, flags = INIT_IN.unpack_from(body)
        if flags & InitFlag.INIT_EXT and len(body) >= INIT_IN.size + INIT_IN_FLAGS2.size:
            flags |= INIT_IN_FLAGS2.unpack_from(body, INIT_IN.size)[0] << 32
        return cls(major, minor, max_readahead, flags)


def agree(offer: Offer, stack_depth: int = 0) -> tuple[Agreement, bytes]:
    """Return the agreement for an offer, and the answer's body. `stack_depth`: above 0 for passthrough.

    Raises:
        CannotMountError: the kernel's version is too old.
    """
    if offer.major < MAJOR or (offer.major == MAJOR and offer.minor < OLDEST_MINOR):
        raise CannotMountError(
            f"this kernel speaks version {offer.major}.{offer.minor} of the FUSE protocol, and {MAJOR}.{OLDEST_MINOR} "
            "(Linux 5.4) is the oldest that will do: mount with --engine libfuse2"
        )
    flags = (_WANTED | InitFlag.PASSTHROUGH if stack_depth else _WANTED) & offer.flags
    minor = min(offer.minor, NEWEST_MINOR)
    pages = MAX_TRANSFER // _PAGE if flags & InitFlag.MAX_PAGES else 0
    body = INIT_OUT.pack(
        MAJOR,
        minor,
        offer.max_readahead,
        flags & 0xFFFFFFFF,
        MAX_WORKERS,  # requests in the background; at 12, the default, a dozen slow readers stop everyone
        MAX_WORKERS,  # the number of them that makes the kernel hold back
        MAX_TRANSFER,
        1,  # ns: times are kept exactly
        pages,
        0,
        flags >> 32,
        stack_depth if flags & InitFlag.PASSTHROUGH else 0,
        0,
    )
    return Agreement(minor, flags), body


def shake_hands(device: int, stack_depth: int = 0) -> Agreement:
    """Answer the INIT request, which comes first on a new device. `stack_depth`: above 0 for passthrough.

    Raises:
        CannotMountError: the kernel and the daemon have no version in common, or the mount has ended already.
    """
    buffer = bytearray(BUFFER_SIZE)
    while True:
        try:
            received = os.readv(device, [buffer])
        except InterruptedError:
            continue
        except OSError as error:
            raise CannotMountError(f"the mount ended before it began: {error.strerror}; try again") from None
        _, opcode, unique, *_ = IN_HEADER.unpack_from(buffer)
        if opcode != Opcode.INIT:
            raise CannotMountError(f"the kernel begins with request {opcode} instead of INIT")
        offer = Offer.parse(bytes(buffer[IN_HEADER.size : received]))
        if offer.major > MAJOR:  # the kernel then asks again, in our version
            _answer(device, unique, INIT_OUT.pack(MAJOR, NEWEST_MINOR, *[0] * 11))
            continue
        try:
            agreement, body = agree(offer, stack_depth)
        except CannotMountError:
            os.write(device, OUT_HEADER.pack(OUT_HEADER.size, -errno.EPROTO, unique))
            raise
        _answer(device, unique, body)
        return agreement


def _answer(device: int, unique: int, body: bytes) -> None:
    os.writev(device, [OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique), body])
