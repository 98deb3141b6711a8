"""Runs inside a judge's own environment, where BentoML is installed and this project is not: `judge.py COMMAND ...`.

serve             reads commands from standard input and runs each in a fork (see tests/interop/judge_server.py)

save FOLDER       makes the models under test in $BENTOML_HOME, by BentoML itself
export TAG PATH [FORMAT]  exports a model
export-each TAG [PATH=FORMAT]...  exports a model to each path
import ITEM...    imports each `path` or `path::format` with BentoML's default arguments
imported ITEM...  the same, and describes all models
imported-each FOLDER ITEM...  imports the items FORM=ITEM form by form, describes the models of each, and moves the
                  store to FOLDER/FORM; before all, does the same with the store's present models, to FOLDER/original
describe [TAG]... prints, as JSON, BentoML's data of every model in $BENTOML_HOME, or of those it gets by these tags
read FILE         prints, as JSON, BentoML's reading of each model.yaml in a JSON list of texts; null where it fails
find TEXT...      prints, as JSON, the tag of the model that BentoML gets by each text, or the name of its exception
slow-save TAG     saves a model so slowly that others can look at it half-way
delete TAG        deletes a model
script TEXT ARGUMENT...   runs a script
"""

import datetime
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import bentoml

# Everything that `metadata` may hold (bentoml._internal.utils.validate_metadata) and that BentoML can save. The
# validator also lets complex, time and timedelta through, but then the YAML writer raises RepresenterError, in both
# releases.
METADATA = {
    "str": 'as it is: ümläut, "quotes", \x1b[31m, # no comment',
    "lines": "one\ntwo\n",
    "bytes": b"\x00\xff raw",
    "bool": True,
    "int": -(2**70),
    "float": 1.5e-9,
    "infinite": float("inf"),
    "datetime": datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc),
    "date": datetime.date(2024, 2, 29),
    "list": [1, "a", [2.5, {"deep": True}]],
    "tuple": (1, "b"),
    "dict": {"a": {"b": {"c": []}}, 7: "an int as key", 0.5: "a float as key"},
}
LABELS = {"team": "nlp", "stage": "dev", "owner": "Zoë"}
CUSTOM_OBJECTS = {"vocabulary": ["a", "ß", "語"], "limits": {"low": -1, "high": 1.25}, "codes": (1, 2)}
SIGNATURES = {"predict": {"batchable": True, "batch_dim": (0, 1)}, "explain": {"batchable": False}}
FILES = {
    "weights.bin": bytes(range(256)) * 5000,
    "empty.bin": b"",
    "exactly-64k.bin": b"x" * 65536,
    "nested/deeper/and deeper/leaf.txt": b"leaf",
    "names/Ünïcödé 模型.txt": "grüße".encode(),
    'names/it\'s "quoted".txt': b"quotes",
    "names/.hidden": b"dot",
    "names/" + "long-" * 40 + ".txt": b"more than a tar header's 100 characters",
    "nested/" + "d" * 90 + "/" + "e" * 90 + "/f.txt": b"a path longer than ustar's name and prefix",
}


def write(model: Any, path: str, content: bytes) -> None:
    full = model.path_of(path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(content)


def save() -> None:
    context = bentoml.models.ModelContext(framework_name="custom", framework_versions={"custom": "3.2.1"})
    with bentoml.models.create(
        "rich:v1.0-rc.1",
        labels=dict(LABELS),
        metadata=dict(METADATA),
        custom_objects=CUSTOM_OBJECTS,
        signatures=SIGNATURES,
        context=context,
    ) as model:
        for path, content in FILES.items():
            write(model, path, content)
        os.makedirs(model.path_of("an empty folder/within"))
    with bentoml.models.create("bare") as model:  # nothing but model.yaml, and a version that BentoML makes up
        pass
    # A framework's own save_model. This one needs nothing installed. A name that ends like an archive is legal.
    bentoml.picklable_model.save_model("pickled.tar.gz:v1.zip", {"weights": [0.5, 0.25]}, labels=dict(LABELS))


def import_all(items: Sequence[str]) -> None:
    for item in items:
        path, _, form = item.partition("::")
        bentoml.models.import_model(path, *([form] if form else []))


def imported(items: Sequence[str]) -> None:
    import_all(items)
    describe(())


def export_each(tag: str, items: Sequence[str]) -> None:
    for item in items:
        path, _, form = item.rpartition("=")
        bentoml.models.export_model(tag, path, form)


def imported_each(folder: str, items: Sequence[str]) -> None:
    described = {}
    store = os.path.join(os.environ["BENTOML_HOME"], "models")
    groups: dict[str, list[str]] = {"original": []}
    for item in items:
        form, _, item = item.partition("=")
        groups.setdefault(form, []).append(item)
    for form, group in groups.items():
        import_all(group)
        described[form] = described_models(())
        os.rename(store, os.path.join(folder, form))
        os.mkdir(store)
    json.dump(described, sys.stdout)


def describe(tags: Sequence[str]) -> None:
    json.dump(described_models(tags), sys.stdout)


def described_models(tags: Sequence[str]) -> dict[str, dict[str, Any]]:
    models = {}
    for model in map(bentoml.models.get, tags) if tags else bentoml.models.list():
        info = model.info
        models[str(model.tag)] = {
            "path": model.path,
            "creation_time": model.creation_time.isoformat(),
            "module": info.module,
            "labels": info.labels,
            "metadata": repr(info.metadata),
            "custom_objects": repr(model.custom_objects),
            "signatures": repr(info.signatures),
            "context": repr(info.context),
        }
    return models


def read(path: str) -> None:
    from bentoml._internal.models.model import ModelInfo

    found: list[list[Any] | None] = []
    with open(path, encoding="utf-8") as file:
        texts = json.load(file)
    for text in texts:
        try:
            info = ModelInfo.from_yaml_file(io.StringIO(text))
            found.append([str(info.tag), info.module, info.labels, info.creation_time.isoformat()])
        except Exception:
            found.append(None)
    json.dump(found, sys.stdout)


def find(texts: Sequence[str]) -> None:
    found = []
    for text in texts:
        try:
            found.append(str(bentoml.models.get(text).tag))
        except Exception as error:
            found.append(type(error).__name__)
    json.dump(found, sys.stdout)


def script(text: str, arguments: Sequence[str]) -> None:
    sys.argv = ["-c", *arguments]
    exec(text, {"__name__": "__main__"})


def slow_save(tag: str) -> None:
    """Wait before each file that BentoML opens for writing in the store, once model.yaml is there."""
    from_store = os.path.join(os.path.realpath(os.environ["BENTOML_HOME"]), "models", *tag.split(":"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], (str, bytes)):
            return
        path, mode, flags = os.path.realpath(os.fsdecode(arguments[0])), arguments[1] or "", arguments[2]
        written = path.startswith(from_store + os.sep) and ("w" in mode or flags & (os.O_WRONLY | os.O_RDWR))
        if written and os.path.basename(path) != "model.yaml" and os.path.exists(from_store + "/model.yaml"):
            time.sleep(0.2)  # a slow save

    with bentoml.models.create(tag) as model:
        fill_so_that_model_yaml_is_copied_early(model)
        sys.addaudithook(hook)


def fill_so_that_model_yaml_is_copied_early(model: Any) -> None:
    """Fill a model so that its model.yaml is copied early. BentoML copies in the order of the folder's listing. That
    order depends on the names and the file system. Else the save might be nearly over when model.yaml appears."""
    for prefix in ("folder", "layer", "block", "part", "shard"):
        for number in range(20):
            write(model, f"{prefix}-{number}/weights.bin", bytes([number]) * 100_000)
        write(model, "model.yaml", b"BentoML writes the real one in its place")
        if os.listdir(model.path_of("/")).index("model.yaml") < 10:
            return
        for entry in os.listdir(model.path_of("/")):
            full = model.path_of(entry)
            shutil.rmtree(full) if os.path.isdir(full) else os.remove(full)
    raise AssertionError("no order in which model.yaml comes early")


COMMANDS: dict[str, Callable[..., object]] = {
    "save": save,
    "export": lambda tag, path, *form: print(bentoml.models.export_model(tag, path, *form)),
    "export-each": lambda tag, *items: export_each(tag, items),
    "import": lambda *items: import_all(items),
    "imported": lambda *items: imported(items),
    "imported-each": lambda folder, *items: imported_each(folder, items),
    "describe": lambda *tags: describe(tags),
    "read": read,
    "find": lambda *texts: find(texts),
    "slow-save": slow_save,
    "script": lambda text, *arguments: script(text, arguments),
    "delete": lambda tag: bentoml.models.delete(tag),
    "quick-save": lambda tag: bentoml.picklable_model.save_model(tag, {"weights": [1]}),
}


def arguments_of_fork() -> list[str]:
    """Fork for each command that comes. Return its arguments in the fork, and never in this process."""
    importlib.import_module("bentoml.models")  # BentoML loads it at its first use
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            tempfile.tempdir = None  # made anew from TMPDIR
            for number, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(file, number)
                os.close(file)
            return list(request["arguments"])
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


if __name__ == "__main__":
    command, *arguments = arguments_of_fork() if sys.argv[1:] == ["serve"] else sys.argv[1:]
    COMMANDS[command](*arguments)
