"""The engine on libfuse 2: its callbacks as file system operations. `binding` has their C types.

File bytes go straight into libfuse's buffer. Every callback returns an int, whatever happens in it. libfuse 2 keeps one
node for each path, so a path is detached (`unlinker`) before it passes on to another generation
(`mount.kernel.generations`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from collections.abc import Callable, Sequence
from typing import Any

from bentofs.mount.errors import CannotMountError, errno_of
from bentofs.mount.kernel.engine import EngineMount
from bentofs.mount.kernel.generations import Generations
from bentofs.mount.kernel.libfuse2 import binding
from bentofs.mount.kernel.libfuse2.unlinker import Unlinker
from bentofs.mount.kernel.mount_table import SUBTYPE
from bentofs.mount.kernel.names import decoded
from bentofs.mount.kernel.operations import Opened, Operations
from bentofs.mount.kernel.workers import MAX_WORKERS, Workers
from bentofs.mount.view.nodes import Attributes, File
from bentofs.store.errors import NotFoundError

BLOCK_SIZE = 128 << 10  # bytes: the most that a request carries, so programs should read that much at a time
_OPTIONS = (
    f"subtype={SUBTYPE}",
    "use_ino",
    "big_writes",  # 128 KiB a request instead of 4
    "atomic_o_trunc",  # O_TRUNC comes with the open, not as a truncation that follows
    # The kernel believes answers this long, in seconds. With the catalogue's own delay, a change is seen within two.
    "attr_timeout=1",
    "entry_timeout=1",
    # Unlinking our own path takes the node from its name at once, instead of renaming it to .fuse_hidden*.
    "hard_remove",
    # Limits for requests in the background. At 12, the default, a dozen slow readers stop everyone.
    f"max_background={MAX_WORKERS}",
    f"congestion_threshold={MAX_WORKERS}",
)


class Libfuse2Engine:
    """Serves one mount through libfuse 2."""

    def __init__(self, mountpoint: str, source: str, options: Sequence[str]) -> None:
        """`source`: the device that the kernel's mount table shows; `options`: as in `mount -o`, in addition to those
        of every mount of ours."""
        self._mountpoint = mountpoint
        words = [*_OPTIONS, f"fsname={_as_option(source)}", *options]
        self._arguments = ["bentofs", "-f", "-o", ",".join(words), mountpoint]
        self._unlinker = Unlinker(mountpoint)
        self.handles = Generations(self._unlinker)

    @property
    def features(self) -> Sequence[str]:
        """Return nothing: libfuse agrees on features with the kernel, and does not tell."""
        return ()

    @property
    def nodes(self) -> None:
        """Return None: libfuse does not tell."""
        return None

    def calling_user(self) -> int:
        """Return the uid of the program whose request this thread serves."""
        return binding.calling_user()

    def mount(self, operations: Operations, workers: Workers) -> EngineMount:
        """Mount.

        Raises:
            CannotMountError: libfuse refused; it has printed the reason on standard error.
        """
        callbacks = _Callbacks(operations, self.handles, self._unlinker)
        mount = binding.LibfuseMount.mount(self._arguments, callbacks.table(workers))
        if mount is None:
            raise CannotMountError(f"{self._mountpoint} could not be mounted")
        return mount

    def begin(self) -> None:
        """Start to detach paths, since the mount answers now."""
        self._unlinker.begin(self.handles.tried_late)

    def stop(self) -> None:
        """Stop the threads that run beside the workers."""
        self._unlinker.stop()


class _Callbacks:
    """The functions that libfuse calls."""

    def __init__(self, operations: Operations, generations: Generations, unlinker: Unlinker) -> None:
        self._operations = operations
        self._generations = generations
        self._unlinker = unlinker
        self._uid, self._gid = os.geteuid(), os.getegid()

    def table(self, workers: Workers) -> Any:
        """Return libfuse's table of callbacks."""
        table = binding.new_table()
        for name, prototype, *_ in table._fields_:
            if name in binding.CALLBACKS and (name != "flush" or self._operations.takes_uploads):
                setattr(table, name, prototype(workers.guard(name, getattr(self, f"_{name}"), _answer)))
        # Reads and similar calls then come without a path. libfuse would otherwise build one for each of them.
        table.flag_nullpath_ok = table.flag_nopath = 1
        table.flag_utime_omit_ok = 1  # otherwise setting one time alone is lost
        return table

    def _getattr(self, path: bytes, target: int) -> int:
        self._fill(target, self._attributes(decoded(path)))
        return 0

    def _attributes(self, path: str) -> Attributes:
        uploaded = self._operations.uploaded(path)
        if uploaded is not None:
            return uploaded
        old = self._generations.being_detached(path)
        if old is not None and self._unlinker.is_caller(binding.calling_thread()):
            return old
        ticket = self._generations.ticket()
        try:
            node = self._operations.node(path)
        except NotFoundError:
            self._generations.vanished(path)
            raise
        return self._generations.tell(path, node, ticket) if isinstance(node, File) else node.attributes()

    def _fgetattr(self, _path: int, target: int, info: int) -> int:
        self._fill(target, self._operations.fgetattr(binding.number_in(info)))
        return 0

    def _readlink(self, path: bytes, target: int, size: int) -> int:
        content = os.fsencode(self._operations.readlink(os.fsdecode(path)))[: size - 1] + b"\0"
        ctypes.memmove(target, content, len(content))
        return 0

    def _opendir(self, path: bytes, info: int) -> int:
        binding.set_number(info, self._operations.opendir(os.fsdecode(path)))
        return 0

    def _readdir(self, _path: int, buffer: int, fill: Callable[..., int], _offset: int, info: int) -> int:
        look = binding.Stat()
        at = ctypes.addressof(look)
        for name, mode, inode in self._operations.readdir(binding.number_in(info)):
            look.st_mode = mode
            look.st_ino = inode
            if fill(buffer, os.fsencode(name), at, 0):
                raise MemoryError("libfuse has no room for the listing")
        return 0

    def _releasedir(self, _path: int, info: int) -> int:
        self._operations.releasedir(binding.number_in(info))
        return 0

    def _open(self, path: bytes, info: int) -> int:
        flags = binding.FileInfo.from_address(info).flags
        _set_opened(info, self._operations.open(os.fsdecode(path), flags, binding.calling_user()))
        return 0

    def _create(self, path: bytes, mode: int, info: int) -> int:
        flags = binding.FileInfo.from_address(info).flags
        _set_opened(info, self._operations.create(os.fsdecode(path), flags, mode, binding.calling_user()))
        return 0

    def _read(self, _path: int, target: int, size: int, offset: int, info: int) -> int:
        view = binding.bytes_at(target, size)
        return self._operations.read_into(binding.number_in(info), view, offset)

    def _write(self, _path: int, source: int, size: int, offset: int, info: int) -> int:
        view = binding.bytes_at(source, size)
        return self._operations.write(binding.number_in(info), view, offset)

    def _flush(self, _path: int, info: int) -> int:
        self._operations.flush(binding.number_in(info))
        return 0

    def _fsync(self, _path: int, _data_only: int, info: int) -> int:
        self._operations.fsync(binding.number_in(info))
        return 0

    def _fsyncdir(self, _path: int, _data_only: int, info: int) -> int:
        self._operations.fsyncdir(binding.number_in(info), binding.calling_user())
        return 0

    def _ftruncate(self, _path: int, length: int, info: int) -> int:
        self._operations.ftruncate(binding.number_in(info), length)
        return 0

    def _fallocate(self, _path: int, mode: int, offset: int, length: int, info: int) -> int:
        self._operations.fallocate(binding.number_in(info), offset, length, mode)
        return 0

    def _truncate(self, path: bytes, length: int) -> int:
        self._operations.truncate(os.fsdecode(path), length, binding.calling_user())
        return 0

    def _release(self, _path: int, info: int) -> int:
        self._operations.release(binding.number_in(info))
        return 0

    def _access(self, path: bytes, mode: int) -> int:
        self._operations.access(os.fsdecode(path), mode)
        return 0

    def _statfs(self, _path: bytes, target: int) -> int:
        usage = self._operations.statfs()
        figures = binding.StatVfs.from_address(target)
        figures.f_bsize, figures.f_frsize = usage.block_size, usage.fragment_size
        figures.f_blocks, figures.f_bfree, figures.f_bavail = usage.blocks, usage.blocks_free, usage.blocks_available
        figures.f_files, figures.f_ffree, figures.f_favail = usage.files, usage.files_free, usage.files_free
        figures.f_namemax = usage.name_max
        return 0

    def _unlink(self, path: bytes) -> int:
        if not self._unlinker.is_caller(binding.calling_thread()):
            self._operations.unlink(os.fsdecode(path))
        return 0

    def _rename(self, old: bytes, new: bytes) -> int:
        self._operations.rename(os.fsdecode(old), os.fsdecode(new))
        return 0

    def _mkdir(self, path: bytes, _mode: int) -> int:
        self._operations.mkdir(os.fsdecode(path), binding.calling_user())
        return 0

    def _rmdir(self, path: bytes) -> int:
        self._operations.rmdir(os.fsdecode(path))
        return 0

    def _utimens(self, path: bytes, times: int) -> int:
        self._operations.utimens(os.fsdecode(path), *binding.wanted_times(times))
        return 0

    def _chmod(self, path: bytes, mode: int) -> int:
        self._operations.chmod(os.fsdecode(path), mode)
        return 0

    def _chown(self, path: bytes, _uid: int, _gid: int) -> int:
        self._operations.chown(os.fsdecode(path))
        return 0

    def _mknod(self, path: bytes, _mode: int, _device: int) -> int:
        self._operations.make_special(os.fsdecode(path))

    def _symlink(self, _target: bytes, path: bytes) -> int:
        self._operations.make_special(os.fsdecode(path))

    def _link(self, _old: bytes, path: bytes) -> int:
        self._operations.make_special(os.fsdecode(path))

    def _getxattr(self, path: bytes, name: bytes, target: int, size: int) -> int:
        return _fill_sized(target, size, self._operations.xattrs.get(os.fsdecode(path), os.fsdecode(name)))

    def _listxattr(self, path: bytes, target: int, size: int) -> int:
        return _fill_sized(target, size, self._operations.xattrs.names(os.fsdecode(path)))

    def _setxattr(self, path: bytes, name: bytes, value: int, size: int, flags: int) -> int:
        content = bytes(binding.bytes_at(value, size)) if size else b""
        self._operations.xattrs.set(os.fsdecode(path), os.fsdecode(name), content, flags)
        return 0

    def _removexattr(self, path: bytes, name: bytes) -> int:
        self._operations.xattrs.remove(os.fsdecode(path), os.fsdecode(name))
        return 0

    def _fill(self, target: int, attributes: Attributes) -> None:
        look = binding.Stat.from_address(target)
        look.st_mode, look.st_ino, look.st_nlink, look.st_size, mtime_ns, ctime_ns, uid = attributes
        look.st_uid, look.st_gid = self._uid if uid is None else uid, self._gid
        look.st_blksize = BLOCK_SIZE
        look.st_blocks = (attributes.size + 511) // 512 if stat.S_ISREG(attributes.mode) else 0
        binding.set_time(look.st_mtimespec, mtime_ns)
        binding.set_time(look.st_atimespec, mtime_ns)
        binding.set_time(look.st_ctimespec, ctime_ns)


def _fill_sized(target: int, size: int, answer: bytes) -> int:
    """Write an answer for a caller with so much room, and return its length. Without any room, write nothing."""
    if not size:
        return len(answer)
    if len(answer) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    ctypes.memmove(target, answer, len(answer))
    return len(answer)


def _set_opened(info: int, opened: Opened) -> None:
    what = binding.FileInfo.from_address(info)
    what.fh, what.keep_cache, what.direct_io = opened


def _answer(error: BaseException, operation: str) -> int:
    number = errno_of(error, operation)
    error.__traceback__ = None  # the error may be raised many times, and would keep the frames of each time
    return -number


def _as_option(text: str) -> str:
    """Replace the characters that could begin a further mount option, such as a comma."""
    return re.sub(r"[^\w./:@+=-]", "_", text)
