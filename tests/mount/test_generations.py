"""How a path passes from one generation to the next, without FUSE."""

from collections.abc import Hashable

import pytest

from mount.generations import Generations
from mount.nodes import Attributes, File, file_attributes
from store.archive.pieces import Literal, Piece
from store.errors import SourceChangedError

PATH = "/models/m/v1/m-v1.tar"


class Stub(File):
    """A file of one generation."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def generation(self) -> Hashable:
        return self._content

    def attributes(self) -> Attributes:
        return file_attributes(PATH, len(self._content), 0, 0)

    def renewed(self) -> File:
        return self

    def open(self) -> Piece:
        return Literal(self._content)


OLD, NEW = Stub(b"old"), Stub(b"newer")


class Detaching:
    """What the daemon does to its own mount, and what may happen meanwhile."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.succeeds = True
        self.generations = Generations(self)
        self.seen: list[object] = []

    def __call__(self, path: str) -> bool:
        self.paths.append(path)
        # The unlinking looks the path up; that lookup must find the old file, and must not detach again.
        self.seen.append(self.generations.being_detached(path))
        self.seen.append(self.generations.tell(path, NEW))
        return self.succeeds


@pytest.fixture
def detaching() -> Detaching:
    return Detaching()


def test_pages_are_kept_for_the_same_generation_only(detaching: Detaching) -> None:
    generations = detaching.generations
    generations.tell(PATH, OLD)
    kept = []
    for file in (OLD, OLD, NEW, NEW, OLD):
        assert generations.tell(PATH, file) == file.attributes()
        number, keep_cache = generations.open(PATH, file)
        generations.release(number)
        kept.append(keep_cache)
    assert kept == [False, True, False, True, False]
    assert not detaching.paths  # nobody had it open


def test_an_open_file_is_detached_before_its_path_passes_on(detaching: Detaching) -> None:
    generations = detaching.generations
    generations.tell(PATH, OLD)
    number, _ = generations.open(PATH, OLD)
    assert generations.tell(PATH, NEW) == NEW.attributes()
    assert detaching.paths == [PATH]
    assert detaching.seen == [OLD.attributes(), OLD.attributes()]
    assert generations.being_detached(PATH) is None
    assert generations.handle(number).attributes == OLD.attributes()
    assert generations.handle(number).piece.length == 3
    # The new node has its own readers; the old one's release does not count for it.
    second, keep_cache = generations.open(PATH, NEW)
    assert not keep_cache
    generations.release(number)
    generations.tell(PATH, OLD)
    assert detaching.paths == [PATH, PATH]
    generations.release(second)


def test_old_attributes_are_told_while_it_cannot_be_detached(detaching: Detaching) -> None:
    generations = detaching.generations
    detaching.succeeds = False
    generations.tell(PATH, OLD)
    number, _ = generations.open(PATH, OLD)
    assert generations.tell(PATH, NEW) == OLD.attributes()
    with pytest.raises(SourceChangedError):
        generations.open(PATH, NEW)
    detaching.succeeds = True
    assert generations.tell(PATH, NEW) == NEW.attributes()
    generations.release(number)


def test_opening_what_the_kernel_was_not_told_of(detaching: Detaching) -> None:
    generations = detaching.generations
    with pytest.raises(SourceChangedError):
        generations.open(PATH, OLD)
    generations.tell(PATH, OLD)
    with pytest.raises(SourceChangedError):
        generations.open(PATH, NEW)
    number, _ = generations.open(PATH, OLD)
    generations.release(number)


def test_memory_is_bounded_and_open_files_stay(detaching: Detaching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mount.generations._PATHS_KEPT", 100)
    generations = detaching.generations
    generations.tell(PATH, OLD)
    number, _ = generations.open(PATH, OLD)
    for count in range(1000):
        generations.tell(f"/other/{count}", OLD)
    assert len(generations._nodes) <= 101
    generations.tell(PATH, NEW)
    assert detaching.paths == [PATH]  # it was not forgotten
    generations.release(number)
