"""INIT: the protocol features agreed on with old and new kernels."""

import errno
import socket
import struct

import pytest

from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.native import protocol
from bentofs.mount.kernel.native.handshake import MAX_TRANSFER, Offer, agree, shake_hands
from bentofs.mount.kernel.native.protocol import IN_HEADER, INIT_OUT, OUT_HEADER, InitFlag, Opcode

ALL = (1 << 64) - 1


def test_structures_are_as_long_as_the_kernels() -> None:
    """The lengths of include/uapi/linux/fuse.h. A wrong field would change them."""
    lengths = {
        "IN_HEADER": 40,
        "OUT_HEADER": 16,
        "INIT_OUT": 64,
        "ENTRY_OUT": 128,
        "ATTR_OUT": 104,
        "OPEN_OUT": 16,
        "WRITE_OUT": 8,
        "STATFS_OUT": 80,
        "SETATTR_IN": 88,
        "READ_IN": 40,
        "WRITE_IN": 40,
        "RELEASE_IN": 24,
        "FLUSH_IN": 24,
        "FSYNC_IN": 16,
        "CREATE_IN": 16,
        "FALLOCATE_IN": 32,
        "DIRENT": 24,
        "DIRENTPLUS": 152,
    }
    assert {name: getattr(protocol, name).size for name in lengths} == lengths


@pytest.mark.parametrize(("minor", "agreed"), [(31, 31), (45, 45), (60, 45)])
def test_the_version_is_the_older_one(minor: int, agreed: int) -> None:
    agreement, body = agree(Offer(7, minor, 131072, ALL))
    assert agreement.minor == agreed
    assert INIT_OUT.unpack(body)[:2] == (7, agreed)


def test_only_what_was_offered_is_agreed_to() -> None:
    offered = InitFlag.ASYNC_READ | InitFlag.BIG_WRITES
    agreement, body = agree(Offer(7, 31, 131072, offered | 1 << 15 | 1 << 16))
    assert agreement.flags == offered
    _, _, _, flags, _, _, max_write, _, pages, _, flags2, *_ = INIT_OUT.unpack(body)
    assert (flags, flags2, pages) == (offered, 0, 0)
    assert max_write == 1 << 20


def test_a_request_fits_into_its_buffer_whatever_a_page_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some machines have pages of 64 KiB. A read longer than its buffer would be cut short."""
    monkeypatch.setattr("bentofs.mount.kernel.native.handshake._PAGE", 65536)
    _, body = agree(Offer(7, 31, 131072, ALL))
    assert INIT_OUT.unpack(body)[8] * 65536 == MAX_TRANSFER


def test_an_old_kernel_is_told_so() -> None:
    with pytest.raises(CannotMountError, match=r"7\.30 of the FUSE protocol.*--engine libfuse2"):
        agree(Offer(7, 30, 131072, ALL))


def test_the_handshake_over_a_device() -> None:
    """A kernel that is too old gets an error, so that nobody waits for the mount. A newer major version is answered
    with ours, and asks again."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        kernel.send(init(unique=2, major=7, minor=23))
        with pytest.raises(CannotMountError, match=r"7\.23 of the FUSE protocol.*7\.31.*--engine libfuse2"):
            shake_hands(ours.fileno())
        assert OUT_HEADER.unpack(kernel.recv(100)) == (OUT_HEADER.size, -errno.EPROTO, 2)
        kernel.send(init(unique=4, major=8, minor=1))
        kernel.send(init(unique=6, major=7, minor=39))
        assert shake_hands(ours.fileno()).minor == 39
        for unique, version in ((4, (7, 45)), (6, (7, 39))):
            reply = kernel.recv(100)
            assert OUT_HEADER.unpack_from(reply) == (len(reply), 0, unique)
            assert INIT_OUT.unpack_from(reply, OUT_HEADER.size)[:2] == version


def init(unique: int, major: int, minor: int) -> bytes:
    """Return the kernel's first request."""
    body = struct.pack("=IIII48x", major, minor, 131072, 0)
    return IN_HEADER.pack(IN_HEADER.size + len(body), Opcode.INIT, unique, 0, 0, 0, 0, 0, 0) + body


def test_an_offer_of_any_length_is_read() -> None:
    words = (7, 31, 131072, InitFlag.ASYNC_READ)
    assert Offer.parse(struct.pack("=IIII", *words)) == Offer(*words)
    longer = struct.pack("=IIIII44x", 7, 45, 131072, InitFlag.INIT_EXT, 1 << 5)
    assert Offer.parse(longer).flags == InitFlag.INIT_EXT | InitFlag.PASSTHROUGH
    lying = struct.pack("=IIIII44x", 7, 45, 131072, 0, 1 << 5)  # without INIT_EXT the field means nothing
    assert Offer.parse(lying).flags == 0
