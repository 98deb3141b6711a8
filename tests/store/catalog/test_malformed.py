"""An unfinished or malformed model is left out, with one warning that names it, and harms nothing else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import BadModelError, NotFoundError, StoreUnreadableError
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model
from tests.store.clock import Clock
from tests.store.users import an_ordinary_user, folder_of_an_ordinary_user

Looks = Callable[[], ModelStore]
ExpectLog = Callable[..., None]
_BAD = Tag("iris", "bad")


def _others_are_fine(models: Looks) -> None:
    for _ in range(3):
        catalogue = models()
        assert catalogue.tags() == [Tag("iris", "good"), Tag("rose", "v1")]
        assert catalogue.names() == ["iris", "rose"]
        assert catalogue.versions("iris") == ["good"]
        assert catalogue.latest("iris") == "good"
        assert catalogue.model(Tag("iris", "good")).tag == Tag("iris", "good")
        assert catalogue.version_count("iris") == 1


def _make(store: Path) -> Path:
    """Make two good models and one to be spoilt; return the directory of the latter."""
    make_model(store, "rose:v1")
    folder = make_model(store, "iris:bad")
    make_model(store, "iris:good", latest=True)
    return folder


def _rewrite(folder: Path, content: bytes) -> None:
    (folder / "model.yaml").write_bytes(content)
    os.utime(folder / "model.yaml", (1, 1))


_HEAD = b"name: iris\nversion: bad\n"
_TIME = b"creation_time: '2026-01-02T03:04:05+00:00'\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"{unclosed",
        b"- a list\n",
        b"name: rose\nversion: bad\n" + _TIME,
        b"name: iris\nversion: good\n" + _TIME,
        b"name: iris\nversion: 0xbad\n" + _TIME,
        _HEAD,
        _HEAD + b"creation_time: 2026-01-02\n",
        _HEAD + b"creation_time: soon\n",
        _HEAD + _TIME + b"labels: [1]\n",
        b"name: 0x" + b"f" * 3700 + b"\nversion: bad\n" + _TIME,
        _HEAD + _TIME + b"metadata: !!python/object/apply:os.system ['touch pwned']\n",
        _HEAD + _TIME + b"metadata: !!bool perhaps\n",
        _HEAD + _TIME + b"metadata: !!timestamp perhaps\n",
        _HEAD + _TIME + b"#" * (17 << 20),
    ],
    ids=lambda content: f"{len(content)}-{content[-20:]!r}",
)
def test_model_yaml(store: Path, models: Looks, expect_log: ExpectLog, content: bytes) -> None:
    _rewrite(_make(store), content)
    expect_log("iris[:/]bad", 1)
    _others_are_fine(models)
    with pytest.raises(BadModelError, match=r"iris[:/]bad"):
        models().model(_BAD)
    with pytest.raises(BadModelError):
        models().info(_BAD)


def test_a_model_yaml_just_below_the_limit(store: Path, models: Looks) -> None:
    folder = make_model(store, "iris:bad")
    _rewrite(folder, (_HEAD + _TIME).ljust(16 << 20, b"#"))
    assert models().versions("iris") == ["bad"]


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "dangling"])
def test_a_model_yaml_that_is_no_file(store: Path, models: Looks, expect_log: ExpectLog, kind: str) -> None:
    folder = _make(store)
    path = folder / "model.yaml"
    path.rename(folder / "other.yaml")
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("other.yaml" if kind == "link" else "nowhere")
    os.utime(folder, (1, 1))
    expect_log("iris:bad is not a regular file", 1)
    _others_are_fine(models)
    with pytest.raises(NotFoundError):
        models().model(_BAD)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "iris/bad/link.*leads out"),
        (lambda folder: (folder / "link").symlink_to("nowhere"), "iris/bad/link.*nowhere"),
        (lambda folder: (folder / "link").symlink_to("."), "iris/bad/link.*cycle"),
        (lambda folder: os.mkfifo(folder / "fifo"), "iris/bad/fifo.*pipe"),
        (lambda folder: os.makedirs(folder / "/".join("d" * 110)), "iris/bad.*deep"),
    ],
)
def test_what_lies_in_it(
    store: Path, models: Looks, expect_log: ExpectLog, spoil: Callable[[Path], None], sentence: str
) -> None:
    folder = _make(store)
    spoil(folder)
    os.utime(folder, (1, 1))
    expect_log(sentence, 1)
    _others_are_fine(models)
    with pytest.raises(BadModelError, match="bad"):
        models().model(_BAD)


def test_mended_it_is_shown(store: Path, models: Looks, expect_log: ExpectLog) -> None:
    folder = _make(store)
    good = (folder / "model.yaml").read_bytes()
    _rewrite(folder, b"nonsense")
    expect_log("iris:bad", 1)
    assert models().versions("iris") == ["good"]
    _rewrite(folder, good)
    assert models().versions("iris") == ["bad", "good"]


def test_a_name_without_one_good_model_is_not_shown(store: Path, models: Looks, expect_log: ExpectLog) -> None:
    _rewrite(make_model(store, "iris:bad"), b"nonsense")
    make_model(store, "rose:v1")
    expect_log("iris:bad", 1)
    assert models().names() == ["rose"]
    assert models().latest("iris") is None


def test_a_folder_without_model_yaml_is_named_when_it_is_old(
    store: Path, models: Looks, clock: Clock, expect_log: ExpectLog
) -> None:
    (_make(store) / "model.yaml").unlink()
    _others_are_fine(models)  # six seconds: BentoML may still be writing
    clock.advance(10)
    expect_log("iris:bad holds no model.yaml", 1)
    _others_are_fine(models)


def test_what_may_not_be_read(clock: Clock, expect_log: ExpectLog) -> None:
    expect_log("iris/closed", 1)
    expect_log("iris/file", 1)
    expect_log("daisy", 1)
    with folder_of_an_ordinary_user() as store, an_ordinary_user():
        for tag in ("iris:closed", "iris:file", "iris:good", "daisy:v1"):
            make_model(store, tag)
        for path in ("iris/closed", "iris/file/model.yaml", "daisy"):
            (store / path).chmod(0)
        catalogue = ModelStore(LocalStorage(str(store)))
        for _ in range(3):
            clock.advance(2)
            assert catalogue.tags() == [Tag("iris", "good")]
            assert catalogue.names() == ["iris"]
            with pytest.raises(StoreUnreadableError):
                catalogue.versions("daisy")


def test_a_closed_folder_inside_a_model(clock: Clock, expect_log: ExpectLog) -> None:
    expect_log("iris/v1", 1)
    with folder_of_an_ordinary_user() as store, an_ordinary_user():
        folder = make_model(store, "iris:v1", {"inner/weights": b"w"})
        (folder / "inner").chmod(0)
        make_model(store, "iris:v2")
        catalogue = ModelStore(LocalStorage(str(store)))
        for _ in range(3):
            clock.advance(2)
            assert catalogue.tags() == [Tag("iris", "v2")]


@pytest.mark.parametrize("follow", [False, True])
def test_versions_and_names_that_are_links(
    store: Path, clock: Clock, tmp_path: Path, expect_log: ExpectLog, follow: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    make_model(elsewhere, "iris:v2")
    make_model(elsewhere, "rose:v1")
    make_model(store, "iris:v1")
    (store / "iris" / "v2").symlink_to(elsewhere / "iris" / "v2")
    (store / "rose").symlink_to(elsewhere / "rose")
    if not follow:
        expect_log("'v2' in the directory of iris", 1)
        expect_log("'rose' in the store", 1)
    catalogue = ModelStore(LocalStorage(str(store), follow_links=follow))
    for _ in range(3):
        clock.advance(2)
        inside, outside = [Tag("iris", "v1")], [Tag("iris", "v2"), Tag("rose", "v1")]
        assert catalogue.tags() == inside + (outside if follow else [])
        for tag in outside:
            if follow:
                assert catalogue.model(tag).tag == tag
            else:
                with pytest.raises(NotFoundError):
                    catalogue.model(tag)


def test_a_bad_model_is_not_looked_into_more_often_than_a_good_one(
    store: Path, models: Looks, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad model may be large and slow to look into. Its result is cached as long as a good model's."""
    (_make(store) / "link").symlink_to("nowhere")
    os.utime(store / "iris" / "bad", (1, 1))
    expect_log("iris/bad/link", 1)
    catalogue = models()
    walked: list[str] = []
    walk = catalogue.storage.walk

    def counted(path: str) -> object:
        walked.append(path)
        return walk(path)

    monkeypatch.setattr(catalogue.storage, "walk", counted)
    for _ in range(3):
        catalogue.names()
        catalogue.versions("iris")
        catalogue.latest("iris")
        catalogue.version_count("iris")
        with pytest.raises(BadModelError):
            catalogue.model(_BAD)
    assert walked.count("iris/bad") <= max(2, walked.count("iris/good"))
