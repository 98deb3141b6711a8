"""The text of README.txt at the top of a mount."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from bentofs.store.formats.write.registry import FOLDER
from bentofs.store.util.display import printable


class Reader(enum.Enum):
    """The kind of tree that the text is for."""

    MOUNT = "mount"
    SERVER = "server"


_INCOMING = """incoming/               copy a model in, as an archive or a directory: it is imported into the store
"""
_LABELS = """by-label/KEY/VALUE/     links to the models that have this label
"""
_IMPORTING = """Import a model:                     cp NAME-VERSION.zip incoming/
  (it is in the store once cp has succeeded; else incoming/NAME-VERSION.zip.error says why)
Import a model that is a directory: cp -r DIRECTORY incoming/ && sync incoming/DIRECTORY
"""


_MOUNT = """\
Copy a model to a memory stick:     cp models/NAME/latest.{first} /media/stick/
Copy all models to another machine: rsync -a by-format/{first}/ host:backup/
Import one there:                   bentoml models import "$PWD/NAME-VERSION.{first}"
{importing}
{rest}: models are made and deleted with BentoML.
To unmount: bentofs unmount MOUNTPOINT
"""
_SERVER = """\
Fetch a model:                      curl -OJ URL/models/NAME/latest.{first}
Import one there:                   bentoml models import "$PWD/NAME-VERSION.{first}"
{importing}
{rest}: models are made and deleted with BentoML.
URL is the address of this server. WebDAV clients read the same names: rclone, davfs2, file managers.
"""
_SENDING = """\
Import a model:                     curl --fail-with-body -T NAME-VERSION.zip URL/incoming/
  (it is in the store once curl has succeeded; else curl prints why not)
"""


def readme(
    location: str,
    formats: Sequence[str],
    *,
    has_incoming: bool,
    by_label: bool = False,
    reader: Reader = Reader.MOUNT,
) -> str:
    """Return the text for a store at `location`, shown in these formats."""
    first = formats[0] if formats else FOLDER
    is_mount = reader is Reader.MOUNT
    incoming = _INCOMING if has_incoming else ""
    labels = _LABELS if by_label else ""
    importing = (_IMPORTING if is_mount else _SENDING) if has_incoming else ""
    rest = "Everything else is read-only" if has_incoming else "All of it is read-only"
    usage = (_MOUNT if is_mount else _SERVER).format(first=first, importing=importing, rest=rest)
    kind = "mount" if is_mount else "server"
    return f"""This is bentofs: the BentoML model store {printable(location)} as files to copy.

models/NAME/VERSION/    one model in every format: {", ".join(f".{name}" for name in formats)};
                        files/ is the model as a directory; SHA256SUMS is for `sha256sum -c`
models/NAME/latest      a link to the latest version; latest.{first} and so on to its archives
by-format/FORMAT/       the same archives, one format a directory; by-format/folder is laid out as a store
{labels}{incoming}.bentofs/               status.json, metrics (for Prometheus) and log of this {kind}; not listed

The archives are made while they are read. Their sizes are exact, and nothing is kept on disk.

{usage}"""
