"""The public Python API: the names of `import bentofs`."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bentofs
from tests.harness import home_of, make_model

WEIGHTS = bytes(range(256)) * 3000
FORMATS = ["bentomodel", "tar", "tar.gz", "zip", "tar.xz", "tar.bz2"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in home_of(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "home"


@pytest.fixture
def model(store: Path) -> Path:
    return make_model(store, "iris:v1", {"weights.bin": WEIGHTS, "sub/leaf": b"leaf"}, labels={"team": "nlp"})


@pytest.fixture
def opened(store: Path, model: Path) -> Iterator[bentofs.Store]:
    assert model.is_dir()
    with bentofs.Store(str(store)) as opened:
        yield opened


def test_nothing_but_the_public_names() -> None:
    assert all(hasattr(bentofs, name) for name in bentofs.__all__)
    errors = [name for name in bentofs.__all__ if name.endswith("Error")]
    assert all(issubclass(getattr(bentofs, name), bentofs.StoreError) for name in errors)


def test_list_and_get(opened: bentofs.Store) -> None:
    listed = opened.list()
    assert [str(model.tag) for model in listed] == ["iris:v1"]
    assert opened.get("iris") == opened.get("iris:latest") == opened.get(bentofs.Tag("iris", "v1")) == listed[0]
    assert listed[0].labels == {"team": "nlp"}
    assert listed[0].file_count == 3
    assert listed[0].size > len(WEIGHTS)
    assert listed[0].creation_time.tzinfo is not None


@pytest.mark.parametrize("name", FORMATS)
def test_an_open_archive_has_the_bytes_of_an_export(
    opened: bentofs.Store, store: Path, tmp_path: Path, name: str
) -> None:
    exported = bentofs.export_model("iris:v1", str(tmp_path / "exported/"), name, store=str(store))
    with opened.open("iris:v1", name) as archive:
        assert archive.readable()
        assert archive.seekable()
        assert not archive.writable()
        content = archive.read()
        assert archive.seek(0, io.SEEK_END) == len(content)
    assert content == Path(exported).read_bytes()


def test_libraries_read_it(opened: bentofs.Store) -> None:
    with opened.open("iris:v1", "zip") as archive, zipfile.ZipFile(archive) as zipped:
        assert zipped.testzip() is None
        assert zipped.read("weights.bin") == WEIGHTS
    with opened.open("iris:v1") as archive, tarfile.open(fileobj=archive) as tar:
        member = tar.extractfile("sub/leaf")
        assert member is not None
        assert member.read() == b"leaf"


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 900_000), st.integers(0, 70_000)), min_size=1, max_size=5))
def test_reads_anywhere(opened: bentofs.Store, steps: list[tuple[int, int]]) -> None:
    with opened.open("iris:v1", "tar") as archive:
        whole = archive.read()
        for offset, size in steps:
            assert archive.seek(offset) == offset
            assert archive.read(size) == whole[offset : offset + size]
            assert archive.tell() == offset + len(whole[offset : offset + size])


def test_a_changed_model_ends_a_reader(opened: bentofs.Store, model: Path) -> None:
    with opened.open("iris:v1", "tar") as archive:
        archive.read(10)
        (model / "weights.bin").write_bytes(b"other")
        archive.seek(0, io.SEEK_END)
        archive.seek(0)
        with pytest.raises(bentofs.SourceChangedError):
            archive.read()


def test_round_trip(opened: bentofs.Store, store: Path, tmp_path: Path) -> None:
    path = bentofs.export_model("iris", str(tmp_path), store=str(store))
    assert path == str(tmp_path / "iris-v1.bentomodel")
    other = tmp_path / "other" / "models"
    other.mkdir(parents=True)
    tag = bentofs.import_model(path, store=str(other))
    assert tag == bentofs.Tag("iris", "v1")
    with bentofs.Store(str(other)) as imported:
        assert imported.get(tag) == opened.get(tag)
    (other / "iris/v1/weights.bin").write_bytes(b"edited")
    with pytest.raises(bentofs.ModelExistsError, match=r"iris:v1"):
        bentofs.import_model(path, store=str(other))


def test_verify(opened: bentofs.Store, model: Path) -> None:
    assert opened.verify("iris:v1").outcome is bentofs.VerifyOutcome.RECORDED
    assert opened.verify("iris:v1").outcome is bentofs.VerifyOutcome.SAME
    (model / "sub/leaf").write_bytes(b"LEAF")
    report = opened.verify("iris:v1")
    assert report.problems == [("sub/leaf", bentofs.VerifyOutcome.DIFFERS)]


def test_errors_are_sentences(opened: bentofs.Store, tmp_path: Path) -> None:
    with pytest.raises(bentofs.NotFoundError):
        opened.get("iris:v2")
    with pytest.raises(bentofs.BadTagError, match="is not a tag"):
        opened.get("no tag")
    with pytest.raises(bentofs.BadLocationError, match="choose one of bentomodel, tar"):
        opened.open("iris", "rar")
    with pytest.raises(bentofs.BadLocationError, match="choose one of"):
        bentofs.Store(str(tmp_path), compression="some")
    with pytest.raises(bentofs.NotFoundError, match="no model store"):
        bentofs.Store(str(tmp_path / "nowhere"))
    with opened.open("iris", "tar") as archive, pytest.raises(ValueError, match="before the beginning"):
        archive.seek(-1)


def test_the_store_of_the_environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same store as for the commands: BENTOFS_STORE counts before BentoML's own, an argument before both."""
    for store in (home / "bentoml" / "models", tmp_path / "theirs", tmp_path / "given"):
        make_model(store, f"{store.name}:v1")
    assert _tags(bentofs.Store()) == ["models:v1"]
    monkeypatch.setenv("BENTOFS_STORE", str(tmp_path / "theirs"))
    assert _tags(bentofs.Store()) == ["theirs:v1"]
    assert _tags(bentofs.Store(str(tmp_path / "given"))) == ["given:v1"]


def _tags(store: bentofs.Store) -> list[str]:
    with store:
        return [str(model.tag) for model in store.list()]
