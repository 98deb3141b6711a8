"""One fixed model, and the SHA-256 of its archive in every format. Also run as a script, by other Pythons."""

import glob
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(f"{__file__}/../../../.."))

from store.archive.formats import FORMATS
from store.archive.members import Member
from tests.store.content import Memory, whole

MTIME = 1_767_323_045
LAYOUT_VERSION = 2  # of the bytes that give these SHA-256s
SHA256 = {
    "bentomodel": "d4b0f67c7501a87980e13986d7d85b940f28018ca9da1a15c4d84f1812a7deee",
    "tar": "90f789386576636e86282c86840c4799f26e4370acbb628c4622c5faf4376547",
    "tar.gz": "541ae0e2fb1bfdbc92b6e12222a36eb56697b3a6860e07a168d710d67df4a569",
    "tar.xz": "d4b0f67c7501a87980e13986d7d85b940f28018ca9da1a15c4d84f1812a7deee",
    "zip": "f240360885f9ab645ab04c7f7190b7a7553bac117546794188fd55ba1b7ac673",
}


def members() -> list[Member]:
    """Names of all kinds, sizes around every boundary that is cheap, more than one block of each format."""
    weights = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(140_000))  # 4.5 MB
    files: dict[str, bytes] = {
        "model.yaml": b"name: golden\nversion: v1\n",
        "a folder/with/'quotes' and \"more\".txt": b"x" * 511,
        "a folder/new\nline": b"y" * 512,
        "empty": b"",
        "run.sh": b"#!/bin/sh\n",
        "weights/layer.bin": weights,
        "weights/модель-模型-🧠.bin": b"z" * 65_533,
        f"weights/{'long' * 40}": b"l",
        "x" * 100: b"100",
        "y" * 101: b"101",
        b"undecodable \xff\xfe and long enough".decode("utf-8", "surrogateescape"): b"u",
    }
    folders = ["a folder", "a folder/with", "nested", "nested/and", "nested/and/empty", "weights"]
    found = [Member(path, False, path == "run.sh", Memory(data) if data else None) for path, data in files.items()]
    found += [Member(path, True, True, None) for path in folders]
    return sorted(found, key=lambda member: (member.path != "model.yaml", member.archive_path))


def digests() -> dict[str, str]:
    """Of what is not compressed."""
    stored = {name: kind.lay_out for name, kind in FORMATS.items() if kind.lay_out}
    return {name: hashlib.sha256(whole(lay_out(members(), MTIME))).hexdigest() for name, lay_out in stored.items()}


def digests_under(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The same, computed by another process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    script = os.path.abspath(__file__)
    done = subprocess.run(
        [*command, script], env={**kept, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def other_pythons() -> list[tuple[tuple[int, int], str]]:
    """Pythons on this machine, 3.10 or newer, one of each version besides the one that runs the tests."""
    found: dict[tuple[int, int], str] = {}
    for minor in range(10, 20):
        version = (3, minor)
        if version == sys.version_info[:2]:
            continue
        on_path = [os.path.join(folder, f"python3.{minor}") for folder in os.get_exec_path()]
        by_pyenv = glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python3.{minor}"))
        for path in [*by_pyenv, *on_path]:
            if os.access(path, os.X_OK) and "/shims/" not in path:
                found.setdefault(version, path)
    return list(found.items())


if __name__ == "__main__":
    print(json.dumps(digests()))
