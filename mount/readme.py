"""The text of README.txt at the top of a mount."""

from __future__ import annotations

from collections.abc import Sequence

from store.text import printable


def readme(location: str, formats: Sequence[str]) -> str:
    """For a store at `location`, shown in these formats."""
    first = formats[0] if formats else "folder"
    return f"""This is bentofs: the BentoML model store {printable(location)} as files to copy.

models/NAME/VERSION/    one model in every format: {", ".join(f".{name}" for name in formats)};
                        files/ is the model as a folder; SHA256SUMS is for `sha256sum -c`
models/NAME/latest      a link to the latest version; latest.{first} and so on to its archives
by-format/FORMAT/       the same archives, one format a folder; by-format/folder is laid out as a store

The archives are made while they are read. Their sizes are exact, and nothing is kept on disk.

Copy a model to a memory stick:     cp models/NAME/latest.{first} /media/stick/
Copy all models to another machine: rsync -a by-format/{first}/ host:backup/
Import one there:                   bentoml models import NAME-VERSION.{first}

All of it is read-only: models are made, imported and deleted with BentoML.
To unmount: bentofs unmount MOUNTPOINT
"""
