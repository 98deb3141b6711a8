"""`model.yaml` of every kind, and the generations of a model."""

import datetime
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.errors import BadModelError
from bentofs.store.model import yaml_outline
from bentofs.store.model.model import Model, ModelInfo
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Entry, Identity
from bentofs.store.storage.entries import Entries
from tests.harness import ROOT

_TAG = Tag("iris", "v1")
_HEAD = "name: iris\nversion: v1\n"
_TIME = "creation_time: '2026-01-02T03:04:05.678901+00:00'\n"
_UTC = datetime.timezone.utc


def _parse(text: str | bytes) -> ModelInfo:
    return ModelInfo.parse(_TAG, text if isinstance(text, bytes) else text.encode())


def test_what_bentoml_writes() -> None:
    text = (
        "name: iris\nversion: v1\nmodule: bentoml.sklearn\nlabels:\n  team: a\n  number: 7\noptions: {}\nmetadata:\n"
        "  shared: &id001\n  - 1\n  again: *id001\n  when: 2020-01-01\n  blob: !!binary aGVsbG8=\ncontext:\n"
        "  framework_name: sklearn\n  bentoml_version: 1.4.39\nsignatures:\n  predict:\n    batchable: true\n"
        "api_version: v1\n" + _TIME
    )
    info = _parse(text)
    assert info.tag == _TAG
    assert info.module == "bentoml.sklearn"
    assert info.labels == {"team": "a", "number": "7"}
    assert info.creation_time == datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, _UTC)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("'2026-01-02T03:04:05+00:00'", 1_767_323_045),
        ("'2026-01-02T03:04:05Z'", 1_767_323_045),
        ("'2026-01-02T03:04:05'", 1_767_323_045),  # naive: UTC
        ("'2026-01-02T08:34:05.900000+05:30'", 1_767_323_045),
        ("2026-01-02 03:04:05", 1_767_323_045),  # a YAML timestamp, as before BentoML 1.0
        ("2026-01-02T03:04:05.5Z", 1_767_323_045),
        ("2026-01-02T08:34:05+05:30", 1_767_323_045),
        ("'1969-12-31T23:59:59+00:00'", 0),
        ("'0001-01-01T00:00:00+14:00'", 0),
        ("0001-01-01T00:00:00+14:00", 0),
        ("'9999-12-31T23:59:59-01:00'", 253_402_300_799),
        ("'2300-01-01T00:00:00+00:00'", 10_413_792_000),
    ],
)
def test_creation_times(written: str, seconds: int) -> None:
    info = _parse(f"{_HEAD}creation_time: {written}\n")
    assert info.creation_time.tzinfo is not None
    assert Model(info, Entries.of(()), 0).mtime == seconds


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns", "UTC"])
def test_a_naive_time_does_not_depend_on_the_machine(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert Model(_parse(f"{_HEAD}creation_time: '2026-01-02T03:04:05'\n"), Entries.of(()), 0).mtime == 1_767_323_045
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "mapping"),
        ("- name: iris\n- version: v1\n", "mapping"),
        ("just text", "mapping"),
        ("\x00\x01\x02", "not YAML"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"name: \xff\xff\n", "not YAML"),
        ("name: [iris\n", "not YAML"),
        ("name: iris\n---\nname: other\n", "not YAML"),
        ("a: *unknown\n", "not YAML"),
        (_HEAD + _TIME + "x: !!python/object/apply:os.system [id]\n", "not YAML"),
        (_HEAD + _TIME + "x: !!python/name:os.system\n", "not YAML"),
        (_HEAD + _TIME + "x: !unknown tag\n", "not YAML"),
        (_HEAD + _TIME + "? [a]\n: 1\n", "not YAML"),
        (_HEAD + _TIME + "x: !!bool maybe\n", "not YAML"),
        (_HEAD + _TIME + "x: !!timestamp soon\n", "not YAML"),
        (_HEAD + _TIME + "x: !!int ''\n", "not YAML"),
        (_HEAD + _TIME + "x: !!int twelve\n", "not YAML"),
        (_HEAD + _TIME + "x: !!float ''\n", "not YAML"),
        (_HEAD + _TIME + "x: 2026-13-45\n", "not YAML"),
        ("name: iris\nversion: v2\n" + _TIME, "another model, iris:v2"),
        ("name: rose\nversion: v1\n" + _TIME, "another model, rose:v1"),
        ("version: v1\n" + _TIME, "another model"),
        ("name: iris\nversion: 1.10\n" + _TIME, "the number 1.1, not as a text: put it in quotes.*version: '1.10'"),
        ("name: iris\nversion: 0x10\n" + _TIME, "the number 16"),
        ("name: 2026-01-02\nversion: v1\n" + _TIME, "the date 2026-01-02"),
        ("name: true\nversion: v1\n" + _TIME, "name .* the value True"),
        ("name: iris\nversion: [v1]\n" + _TIME, "a collection"),
        ('name: "a\\nb\\e[31m"\nversion: v1\n' + _TIME, "another model"),
        (_HEAD + 'creation_time: "a\\nb\\e[31m"\n', "creation_time"),
        (_HEAD, "creation_time"),
        (
            _HEAD + "creation_time: 2026-01-02\n",
            "a date, 2026-01-02, and no time: write .*'2026-01-02T00:00:00[+]00:00'",
        ),
        (_HEAD + "creation_time: yesterday\n", "creation_time"),
        (_HEAD + "creation_time: 12345\n", "creation_time"),
        (_HEAD + "creation_time: [1]\n", "creation_time"),
        (_HEAD + "creation_time: ''\n", "creation_time"),
        (_HEAD + _TIME + "labels: [a, b]\n", "labels"),
        (_HEAD + _TIME + "labels: text\n", "labels"),
        (_HEAD + _TIME + "labels: {x: 0x" + "f" * 5000 + "}\n", "cannot be written out"),
        (_HEAD + _TIME + "labels: {x: 1" + ":10" * 5000 + "}\n", "base 60"),
        (_HEAD + _TIME + "labels: [" + "1," * 60_000 + "]\n", "50,000 values in its labels"),
        (_HEAD + _TIME + "x: [" + ",".join(f"&a{number} 1" for number in range(110_000)) + "]\n", "100,000"),
        (_HEAD + _TIME + "x: [&a b, &a c]\n" + "#" * 5000, "anchored twice"),
        (_HEAD + _TIME + "x: &a [b]\ny: {z: {*a : c}}\n", "no key"),
        (_HEAD + _TIME + "x: &a {b: *a}\n", "contains itself"),
    ],
)
def test_malformed(content: str | bytes, sentence: str) -> None:
    with pytest.raises(BadModelError, match=sentence) as caught:
        _parse(content)
    assert "iris:v1" in str(caught.value)
    assert str(caught.value).isprintable(), "a log takes it as it is"


@pytest.mark.parametrize("padding", ["", "#" * 5000], ids=["short", "long"])
@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (
            "{e: null, d: 2026-01-02, l: [a, 1], m: {b: c}}",
            {"e": "None", "d": "2026-01-02", "l": "['a', 1]", "m": "{'b': 'c'}"},
        ),
        ('{a: "\\udce9", b: \'\\udce9\', "\\udc80": c}', {"a": "\udce9", "b": "\\udce9", "\udc80": "c"}),
        ("{a: &x [b], c: *x}", {"a": "['b']", "c": "['b']"}),
        ("*spare", {"k": "v", "l": "[1]"}),
        ("{<<: *spare, k: w}", {"k": "w", "l": "[1]"}),
    ],
)
def test_labels_as_bentoml_shows_them(labels: str, shown: dict[str, str], padding: str) -> None:
    text = f"spare: &spare {{k: v, l: [1]}}\nothers: *spare\n{_HEAD}{_TIME}labels: {labels}\n{padding}"
    assert _parse(text).labels == shown


def test_metadata_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    """The metadata holds more than a million numbers, numbers of thousands of digits, and text that libyaml alone
    refuses."""
    path = tmp_path / "model.yaml"
    path.write_text(
        f'metadata: {{a: [{"1," * 1_000_001}], b: "\\udce9", c: 0x{"f" * 5000}, d: {"1" * 4300}, e: 1{":10" * 5000}}}\n'
        f'{_HEAD}{_TIME}labels: {{path: "\\udce9"}}\n'
    )
    code = (
        "import sys; from bentofs.store.model.model import ModelInfo; from bentofs.store.model.tag import Tag\n"
        "info = ModelInfo.parse(Tag('iris', 'v1'), open(sys.argv[1], 'rb').read())\n"
        "print(ascii(info.labels), [line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    labels, _, kibibytes = done.stdout.rpartition(" ")
    assert labels == "{'path': '\\udce9'}", done.stderr
    assert int(kibibytes) < 60_000, "values are made of a metadata that nobody asks for"


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{_HEAD}{_TIME}x: [{'1,' * 5000}]\n"
    assert _parse(text).tag == _TAG
    monkeypatch.setattr(yaml_outline, "_MAX_EVENTS", 5000)
    with pytest.raises(BadModelError, match="holds more than 5,000 values"):
        _parse(text)


_TENS = ",".join(["*{0}"] * 10)
_BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{_TENS.format(f'a{level - 1}')}]\n" for level in range(1, 10)
)
_MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{_TENS.format(f'a{level - 1}')}]}}\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        _BOMB + _HEAD + _TIME,
        _BOMB + _HEAD + _TIME + "module: *a9\n",
        _BOMB + _HEAD + _TIME + "labels: {x: *a9}\n",
        _BOMB + "name: *a9\nversion: v1\n" + _TIME,
        _BOMB + _HEAD + "creation_time: *a9\n",
        _MERGES + _HEAD + _TIME,
        _HEAD + _TIME + "x: " + "[" * 1_000_000,
        _HEAD + _TIME + "x: " + "[" * 200_000 + "]" * 200_000,
        _HEAD + _TIME + "x: " + "{a: " * 100_000 + "}" * 100_000,
        _HEAD + _TIME + "x: 1" + ":10" * 1_000_000,
        _HEAD + _TIME + "labels: &l {l: *l}\n",
    ],
    ids=[
        "aliases",
        "in-module",
        "in-labels",
        "in-name",
        "in-time",
        "merges",
        "open",
        "lists",
        "maps",
        "base-60",
        "self",
    ],
)
def test_a_few_bytes_cannot_cost_the_machine(text: str, tmp_path: Path) -> None:
    """The text is parsed or refused, in a process with 1 GiB and 5 seconds of processor time. It must neither crash
    nor hang."""
    path = tmp_path / "model.yaml"
    path.write_text(text)
    code = (
        "import resource, sys, threading\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (5, 5))\n"
        "from bentofs.store.model.model import ModelInfo; from bentofs.store.model.tag import Tag\n"
        "from bentofs.store.errors import BadModelError\n"
        "def work():\n"
        "    try:\n"
        "        ModelInfo.parse(Tag('iris', 'v1'), open(sys.argv[1], 'rb').read())\n"
        "    except BadModelError as error:\n"
        "        assert len(str(error)) < 10_000\n"
        "    print('fine')\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"  # like the mount: not the main thread
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-2000:]


@given(st.binary(max_size=200))
def test_garbage_is_malformed_and_nothing_else(content: bytes) -> None:
    with pytest.raises(BadModelError):
        _parse(content)


_YAML_BITS = ["!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!pairs ", "!!null "]
_YAML_VALUES = ["''", "x", "[a]", "{a: b}", "1:2", "0x", "0b", "-", ".", "~", "=", "<<", "2026-01-01T", "[[a, b], c]"]


@given(st.sampled_from(_YAML_BITS), st.sampled_from(_YAML_VALUES))
def test_no_tag_of_yaml_lets_another_error_through(tag: str, value: str) -> None:
    try:
        _parse(f"{_HEAD}{_TIME}x: {tag}{value}\n")
    except BadModelError:
        pass


def _entry(path: str, number: int = 1, *, executable: bool = False) -> Entry:
    return Entry(path, False, executable, Identity(1, number, 10, 20, 30), f"iris/v1/{path}")


def test_the_order_in_archives() -> None:
    paths = ["b", "a/x", "model.yaml", "a", "a.txt", "A", "ü", "\udcff", "a/model.yaml"]
    ordered = [entry.path for entry in Entries.of([_entry(path) for path in paths])]
    assert ordered == ["model.yaml", "A", "a", "a.txt", "a/model.yaml", "a/x", "b", "ü", "\udcff"]


_info = ModelInfo(_TAG, "", datetime.datetime(2026, 1, 2, tzinfo=_UTC), {})
_CHANGED: list[Callable[[Entry], Entry]] = [
    lambda entry: entry._replace(path="other"),
    lambda entry: entry._replace(executable=not entry.executable),
    *(
        lambda entry, field=field: entry._replace(identity=entry.identity._replace(**{field: 99}))
        for field in Identity._fields
    ),
]


@pytest.mark.parametrize("change", _CHANGED)
def test_a_fingerprint_tells_generations_apart(change: Callable[[Entry], Entry]) -> None:
    entries = (_entry("model.yaml"), _entry("weights", 2))
    same = Model(_info, Entries.of(entries), 5).fingerprint()
    assert Model(_info, Entries.of(entries), 6).fingerprint() == same
    assert Model(_info, Entries.of((entries[0], change(entries[1]))), 5).fingerprint() != same
    assert Model(_info, Entries.of(entries[:1]), 5).fingerprint() != same
    later = _info._replace(creation_time=datetime.datetime(2026, 1, 3, tzinfo=_UTC))
    assert Model(later, Entries.of(entries), 5).fingerprint() != same
