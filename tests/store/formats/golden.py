"""One fixed model, and the SHA-256 of its archive in every format. Other Pythons run this file as a script."""

import glob
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

if __name__ == "__main__":
    root = os.path.abspath(f"{__file__}/../../../..")
    sys.path[:0] = [root, f"{root}/.src"]

from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.registry import FORMATS
from tests.store.content import Memory, whole

MTIME = 1_767_323_045
LAYOUT_VERSION = 3  # of the bytes with these SHA-256s
SHA256 = {
    "bentomodel": "75e04b2562fff7a605bba68fe0020899350d4ff135c6e17e6a5c2d1a122596ad",
    "tar": "c4354df5d4ad4cd86b19549ad1db32a36ab6ab022cc23abb5cc440a63d7823d5",
    "tar.gz": "7632e551c765308970e41bf7745c8bb82836cf1cbf4a247dbb0789d261adcc91",
    "tar.xz": "75e04b2562fff7a605bba68fe0020899350d4ff135c6e17e6a5c2d1a122596ad",
    "zip": "10889505c09d2f3642c9d265cd87d672527b75a06128ed1aeb476a36e05f8d18",
}


def members() -> list[Member]:
    """Return members with names of all kinds, sizes around every cheap boundary, and more than one block of each
    format."""
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
        "c:like a drive": b"d",
        "x" * 100: b"100",
        "y" * 101: b"101",
        b"undecodable \xff\xfe and long enough".decode("utf-8", "surrogateescape"): b"u",
    }
    folders = ["a folder", "a folder/with", "nested", "nested/and", "nested/and/empty", "weights"]
    found = [Member(path, False, path == "run.sh", Memory(data) if data else None) for path, data in files.items()]
    found += [Member(path, True, True, None) for path in folders]
    return sorted(found, key=lambda member: (member.path != "model.yaml", os.fsencode(member.path)))


def digests() -> dict[str, str]:
    """Return the SHA-256s of the uncompressed formats."""
    stored = {name: kind.lay_out for name, kind in FORMATS.items() if kind.lay_out}
    return {name: hashlib.sha256(whole(lay_out(members(), MTIME))).hexdigest() for name, lay_out in stored.items()}


def digests_under(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Do what `digests` does, in another process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    script = os.path.abspath(__file__)
    done = subprocess.run(
        [*command, script], env={**kept, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def other_pythons() -> list[tuple[tuple[int, int], str]]:
    """List the Pythons on this machine, 3.10 or newer: one of each version, without the one that runs the tests."""
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
