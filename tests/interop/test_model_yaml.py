"""`model.yaml` as BentoML reads it: a file that BentoML reads is imported and shown the same, one that fails is not
imported.

One model that BentoML cannot read makes `bentoml models list` fail for the whole store.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentofs.store.errors import BadModelError
from bentofs.store.model.bentoml_fields import refuse_what_bentoml_cannot_read
from bentofs.store.model.model import ModelInfo
from tests.harness import Mounted, make_model, run
from tests.interop.conftest import Judge
from tests.interop.uploads import execute

_FIELDS = {
    "name": "demo",
    "version": "v1",
    "module": "x",
    "labels": "{}",
    "options": "{}",
    "metadata": "{}",
    "context": "{framework_name: '', framework_versions: {}, bentoml_version: 1.4.40, python_version: 3.11.7}",
    "signatures": "{}",
    "api_version": "v1",
    "creation_time": "'2026-01-01T12:00:00+00:00'",
}
# Values of a field, each in the place of the one above.
_VALUES: dict[str, list[str]] = {
    "name": ["text", "1", "1.5", "true", "[a]", "{a: b}"],
    "version": ["1.10", "10", "0x10", "010", "1_0", "1:30", "true", "2026-01-02", "'10'", "1e3", "0.1.0", "[]"],
    "labels": [
        "{e: null}",
        "{d: 2026-01-02, t: 2026-01-02 03:04:05}",
        "{l: [a, 1, null]}",
        "{m: {a: {b: [c]}}}",
        "{1: x, 1.50: y, null: z, true: w, 2026-01-01: v}",
        "{a: true, b: 1.10, c: 010, d: 1e3, e: .inf, f: !!binary aGk=, g: !!set {x}, h: 0o7, i: 1:30}",
        '{a: "\\udce9", b: "\\\\udce9", c: \'\\udce9\', d: \\udce9, e: "\\ud83d\\ude00", "\\udc80": f}',
        '{a: "\\udce9 \U000fd800 \U0010dfff", "\\uDFFF": "\\U000Ed800 \\U0010d800"}',
        "{a: &a [x, y], b: *a}",
        "{[a]: b}",
        "{a: 0x" + "f" * 4000 + "}",
        "!!set {a}",
        "!!omap [a: b]",
        "[a]",
        "{a:\tb}",
    ],
    "metadata": [
        "{a: null}",
        "{a: [1, [null]]}",
        "{a: !!set {x}}",
        "{null: 1}",
        "{a: {2020-01-01: 1}}",
        "{1: 2, 1.5: 3, true: 4}",
        "{a: !!binary aGk=, b: 12:30:45, c: 2020-01-01, d: .nan}",
        '{path: "\\udce9"}',
        "{a: \ufeffx}",
        '{a: "x\x85y"}',
        "{a: \x7f}",
        "{a: &a [1, 2], b: *a, c: {d: *a}}",
        "&a {b: *a}",
        "{<<: {a: 1}, b: 2}",
        "{a: !!python/name:os.system ''}",
        "{a: !unknown 1}",
        "{a: 2026-13-45}",
        "{a: " + "1" * 4300 + "}",
        "{a: " + "1" * 4301 + "}",
        "{a: 0x" + "f" * 50_000 + "}",
        "{a: 1" + ":10" * 3000 + "}",
        "{a: 1" + ":10" * 300 + ".5}",
        "{a: " + "[" * 150 + "]" * 150 + "}",
        "{a: " + "[" * 1000 + "]" * 1000 + "}",
        "[a]",
    ],
    "context": [
        "{}",
        "{framework_name: a}",
        "{framework_name: a, framework_versions: null}",
        "{framework_name: [a], framework_versions: {a: 1}}",
        "{framework_name: a, pip_dependencies: [x]}",
    ],
    "signatures": [
        "{a: {batchable: true, batch_dim: [0, 1]}, b: text, c: []}",
        "{a: {batchable: 1, batch_dim: 3}}",
        "{a: {batch_dim: [0, x]}}",
        "{a: null}",
        "{1: {x: y}}",
    ],
    "creation_time": [
        "2026-01-01",
        "2026-01-01 12:00:00+02:00",
        "2026-01-01T12:00:00Z",
        "'2026-01-01T12:00:00.5+05:30'",
        "'0001-01-01T00:00:00+14:00'",
        "1767268800",
        "soon",
        "'12:00'",
    ],
}
_WHOLE = {
    "two documents": "{}---\na: 1\n",
    "a field given twice": "{}name: other\n",
    "a field that nobody knows": "{}extra: [1, 2]\n",
    "a merge": "base: &base {{labels: {{a: b}}}}\n<<: *base\n{}",
    "YAML 1.2": "%YAML 1.2\n---\n{}",
    "YAML 2": "%YAML 2.0\n---\n{}",
    "a tab": "labels:\t{{}}\n{}",
    "labels that stand elsewhere": "spare: &labels {{a: [b]}}\n{}labels: *labels\n",
}
# Files that BentoML reads, but which are refused: no tag of its own, or a time that it cannot sort by.
_REFUSED = {
    "version: null": "reads as nothing",
    "version: V1": "is not a tag",
    "creation_time: '2026-01-01'": "is a date, .*, and no time: write creation_time: '2026-01-01T00:00:00[+]00:00'",
    "creation_time: '2026-01-01T12:00:00'": "names no time zone.*write creation_time: '2026-01-01T12:00:00[+]00:00'",
    "creation_time: 2026-01-01 12:00:00": "names no time zone.*write creation_time: '2026-01-01T12:00:00[+]00:00'",
}


def _text(**values: str | None) -> str:
    fields = {**_FIELDS, **values}
    return "".join(f"{field}: {value}\n" for field, value in fields.items() if value is not None)


def _texts() -> list[str]:
    texts = [_text(), *(_text(**{field: None}) for field in _FIELDS)]
    for field in _FIELDS:
        texts += [_text(**{field: value}) for value in _VALUES.get(field, [])]
        if field not in ("name", "version"):
            texts += [_text(**{field: value}) for value in ("null", "[]", "1", "text")]
    return [*texts, *(form.format(_text()) for form in _WHOLE.values())]


def _read(text: str) -> list[object] | None:
    content = text.encode()
    try:
        info = ModelInfo.learn(content)
        refuse_what_bentoml_cannot_read(info.tag, content)
    except BadModelError:
        return None
    # JSON, since the judge answers in JSON.
    read = [str(info.tag), info.module, info.labels, info.creation_time.isoformat()]
    return json.loads(json.dumps(read))  # type: ignore[no-any-return]


def test_what_bentoml_reads_is_read_alike_and_nothing_else(release: Judge, tmp_path: Path) -> None:
    texts = _texts()
    (tmp_path / "texts.json").write_text(json.dumps([*texts, *(_text(**_field(line)) for line in _REFUSED)]))
    theirs = json.loads(release.run(tmp_path, "read", str(tmp_path / "texts.json")))
    assert None not in theirs[len(texts) :], "else it would not be stricter than BentoML"
    for text, read in zip(texts, theirs, strict=False):
        if read is not None:
            read[3] = ModelInfo.learn(_text(creation_time=f"'{read[3]}'").encode()).creation_time.isoformat()  # in UTC
        assert _read(text) == read, text[:2000]


def _field(line: str) -> dict[str, str | None]:
    field, _, value = line.partition(": ")
    return {field: value}


@pytest.mark.parametrize("line", _REFUSED)
def test_what_is_refused_though_bentoml_reads_it(line: str) -> None:
    content = _text(**_field(line)).encode()

    def learn() -> None:
        refuse_what_bentoml_cannot_read(ModelInfo.learn(content).tag, content)

    with pytest.raises(BadModelError, match=_REFUSED[line]) as caught:
        learn()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"version": "1.10"}, "the version in the model.yaml reads as the number 1.1, not as a text: put it in quotes"),
        ({"creation_time": "'2026-01-01T12:00:00'"}, "names no time zone"),
        ({"creation_time": "2026-01-01"}, "is a date, 2026-01-01, and no time"),
        ({"labels": None}, "has no field labels, and BentoML cannot read it without: add labels: {}"),
    ],
)
def test_such_a_model_does_not_come_into_the_store(
    home_mount: Mounted, tmp_path: Path, values: dict[str, str | None], sentence: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.yaml").write_text(_text(**values))
    run("tar", "-cf", tmp_path / "m.tar", "-C", tmp_path / "model", ".")
    incoming = home_mount.path / "incoming"
    home_mount.expect_log("m.tar was not imported")
    copied = execute("cp", tmp_path / "m.tar", incoming)
    assert (copied.returncode, "Invalid argument" in copied.stderr) == (1, True)
    assert sentence in (incoming / "m.tar.error").read_text()
    (incoming / "m.tar").unlink()

    home_mount.expect_log("model was not imported")
    run("cp", "-r", tmp_path / "model", incoming)
    assert "Invalid argument" in execute("sync", incoming / "model").stderr
    assert sentence in (incoming / "model.error").read_text()
    run("rm", "-r", incoming / "model")
    assert os.listdir(home_mount.store) == ["good"]


@pytest.fixture(scope="module")
def home_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount of a home's store with one model."""
    base = tmp_path_factory.mktemp("home")
    make_model(base / "bentoml" / "models", "good:v1")
    with Mounted(base / "bentoml" / "models", base) as mount:
        yield mount
