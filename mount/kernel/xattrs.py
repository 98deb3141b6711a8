"""Operations on extended attributes, behind both engines.

The tree has attributes in `user.*` only (`mount.view.extended`). `ls -l` asks for names of other namespaces. These get
ENOTSUP before any look: ls then asks no more on this mount. ENODATA would make it ask for each file.

In `incoming/` all attributes can be set, and none is kept: `cp -a` and `rsync -X` fail for a file if one is refused.
An access ACL replaces chmod in such programs, so its permissions are used like a mode.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Hashable
from typing import TYPE_CHECKING

from bentofs.mount.view.extended import PREFIX, Attributes, ExtendedAttributes
from bentofs.mount.view.nodes import File
from bentofs.store.errors import SourceChangedError

if TYPE_CHECKING:
    from bentofs.mount.kernel.operations import Operations

XATTR_CREATE, XATTR_REPLACE = 1, 2  # flags of setxattr(2)
_ACCESS_ACL = "system.posix_acl_access"
_ACL_VERSION = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")  # tag permissions id
_ACL_USER, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = 0x01, 0x04, 0x10, 0x20


class ExtendedAttributeOperations:
    """The operations on extended attributes of one mount."""

    def __init__(self, operations: Operations, tree: ExtendedAttributes) -> None:
        self._operations = operations
        self._tree = tree

    def get(self, path: str, name: str, expected: Hashable = None) -> bytes:
        """Return a value. `expected`: the only generation of a file to accept, if any.

        Raises:
            OSError: ENODATA, or ENOTSUP for a name outside of `user.*`.
            SourceChangedError: another generation is at the path.
        """
        if not name.startswith(PREFIX):
            raise _error(errno.ENOTSUP)
        value = None if self._operations.is_upload(path) else self._of(path, expected).get(name)
        if value is None:
            raise _error(errno.ENODATA)
        return value

    def names(self, path: str, expected: Hashable = None) -> bytes:
        """Return all names, each ended by a zero byte. `expected`: as for `get`."""
        if self._operations.is_upload(path):
            return b""
        return b"".join(os.fsencode(name) + b"\0" for name in self._of(path, expected))

    def set(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Accept an attribute of an upload, and do not keep it. Refuse all others."""
        self._operations.check_upload(path)
        if flags & XATTR_REPLACE:
            raise _error(errno.ENODATA)
        if name == _ACCESS_ACL:
            self._operations.chmod(path, _mode_of_acl(value))

    def remove(self, path: str, name: str) -> None:
        """Find no attribute in `user.*` to remove from an upload, and accept the removal of others, such as an ACL.
        Refuse all other paths."""
        self._operations.check_upload(path)
        if name.startswith(PREFIX):
            raise _error(errno.ENODATA)

    def _of(self, path: str, expected: Hashable) -> Attributes:
        node = self._operations.node(path)
        if expected is not None and isinstance(node, File) and node.generation != expected:
            raise SourceChangedError(f"{path} was replaced since it was looked up")
        return self._tree.of(node)


def _mode_of_acl(value: bytes) -> int:
    """Return the permissions in an access ACL, as chmod takes them: of the owner, the group or the mask, and others."""
    rest = len(value) - _ACL_VERSION.size
    if rest < 0 or rest % _ACL_ENTRY.size:
        raise _error(errno.EINVAL)
    found: dict[int, int] = {
        tag: permissions & 7 for tag, permissions, _ in _ACL_ENTRY.iter_unpack(value[_ACL_VERSION.size :])
    }
    group: int = found.get(_ACL_MASK, found.get(_ACL_GROUP, 0))
    return found.get(_ACL_USER, 0) << 6 | group << 3 | found.get(_ACL_OTHER, 0)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
