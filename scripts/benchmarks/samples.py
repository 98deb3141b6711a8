"""The models that are measured, written in the layout of BentoML's store: NAME/VERSION/model.yaml and files."""

import glob
import json
import os
import random
import statistics
import struct
from collections.abc import Iterable

from .commands import run

MIB = 1 << 20
CREATED = "2026-01-02T03:04:05.678901+00:00"
VERSION = "v1"
MODEL_YAML = """\
name: {name}
version: {version}
module: ''
labels: {{}}
options: {{}}
metadata: {{}}
context:
  framework_name: ''
  framework_versions: {{}}
  bentoml_version: 1.4.39
  python_version: 3.11.7
signatures: {{}}
api_version: v1
creation_time: '{created}'
"""


def begin(store: str, name: str) -> str:
    """Make a model's folder with its model.yaml. Return the folder."""
    folder = os.path.join(store, name, VERSION)
    os.makedirs(folder)
    with open(os.path.join(folder, "model.yaml"), "w") as file:
        file.write(MODEL_YAML.format(name=name, version=VERSION, created=CREATED))
    return folder


def finish(store: str, name: str) -> None:
    """Do BentoML's last step: set the version folder's times (the mark of a complete model) and write `latest`."""
    os.utime(os.path.join(store, name, VERSION), (1_700_000_000, 1_700_000_000))
    with open(os.path.join(store, name, "latest"), "w") as file:
        file.write(VERSION)


def _write(path: str, parts: Iterable[bytes]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.writelines(parts)


def incompressible(store: str, name: str, size: int, members: int) -> None:
    """Write random bytes in `members` files (model.yaml is one of them) of uneven sizes, in folders of 20."""
    folder = begin(store, name)
    dice = random.Random(members)
    weights = [dice.uniform(0.2, 1.8) for _ in range(members - 1)]
    for number, weight in enumerate(weights):
        length = int(size * weight / sum(weights))
        parts = (os.urandom(min(4 * MIB, length - at)) for at in range(0, length, 4 * MIB))
        _write(os.path.join(folder, f"layers-{number // 20:02d}", f"weights-{number:03d}.bin"), parts)
    finish(store, name)


def float_weights(store: str, name: str, size: int, members: int) -> None:
    """Write data like trained f32 weights: random mantissas, signs and exponents spread as in N(0, 0.02)."""
    folder = begin(store, name)
    spread = statistics.NormalDist(0, 0.02)
    top_bytes = bytes(struct.pack("<f", spread.inv_cdf((i + 0.5) / 256))[3] for i in range(256))

    def weights(length: int) -> bytes:
        block = bytearray(os.urandom(length))
        block[3::4] = os.urandom(len(block[3::4])).translate(top_bytes)
        return bytes(block)

    length = size // members // 4 * 4
    for number in range(members):
        parts = (weights(min(4 * MIB, length - at)) for at in range(0, length, 4 * MIB))
        _write(os.path.join(folder, f"weights-{number}.bin"), parts)
    finish(store, name)


# Runs in BentoML's environment, which has scikit-learn.
_FOREST = """
import pickle, sys
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
features, classes = make_classification(20000, 20, n_informative=10, n_classes=4, random_state=1)
forest = RandomForestClassifier(int(sys.argv[2]), random_state=1, n_jobs=-1).fit(features, classes)
with open(sys.argv[1], "wb") as file:
    pickle.dump(forest, file, protocol=5)
"""
_TREE = 620_000  # bytes, about


def forest(store: str, name: str, size: int, python: str) -> None:
    """Write a random forest of scikit-learn, fitted and pickled."""
    folder = begin(store, name)
    run([python, "-c", _FOREST, os.path.join(folder, "model.pkl"), str(max(1, size // _TREE))], 1800)
    finish(store, name)


def text(store: str, name: str, size: int) -> None:
    """Write JSON and text: Python's own library as a corpus, a vocabulary and a table made from it, and 200 small
    files."""
    folder = begin(store, name)
    paths = sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), "**", "*.py"), recursive=True))
    sources = [content for path in paths if (content := _content(path))]
    corpus = b"\n".join(sources)
    dice = random.Random(1)
    words = sorted(set(corpus.decode(errors="replace").split()))[:100_000]
    rows = size // 3 // 45
    table = json.dumps([[dice.choice(words), round(dice.gauss(0, 1), 6), dice.randrange(10**6)] for _ in range(rows)])
    _write(os.path.join(folder, "vocabulary.json"), [json.dumps({word: at for at, word in enumerate(words)}).encode()])
    _write(os.path.join(folder, "table.json"), [table.encode()])
    for number, source in enumerate(sources[:200]):
        _write(os.path.join(folder, "sources", f"{number:03d}.txt"), [source])
    left = size - len(table)
    _write(os.path.join(folder, "corpus.txt"), ((corpus * (left // len(corpus) + 1))[:left],))
    finish(store, name)


def json_files(store: str, name: str, count: int, size: int) -> None:
    """Write `count` files of JSON lines, of `size` bytes each, in folders of 1,000."""
    folder = begin(store, name)
    dice = random.Random(1)
    words = [dice.randbytes(dice.randrange(2, 6)).hex() for _ in range(3000)]
    lines = []
    for _ in range(20_000):
        line = {"id": dice.randrange(10**6), "word": dice.choice(words), "score": round(dice.gauss(0, 1), 6)}
        lines.append(json.dumps({**line, "tags": [dice.choice(words) for _ in range(3)]}))
    table = "\n".join(lines).encode()
    for number in range(count):
        start = dice.randrange(len(table) - size)
        _write(os.path.join(folder, f"part-{number // 1000:03d}", f"{number:06d}.json"), [table[start : start + size]])
    finish(store, name)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def sparse(store: str, name: str, size: int, members: int) -> None:
    """Write files that are all hole: any size, no disk."""
    folder = begin(store, name)
    for number in range(members):
        with open(os.path.join(folder, f"weights-{number}.bin"), "wb") as file:
            file.truncate(size // members)
    finish(store, name)


def archive_path(top: str, name: str, suffix: str) -> str:
    """Return the path of a model's archive in a mount."""
    return os.path.join(top, "models", name, VERSION, f"{name}-{VERSION}.{suffix}")
