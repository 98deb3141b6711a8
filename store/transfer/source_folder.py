"""A model to import that lies in a directory and not in an archive: on this machine, or on a server.

Threading: any thread.
"""

from __future__ import annotations

import os

from bentofs.store.errors import DamagedArchiveError, NotAModelError, NotFoundError, RemoteNotFoundError, TooBigError
from bentofs.store.formats.read.sink import Sink
from bentofs.store.location import Location
from bentofs.store.model.model import MODEL_YAML
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.pinned import OpenFiles, PinnedFile
from bentofs.store.transfer.byte_counter import Counted
from bentofs.store.transfer.endpoints.base import CHUNK, Source
from bentofs.store.util.display import printable
from bentofs.store.util.names import portable_name


def fill_from_disk(path: str, target: Sink, counted: Counted) -> None:
    """Put a directory of this machine into a target. Links are replaced by their targets, within the directory.

    Raises:
        NotFoundError, NotAModelError: there is no directory, or it is no model.
        StoreError: it cannot be read, or the target refuses it.
    """
    if not os.path.isdir(path):
        kind = "not a directory" if os.path.lexists(path) else "not there"
        raise NotFoundError(f"{printable(path)} is {kind}")
    parent, name = os.path.split(os.path.realpath(path))
    storage = LocalStorage(parent)
    entries, _ = storage.walk(name)
    if entries.find(MODEL_YAML) is None:
        raise NotAModelError(f"there is no {MODEL_YAML} in {printable(path)}, so it is not a model")
    open_files = OpenFiles()
    for entry in entries:
        if entry.is_folder or entry.identity is None:
            target.folder(portable_name(entry.path))
            continue
        content = PinnedFile(storage, open_files, entry.source, entry.identity)
        with target.file(portable_name(entry.path), entry.executable) as file:
            for offset in range(0, entry.size, CHUNK):
                view = memoryview(bytearray(min(CHUNK, entry.size - offset)))
                content.read_into([view], offset)
                file.write(view.toreadonly())
                counted(len(view))
        content.let_go()


def fill_from(source: Source, location: Location, target: Sink, counted: Counted, max_members: int) -> None:
    """Put a directory of another machine into a target.

    Raises:
        RemoteNotFoundError, NotAModelError: there is no directory, or it is no model.
        TooBigError: it holds more than `max_members` files and directories.
        DamagedArchiveError: a file is shorter than the server said.
        StoreError: it cannot be read, or the target refuses it.
    """
    found = []
    for path, known in source.find(location.path):
        found.append((path, known))
        if len(found) > max_members:
            raise TooBigError(f"{location.shown} holds more than {max_members:,} files and directories")
    if not any(path == MODEL_YAML for path, _ in found):
        if not found:
            raise RemoteNotFoundError(f"{location.shown} is not there, or it is empty")
        raise NotAModelError(f"there is no {MODEL_YAML} in {location.shown}, so it is not a model")
    base = location.path.rstrip("/")
    for path, known in sorted(found, key=lambda item: (item[0] != MODEL_YAML, item[0])):
        if known is None:
            target.folder(path)
            continue
        with target.file(path, known.executable) as file:
            size = 0
            for chunk in source.chunks(f"{base}/{path}" if base else path, known):
                file.write(memoryview(chunk))
                size += len(chunk)
                counted(len(chunk))
            if known.size is not None and size != known.size:
                raise DamagedArchiveError(f"only {size:,} bytes came of {printable(path)} in {location.shown}")
