"""Make a model store with two real models in it, for users who have none yet: `sample_store.py FOLDER`.

The store is written like BentoML writes one (the same keys in the same order, `latest`, the mark of a finished save)
but without BentoML. The models need nothing but Python: one tells the three species of Fisher's irises apart, the other
says which language a sentence is in. Both are the same, byte for byte, wherever and whenever they are made.
"""

import json
import math
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The coefficients of a multinomial logistic regression, fitted by scikit-learn 1.x to Fisher's 150 irises (public
# domain); right for 146 of them.
_IRIS_FEATURES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
_IRIS_SPECIES = ["setosa", "versicolor", "virginica"]
_IRIS_WEIGHTS = [
    [-0.4202, 0.9669, -2.5189, -1.0846],
    [0.5319, -0.3153, -0.2041, -0.9428],
    [-0.1116, -0.6517, 2.723, 2.0274],
]
_IRIS_BIAS = [9.8417, 2.2245, -12.0662]

_IRIS_PREDICT = '''\
"""Says which iris it is: predict.py SEPAL_LENGTH SEPAL_WIDTH PETAL_LENGTH PETAL_WIDTH (in cm)."""

import json
import pathlib
import struct
import sys

here = pathlib.Path(__file__).parent
species = json.loads((here / "config.json").read_text())["species"]
rows = list(struct.iter_unpack("<5f", (here / "weights" / "linear.f32").read_bytes()))
measured = [float(word) for word in sys.argv[1:]]
scores = [sum(w * x for w, x in zip(row, measured)) + row[4] for row in rows]
print(species[scores.index(max(scores))])
'''

# Articles 1, 3 and 4 of the Universal Declaration of Human Rights, by the United Nations.
_ARTICLES = {
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen. Jeder hat das Recht auf Leben, Freiheit und Sicherheit "
    "der Person. Niemand darf in Sklaverei oder Leibeigenschaft gehalten werden.",
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood. Everyone has the right to life, liberty and the "
    "security of person. No one shall be held in slavery or servitude.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros. Todo individuo tiene derecho a la vida, a la "
    "libertad y a la seguridad de su persona. Nadie estará sometido a esclavitud ni a servidumbre.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité. Tout individu a droit à la "
    "vie, à la liberté et à la sûreté de sa personne. Nul ne sera tenu en esclavage ni en servitude.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza. Ogni individuo ha diritto alla vita, "
    "alla libertà ed alla sicurezza della propria persona. Nessun individuo potrà essere tenuto in stato di schiavitù.",
}

_LANGUAGE_PREDICT = '''\
"""Says which language a sentence is in: predict.py SENTENCE."""

import pathlib
import struct
import sys

here = pathlib.Path(__file__).parent
trigrams = {line: row for row, line in enumerate((here / "vocab.txt").read_text("utf-8").split("\\n"))}
text = " " + " ".join(sys.argv[1:]).lower() + " "
scores = {}
for profile in sorted((here / "languages").glob("*.f32")):
    weights = [value for (value,) in struct.iter_unpack("<f", profile.read_bytes())]
    rows = (trigrams.get(text[at : at + 3]) for at in range(len(text) - 2))
    scores[profile.stem] = sum(weights[row] for row in rows if row is not None)
print(max(scores, key=scores.get))
'''


def model_yaml(
    tag: str,
    creation_time: str,
    module: str = "",
    labels: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    signatures: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of a model.yaml in BentoML's form."""
    name, version = tag.split(":")
    info = {
        "name": name,
        "version": version,
        "module": module,
        "labels": dict(labels or {}),
        "options": {},
        "metadata": dict(metadata or {}),
        "context": {
            "framework_name": "",
            "framework_versions": {},
            "bentoml_version": "1.4.39",
            "python_version": "3.11.2",
        },
        "signatures": dict(signatures or {}),
        "api_version": "v1",
        "creation_time": creation_time,
    }
    return yaml.dump(info, Dumper=_Dumper, sort_keys=False)


# The files of a model: content, or a size. A name that is no text is bytes.
Files = Mapping[str | bytes, bytes | int] | Mapping[str, bytes] | Mapping[str, bytes | int] | Mapping[bytes, bytes]


def write_model(
    store: Path,
    tag: str,
    files: Files,
    *,
    creation_time: str,
    module: str = "",
    labels: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    signatures: Mapping[str, Any] | None = None,
    complete: bool = True,
    latest: bool | None = None,
) -> Path:
    """Write one model in the steps of BentoML >= 1.4.20, which makes the final folder first and fills it in place.

    `files` maps a path to its bytes, or to the size of a sparse file. A path ending in a slash is an empty folder.
    """
    # BentoML copies a temporary folder. Each file, and at last the folder, gets the times of its source. A folder whose
    # mtime differs from its ctime is a finished one. They must differ however coarse the clock is.
    written = time.time_ns() - 1_000_000_000
    name, version = tag.split(":")
    folder = store / name / version
    folder.mkdir(parents=True)
    text = model_yaml(tag, creation_time, module, labels, metadata, signatures)
    for path, content in (("model.yaml", text.encode()), *files.items()):
        _write_file(os.path.join(os.fsencode(folder), os.fsencode(path)), content, written)
    if complete:
        os.utime(folder, ns=(written, written))
        folder.chmod(0o700)
    if complete if latest is None else latest:
        _point_latest(store / name, version, creation_time, always=bool(latest))
    return folder


def _write_file(path: bytes, content: bytes | int, written: int) -> None:
    if path.endswith(b"/"):
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        if isinstance(content, int):
            file.truncate(content)
        else:
            file.write(content)
    os.utime(path, ns=(written, written))


def _point_latest(name_folder: Path, version: str, creation_time: str, *, always: bool) -> None:
    """Write `latest` by BentoML's rule: if there is none, or if this model is not older than the one it names."""
    pointer = name_folder / "latest"
    if pointer.is_dir():  # a version has that name: BentoML cannot write its pointer either
        return
    if not always and pointer.exists():
        current = name_folder / pointer.read_text().strip() / "model.yaml"
        if current.exists():
            info = yaml.load(current.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - it is a safe loader
            if datetime.fromisoformat(creation_time) < datetime.fromisoformat(info["creation_time"]):
                return
    pointer.write_text(version)


def _iris_files() -> dict[str | bytes, bytes | int]:
    config = {"kind": "multinomial logistic regression", "features": _IRIS_FEATURES, "species": _IRIS_SPECIES}
    rows = [struct.pack("<5f", *weights, bias) for weights, bias in zip(_IRIS_WEIGHTS, _IRIS_BIAS, strict=True)]
    return {
        "config.json": json.dumps(config, indent=2).encode() + b"\n",
        "predict.py": _IRIS_PREDICT.encode(),
        "weights/linear.f32": b"".join(rows),
    }


def _language_files() -> dict[str | bytes, bytes | int]:
    """Return the log-probabilities of the trigrams of one text in each language, with one added to every count."""
    counts = {}
    for language, articles in _ARTICLES.items():
        text = f" {articles.lower()} "
        counts[language] = Counter(text[at : at + 3] for at in range(len(text) - 2))
    vocabulary = sorted(set().union(*counts.values()))
    files: dict[str | bytes, bytes | int] = {
        "predict.py": _LANGUAGE_PREDICT.encode(),
        "vocab.txt": "\n".join(vocabulary).encode(),
    }
    for language, seen in counts.items():
        total = seen.total() + len(vocabulary)
        weights = [math.log((seen[trigram] + 1) / total) for trigram in vocabulary]
        files[f"languages/{language}.f32"] = struct.pack(f"<{len(weights)}f", *weights)
    return files


def make_sample_store(store: Path) -> None:
    samples: list[tuple[str, dict[str | bytes, bytes | int], dict[str, str], dict[str, Any]]] = [
        ("iris-species:v1", _iris_files(), {"task": "classification"}, {"right_of_150": 146}),
        ("language-id:v1", _language_files(), {"task": "text"}, {"languages": sorted(_ARTICLES)}),
    ]
    made = datetime(2026, 1, 1, 12, tzinfo=timezone.utc).isoformat(timespec="microseconds")
    for tag, files, labels, metadata in samples:
        if not (store / tag.replace(":", "/")).exists():
            signatures = {"predict": {"batchable": False}}
            write_model(store, tag, files, creation_time=made, labels=labels, metadata=metadata, signatures=signatures)


if __name__ == "__main__":
    make_sample_store(Path(sys.argv[1]))
