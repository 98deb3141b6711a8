"""How a path passes from one generation to the next, without FUSE."""

from collections.abc import Hashable

import pytest

from bentofs.mount.kernel.generations import Generations
from bentofs.mount.view.nodes import Attributes, File, file_attributes
from bentofs.store.errors import SourceChangedError
from bentofs.store.formats.pieces import Literal, Piece

PATH = "/models/m/v1/m-v1.tar"


class Stub(File):
    """A file of one generation, found by one look."""

    def __init__(self, content: bytes, look: int) -> None:
        self._content = content
        self._look = look

    @property
    def generation(self) -> Hashable:
        return self._content

    @property
    def look(self) -> int:
        return self._look

    def attributes(self) -> Attributes:
        return file_attributes(PATH, len(self._content), 0, 0)

    def renewed(self) -> File:
        return self

    def open(self) -> Piece:
        return Literal(self._content)


OLD, NEW, NEWEST = Stub(b"old", 1), Stub(b"newer", 2), Stub(b"newest", 3)


class Unlinker:
    """A stub: it records the daemon's unlinks on its own mount, and does the lookups that may happen meanwhile."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.answer: bool | None = True
        self.generations = Generations(self)
        self.seen: list[object] = []

    def detach(self, path: str) -> bool | None:
        self.paths.append(path)
        # The unlink looks the path up. Other lookups go on, too. They must neither detach again nor pass on.
        self.seen.append(self.generations.being_detached(path))
        self.seen.append(self.generations.tell(path, NEW, self.generations.ticket()))
        return self.answer

    def detach_soon(self, path: str) -> None:
        self.paths.append(f"soon {path}")


@pytest.fixture
def unlinker() -> Unlinker:
    return Unlinker()


def tell(generations: Generations, file: File, path: str = PATH) -> Attributes:
    return generations.tell(path, file, generations.ticket())


def test_pages_are_kept_for_the_same_generation_only(unlinker: Unlinker) -> None:
    generations = unlinker.generations
    kept = []
    for file in (OLD, OLD, NEW, NEW, NEWEST):
        assert tell(generations, file) == file.attributes()
        tell(generations, file)
        number, keep_cache = generations.open(PATH, file)
        generations.release(number)
        kept.append(keep_cache)
    assert kept == [False, True, False, True, False]
    assert unlinker.paths == [PATH, PATH]


def test_a_path_is_detached_before_it_passes_on(unlinker: Unlinker) -> None:
    generations = unlinker.generations
    tell(generations, OLD)
    number, _ = generations.open(PATH, OLD)
    assert tell(generations, NEW) == NEW.attributes()
    assert unlinker.paths == [PATH]
    assert unlinker.seen == [OLD.attributes(), OLD.attributes()]
    assert generations.being_detached(PATH) is None
    assert generations.handle(number).attributes == OLD.attributes()
    assert generations.handle(number).piece.length == 3
    generations.release(number)


def test_what_passed_on_is_opened_only_once_the_kernel_surely_believes_it(unlinker: Unlinker) -> None:
    generations = unlinker.generations
    tell(generations, OLD)
    slow = generations.ticket()  # a lookup that began before the path passed on, and ends after it
    tell(generations, NEW)
    generations.tell(PATH, NEW, slow)
    with pytest.raises(SourceChangedError):
        generations.open(PATH, NEW)
    tell(generations, NEW)
    number, keep_cache = generations.open(PATH, NEW)
    assert not keep_cache
    generations.release(number)


def test_an_older_look_that_ends_later_changes_nothing(unlinker: Unlinker) -> None:
    generations = unlinker.generations
    tell(generations, OLD)
    assert tell(generations, NEW) == NEW.attributes()
    assert tell(generations, OLD) == NEW.attributes()
    assert unlinker.paths == [PATH]


@pytest.mark.parametrize("answer", [False, None])
def test_old_attributes_are_told_while_readers_cannot_be_detached(unlinker: Unlinker, answer: bool | None) -> None:
    generations = unlinker.generations
    unlinker.answer = answer
    tell(generations, OLD)
    number, _ = generations.open(PATH, OLD)
    assert tell(generations, NEW) == OLD.attributes()
    with pytest.raises(SourceChangedError):
        generations.open(PATH, NEW)
    if answer is None:  # it is tried later; then the next lookup makes a new node
        assert generations.being_detached(PATH) == OLD.attributes()
        generations.tried_late(PATH, True)
    unlinker.answer = True
    assert tell(generations, NEW) == NEW.attributes()
    assert len(unlinker.paths) == (1 if answer is None else 2)
    generations.release(number)


def test_a_node_that_nobody_has_open_goes_over_where_it_cannot_be_detached(unlinker: Unlinker) -> None:
    generations = unlinker.generations
    unlinker.answer = False
    tell(generations, OLD)
    generations.release(generations.open(PATH, OLD)[0])
    assert tell(generations, NEW) == NEW.attributes()
    tell(generations, NEW)
    for _ in range(3):
        number, keep_cache = generations.open(PATH, NEW)
        assert not keep_cache  # pages of the old generation may still be there
        generations.release(number)


def test_what_vanished_is_detached_from_its_readers(unlinker: Unlinker) -> None:
    generations = unlinker.generations
    tell(generations, OLD)
    generations.vanished(PATH)
    assert not unlinker.paths  # the kernel forgets it by itself
    tell(generations, OLD)
    number, _ = generations.open(PATH, OLD)
    generations.vanished(PATH)
    generations.vanished(PATH)
    assert unlinker.paths == [f"soon {PATH}"]
    assert generations.being_detached(PATH) == OLD.attributes()
    generations.tried_late(PATH, True)
    assert tell(generations, NEW) == NEW.attributes()
    assert len(unlinker.paths) == 1
    generations.release(number)


def test_opening_what_the_kernel_was_not_told_of(unlinker: Unlinker) -> None:
    generations = unlinker.generations
    with pytest.raises(SourceChangedError):
        generations.open(PATH, OLD)
    tell(generations, OLD)
    with pytest.raises(SourceChangedError):
        generations.open(PATH, NEW)
    generations.release(generations.open(PATH, OLD)[0])


def test_memory_is_bounded_and_open_files_stay(unlinker: Unlinker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentofs.mount.kernel.generations._PATHS_KEPT", 100)
    generations = unlinker.generations
    tell(generations, OLD)
    number, _ = generations.open(PATH, OLD)
    for count in range(1000):
        tell(generations, OLD, f"/other/{count}")
    assert len(generations._nodes) <= 101
    tell(generations, NEW)
    assert unlinker.paths == [PATH]  # it was not forgotten
    generations.release(number)
