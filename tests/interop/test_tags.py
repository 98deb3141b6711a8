"""A tag on the command line means the model that `bentoml.models.get` gets by it."""

import json
from pathlib import Path

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import BadTagError, NotFoundError
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model
from tests.interop.conftest import Judge

_TEXTS = [
    *("demo:yovk2", "demo:yovk2mtn2w3y4z5a", "demo:ya", "demo:y", "demo:nope", "demo:", "demo:yaw7.", "demo:-"),
    *("Demo:YoVK", "DEMO", "demo", "demo:latest", "Demo:Latest", "no-such", "no-such:v1"),
    *("near:v1", "near:v", "near:v10", "near:v1.", "near:v2"),
]
_OURS = {"NotFound": "NotFoundError", "BentoMLException": "BadTagError", "ValueError": "BadTagError"}


def test_texts_find_the_same_models(release: Judge, tmp_path: Path) -> None:
    store = tmp_path / "bentoml" / "models"
    for tag in ("demo:yovk2mtn2w3y4z5a", "demo:yaw7.1", "demo:yaw7.2", "near:v1", "near:v10", "near:v11"):
        make_model(store, tag)
    theirs = json.loads(release.run(tmp_path, "find", *_TEXTS))
    assert {"NotFound", "BentoMLException", "near:v1", "demo:yovk2mtn2w3y4z5a"} <= set(theirs)
    models = ModelStore(LocalStorage(str(store)))
    for text, found in zip(_TEXTS, theirs, strict=True):
        assert _found(models, text) == _OURS.get(found, found), text


def _found(models: ModelStore, text: str) -> str:
    try:
        return str(models.model(models.find(text)).tag)
    except (BadTagError, NotFoundError) as error:
        return type(error).__name__
