"""The kernel's FUSE protocol: operation codes, flags and structures, from Linux's include/uapi/linux/fuse.h.

Versions 7.31 (Linux 5.4) to 7.45 (Linux 6.18). A later version may append to a structure; the old parts stay first.
If a line names a version, older kernels do not know the line. All numbers have the machine's byte order.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

MAJOR = 7
OLDEST_MINOR = 31  # Linux 5.4
NEWEST_MINOR = 45  # Linux 6.18
ROOT_ID = 1


class Opcode(IntEnum):
    """Operations that the kernel asks for."""

    LOOKUP = 1
    FORGET = 2  # no reply
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36  # needs no reply
    DESTROY = 38
    BATCH_FORGET = 42  # no reply
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45


class InitFlag(IntFlag):
    """Features that the kernel offers and the daemon agrees to, in INIT. Bits from 32 on have their own field."""

    ASYNC_READ = 1 << 0  # several READs of one file in flight
    ATOMIC_O_TRUNC = 1 << 3  # O_TRUNC comes with OPEN
    BIG_WRITES = 1 << 5  # WRITEs above 4 KiB
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14  # READDIRPLUS only if the names are looked up as well
    PARALLEL_DIROPS = 1 << 18  # several LOOKUPs in one directory at once
    ABORT_ERROR = 1 << 21  # read() fails with ECONNABORTED after an abort
    MAX_PAGES = 1 << 22  # requests of more than 32 pages
    CACHE_SYMLINKS = 1 << 23
    INIT_EXT = 1 << 30  # 7.36: bits from 32 on
    PASSTHROUGH = 1 << 37  # 7.40


class OpenFlag(IntFlag):
    """Flags in the replies to OPEN and CREATE."""

    DIRECT_IO = 1 << 0  # no page cache
    KEEP_CACHE = 1 << 1  # the kernel's cached pages are still valid
    NOFLUSH = 1 << 5  # 7.35: no FLUSH when it is closed
    PASSTHROUGH = 1 << 7  # 7.40


class SetattrValid(IntFlag):
    """The fields of SETATTR that are to be set."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8


RENAME_NOREPLACE = 1  # RENAME2, as in renameat2(2)

# ioctls of the device, 7.40
BACKING_OPEN, BACKING_CLOSE = 0x4010E501, 0x4004E502
BACKING_OPEN_IN = Struct("=iIQ")  # descriptor flags -
BACKING_CLOSE_IN = Struct("=I")  # backing id

# Headers
IN_HEADER = Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = Struct("=IiQ")  # len error unique

# Requests, after the header
INIT_IN = Struct("=IIII")  # major minor max_readahead flags; flags2 follows from 7.36 on
INIT_IN_FLAGS2 = Struct("=I")
FORGET_IN = Struct("=Q")  # nlookup
BATCH_FORGET_IN = Struct("=II")  # count, dummy; then as many FORGET_ONE
FORGET_ONE = Struct("=QQ")  # nodeid nlookup
GETATTR_IN = Struct("=IIQ")  # flags, dummy, fh
SETATTR_IN = Struct("=IIQQQqqqIIIIIIII")  # valid - fh size owner atime mtime ctime *nsec mode - uid gid -
MKNOD_IN = Struct("=IIII")  # mode rdev umask -; then the name
MKDIR_IN = Struct("=II")  # mode umask; then the name
CREATE_IN = Struct("=IIII")  # flags mode umask open_flags; then the name
OPEN_IN = Struct("=II")  # flags open_flags
READ_IN = Struct("=QQIIQII")  # fh offset size read_flags lock_owner flags -
WRITE_IN = Struct("=QQIIQII")  # fh offset size write_flags lock_owner flags -; then the bytes
RELEASE_IN = Struct("=QIIQ")  # fh flags release_flags lock_owner
FLUSH_IN = Struct("=QIIQ")  # fh - - lock_owner
FSYNC_IN = Struct("=QII")  # fh fsync_flags -
ACCESS_IN = Struct("=II")  # mask -
RENAME_IN = Struct("=Q")  # newdir; then both names
RENAME2_IN = Struct("=QII")  # newdir flags -; then both names
LINK_IN = Struct("=Q")  # oldnodeid; then the new name
FALLOCATE_IN = Struct("=QQQII")  # fh offset length mode -
SETXATTR_IN = Struct("=II")  # size flags; then name and value
GETXATTR_IN = Struct("=II")  # size -; then the name, except in LISTXATTR
INTERRUPT_IN = Struct("=Q")  # unique

# Replies, after the header
_ATTR = "QQQqqqIIIIIIIIII"  # ino size blocks atime mtime ctime *nsec mode nlink uid gid rdev blksize flags
_ENTRY = "QQQQII"  # nodeid generation entry_valid attr_valid *nsec
_DIRENT = "QQII"  # ino off namelen type
INIT_OUT = Struct("=IIIIHHIIHHIIH22x")  # major minor max_readahead flags max_background congestion_threshold
#   max_write time_gran max_pages map_alignment flags2 max_stack_depth (7.40) request_timeout (7.43)
ENTRY_OUT = Struct("=" + _ENTRY + _ATTR)
ATTR_OUT = Struct("=QII" + _ATTR)  # attr_valid nsec -
OPEN_OUT = Struct("=QIi")  # fh open_flags backing_id
WRITE_OUT = Struct("=II")  # size -
GETXATTR_OUT = Struct("=II")  # size -; the reply to a request of size 0
STATFS_OUT = Struct("=QQQQQIIII24x")  # blocks bfree bavail files ffree bsize namelen frsize -
DIRENT = Struct("=" + _DIRENT)  # then the name, padded to 8 bytes
DIRENTPLUS = Struct("=" + _ENTRY + _ATTR + _DIRENT)
