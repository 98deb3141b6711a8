"""Entries: the resources of a tree as WebDAV describes them."""

from __future__ import annotations

import datetime
import stat
from collections.abc import Sequence
from typing import NamedTuple

from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.serve.dav.xml import DAV, Property, text
from bentofs.mount.serve.etags import etag_of, etag_of_upload
from bentofs.mount.serve.media import media_type
from bentofs.mount.serve.ranges import Validators
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.targets import href
from bentofs.mount.view.nodes import Attributes, File, Folder, Item
from bentofs.mount.view.tree import INCOMING
from bentofs.store.errors import StoreError, is_failure

_SECOND = 1_000_000_000
_FOLDER_MIME = "httpd/unix-directory"


class Entry(NamedTuple):
    """One resource."""

    names: tuple[str, ...]
    attributes: Attributes
    etag: str | None = None

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.attributes.mode)

    @property
    def href(self) -> str:
        return href(self.names, is_folder=self.is_folder)

    def properties(self) -> list[Property]:
        """Return the live properties, but for those of locks."""
        mtime_ns = self.attributes.mtime_ns
        created = datetime.datetime.fromtimestamp(max(0, mtime_ns // _SECOND), datetime.timezone.utc)
        found = [
            Property(f"{DAV}displayname", text(self.names[-1] if self.names else "/")),
            Property(f"{DAV}resourcetype", "<D:collection/>" if self.is_folder else ""),
            Property(f"{DAV}creationdate", f"{created:%Y-%m-%dT%H:%M:%SZ}"),
            Property(f"{DAV}getlastmodified", Validators(None, mtime_ns).last_modified),
        ]
        if self.is_folder:
            return [*found, Property(f"{DAV}getcontenttype", _FOLDER_MIME)]
        kind, _ = media_type(self.names[-1], is_models=True)
        found += [
            Property(f"{DAV}getcontentlength", str(self.attributes.size)),
            Property(f"{DAV}getcontenttype", kind),
        ]
        return found if self.etag is None else [*found, Property(f"{DAV}getetag", text(self.etag))]


class Entries:
    """Looks at resources. All methods run in the threads of the site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def entry(self, names: Sequence[str]) -> Entry:
        """Return the resource at a path.

        Raises:
            NotFoundError: there is none.
            StoreError, OSError: it cannot be looked at.
        """
        below = self._site.below_incoming(names)
        if below is not None and self._site.namespace is not None:
            return _uploaded(self._site.namespace, tuple(names), below)
        return _of_node(tuple(names), self._site.find(names)[1])

    def members(self, names: Sequence[str]) -> list[str]:
        """Return the names in a directory."""
        below = self._site.below_incoming(names)
        items: list[Item]
        if below is not None and self._site.namespace is not None:
            items = self._site.namespace.items(below)
        else:
            _, node = self._site.find(names)
            items = node.items() if isinstance(node, Folder) else []
        return [item.name for item in items]

    def entries(self, names: Sequence[str], members: Sequence[str]) -> list[Entry]:
        """Return some members of a directory. One that has gone, or is no model any more, is left out."""
        found = []
        for name in members:
            try:
                found.append(self.entry((*names, name)))
            except (StoreError, OSError) as error:
                if isinstance(error, StoreError) and is_failure(error):
                    raise
        return found


def _of_node(names: tuple[str, ...], node: Folder | File) -> Entry:
    if isinstance(node, Folder):
        return Entry(names, node.attributes())
    return Entry(names, node.attributes(), etag_of(node))


def _uploaded(namespace: Namespace, names: tuple[str, ...], below: str) -> Entry:
    attributes = namespace.attributes(below)
    assert names[0] == INCOMING
    return Entry(names, attributes, None if stat.S_ISDIR(attributes.mode) else etag_of_upload(attributes))
