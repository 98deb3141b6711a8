"""The catalogue: the models that exist, and the latest one, as BentoML answers."""

import errno
import gc
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import (
    BadTagError,
    NotFoundError,
    RemoteDeniedError,
    RemoteError,
    StoreError,
    StoreUnreadableError,
)
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Identity, Kind, Status
from bentofs.store.storage.entries import Entries
from bentofs.store.storage.local import LocalFolder, LocalStorage
from tests.harness import make_model, remove_model
from tests.store.clock import Clock

Looks = Callable[[], ModelStore]
ExpectLog = Callable[..., None]
_YOUNG, _OLD = "2026-06-01T00:00:00+00:00", "2025-01-01T00:00:00+00:00"


class _WalksCounted(LocalStorage):
    """The real storage; it records which models are walked."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.walked: list[str] = []

    def walk(self, path: str) -> tuple[Entries, int]:
        self.walked.append(path)
        return super().walk(path)


def test_an_empty_store(models: Looks) -> None:
    assert (models().names(), models().tags(), models().name_count()) == ([], [], 0)
    with pytest.raises(NotFoundError):
        models().versions("iris")
    with pytest.raises(NotFoundError):
        models().find("iris")


class _PrefetchesNoted(LocalStorage):
    """The real storage; it records which files are prefetched."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.files: list[str] = []

    def prepare_models(self, paths: Sequence[str], files: Sequence[str]) -> None:
        self.files += files
        super().prepare_models(paths, files)


def test_infos_of_all_models(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are prefetched together. A store that cannot be read is an error."""
    monkeypatch.setattr("bentofs.store.catalog.catalog._LOOKING_SECONDS", 0.0)
    for tag in ("rose:b", "iris:v2", "rose:a"):
        make_model(store, tag)
    storage = _PrefetchesNoted(str(store))
    found = ModelStore(storage).infos()
    assert [str(info.tag) for info in found] == ["iris:v2", "rose:a", "rose:b"]
    assert sorted(storage.files) == ["iris/v2/model.yaml", "rose/a/model.yaml", "rose/b/model.yaml"]
    storage.files.clear()
    shutil.rmtree(store)
    with pytest.raises(StoreUnreadableError):
        list(ModelStore(storage).infos())


def test_names_and_versions_are_sorted(store: Path, models: Looks) -> None:
    for tag in ("rose:b", "iris:v2", "iris:v10", "rose:a", "iris:0"):
        make_model(store, tag)
    assert models().names() == ["iris", "rose"]
    assert models().versions("iris") == ["0", "v10", "v2"]
    assert models().tags() == [
        Tag("iris", "0"),
        Tag("iris", "v10"),
        Tag("iris", "v2"),
        Tag("rose", "a"),
        Tag("rose", "b"),
    ]


@pytest.mark.parametrize(
    "tag",
    ["m.tar.gz:v1", "m:v1.zip", "m:v1.bentomodel", "a-b:c", "a:b-c", "x:latest", "0:0", f"{'n' * 63}:{'v' * 63}"],
)
def test_awkward_tags(store: Path, models: Looks, tag: str) -> None:
    make_model(store, tag)
    name, version = tag.split(":")
    assert (models().names(), models().versions(name)) == ([name], [version])
    assert str(models().model(Tag(name, version)).tag) == tag
    assert models().find(tag) == Tag(name, version)


def test_adding_and_deleting_are_seen(store: Path, models: Looks) -> None:
    make_model(store, "iris:v1")
    assert models().tags() == [Tag("iris", "v1")]
    make_model(store, "iris:v2")
    make_model(store, "rose:v1")
    assert models().tags() == [Tag("iris", "v1"), Tag("iris", "v2"), Tag("rose", "v1")]
    remove_model(store, "iris:v1")
    assert models().versions("iris") == ["v2"]
    with pytest.raises(NotFoundError):
        models().model(Tag("iris", "v1"))
    remove_model(store, "iris:v2")
    assert models().names() == ["rose"]
    (store / "iris" / "latest").unlink()
    (store / "iris").rmdir()
    assert models().names() == ["rose"]
    with pytest.raises(NotFoundError):
        models().versions("iris")


def test_a_look_now_sees_what_an_earlier_look_could_not(store: Path, models: Looks) -> None:
    make_model(store, "iris:v1")
    catalogue = models()
    assert catalogue.versions("iris") == ["v1"]
    make_model(store, "iris:v2")  # within the time for which the catalogue trusts its cache
    assert catalogue.model(Tag("iris", "v2"), max_age=0).tag == Tag("iris", "v2")


@pytest.mark.parametrize("how", ["version", "name", "name, listed"])
def test_nothing_is_kept_of_a_version_that_is_gone(store: Path, clock: Clock, how: str) -> None:
    make_model(store, "iris:v1")
    if how == "version":
        make_model(store, "iris:v2")
    gone: list[Tag] = []
    catalogue = ModelStore(LocalStorage(str(store)), gone.append)
    held = weakref.ref(catalogue.model(Tag("iris", "v1")))
    catalogue.names()
    remove_model(store, "iris:v1")
    if how != "version":
        shutil.rmtree(store / "iris")
    clock.advance(2)
    if how == "version":
        catalogue.versions("iris")
    elif how == "name":
        with pytest.raises(NotFoundError):
            catalogue.versions("iris")
    else:
        catalogue.names()
    gc.collect()
    assert gone == [Tag("iris", "v1")]
    assert held() is None


def test_a_store_deleted_and_made_again(store: Path, models: Looks) -> None:
    make_model(store, "iris:v1")
    assert models().names() == ["iris"]
    store.rename(store.parent / "old")
    with pytest.raises(StoreUnreadableError):
        models().names()
    make_model(store, "rose:v1")
    assert models().tags() == [Tag("rose", "v1")]


def test_strays_are_left_out_and_named_once(store: Path, models: Looks, expect_log: Callable[..., None]) -> None:
    make_model(store, "iris:v1")
    (store / "stray-file").write_bytes(b"")
    (store / "Illegal Name").mkdir()
    (store / "link").symlink_to("iris")
    (store / "iris" / "stray").write_bytes(b"")
    (store / "iris" / "V1").mkdir()
    os.mkdir(os.path.join(os.fsencode(store), b"\xff"))
    (store / "empty").mkdir()
    for name in ("stray-file", "Illegal Name", "link", "'stray'", "V1", r"udcff"):
        expect_log(name, 1)
    for _ in range(3):
        assert models().tags() == [Tag("iris", "v1")]


class TestLatest:
    def test_what_the_file_says(self, store: Path, models: Looks) -> None:
        make_model(store, "iris:v1", creation_time=_YOUNG)
        make_model(store, "iris:v2", creation_time=_OLD)
        assert models().latest("iris") == "v1"
        (store / "iris" / "latest").write_text("v2")
        assert models().latest("iris") == "v2"
        assert models().find("iris") == models().find("iris:latest") == Tag("iris", "v2")

    def test_no_other_version_is_walked(self, store: Path, clock: Clock) -> None:
        """A mount asks at each lookup of a link. Walking every version made `ls -l` of a new mount 7 times slower."""
        for version in ("v1", "v2", "v3"):
            make_model(store, f"iris:{version}")
        (store / "iris" / "latest").write_text("v2")
        storage = _WalksCounted(str(store))
        catalogue = ModelStore(storage)
        for _ in range(3):
            clock.advance(2)
            assert catalogue.latest("iris") == "v2"
        assert storage.walked == ["iris/v2"]
        for _ in range(3):
            clock.advance(2)
            assert catalogue.versions("iris") == ["v1", "v2", "v3"]
        assert sorted(storage.walked) == ["iris/v1", "iris/v2", "iris/v3"], "each of them once"

    def test_white_space_around_it(self, store: Path, models: Looks) -> None:
        make_model(store, "iris:v1", creation_time=_YOUNG)
        make_model(store, "iris:v2", creation_time=_OLD, latest=True)
        (store / "iris" / "latest").write_text(" v2\n")
        assert models().latest("iris") == "v2"

    @pytest.mark.parametrize("content", [None, b"", b"gone", b"../../etc", b"\xff\xfe", b"v1\nv2", b"\0"])
    def test_without_a_valid_one_it_is_the_youngest(self, store: Path, models: Looks, content: bytes | None) -> None:
        make_model(store, "iris:v1", creation_time=_OLD)
        make_model(store, "iris:v2", creation_time=_YOUNG)
        make_model(store, "iris:v3", creation_time=_OLD)
        latest = store / "iris" / "latest"
        if content is None:
            latest.unlink()
        else:
            latest.write_bytes(content)
        assert models().latest("iris") == "v2"

    def test_among_equally_young_ones_it_is_the_first_as_in_bentoml(self, store: Path, models: Looks) -> None:
        for version in ("v2", "v1", "v3"):
            make_model(store, f"iris:{version}", latest=False)
        assert models().latest("iris") == "v1"

    def test_an_odd_file_is_named_in_the_log(self, store: Path, models: Looks, expect_log: Callable[..., None]) -> None:
        make_model(store, "iris:v1")
        (store / "iris" / "latest").write_bytes(b"x" * 1000)
        expect_log(r"iris/latest.*larger", 1)
        assert models().latest("iris") == models().latest("iris") == "v1"

    @pytest.mark.parametrize("kind", ["link", "fifo"])
    def test_what_is_no_file_is_not_read(
        self, store: Path, models: Looks, expect_log: Callable[..., None], kind: str
    ) -> None:
        make_model(store, "iris:v1", creation_time=_YOUNG)
        make_model(store, "iris:v2", creation_time=_OLD)
        latest = store / "iris" / "latest"
        latest.unlink()
        if kind == "link":
            (store.parent / "text").write_text("v2")
            latest.symlink_to(store.parent / "text")
        else:
            os.mkfifo(latest)
        expect_log("'latest' in the directory of iris", 1)
        assert models().latest("iris") == models().latest("iris") == "v1"

    def test_a_version_of_that_name_leaves_no_place_for_it(self, store: Path, models: Looks) -> None:
        make_model(store, "iris:latest")
        make_model(store, "iris:v1")
        assert models().versions("iris") == ["latest", "v1"]
        assert models().latest("iris") is None
        assert models().find("iris:latest") == Tag("iris", "latest")
        with pytest.raises(NotFoundError):
            models().find("iris")

    @pytest.mark.parametrize("restore_mtime", [False, True])
    def test_rewritten_in_place_with_equal_length(self, store: Path, models: Looks, restore_mtime: bool) -> None:
        make_model(store, "iris:v1")
        make_model(store, "iris:v2")
        latest = store / "iris" / "latest"
        os.utime(latest, (1, 1))
        for version in ("v1", "v2", "v1"):
            with latest.open("r+") as file:
                file.write(version)
            if restore_mtime:
                os.utime(latest, (1, 1))
            assert models().latest("iris") == version

    def test_deleting_the_latest(self, store: Path, models: Looks) -> None:
        make_model(store, "iris:v1", creation_time=_OLD)
        make_model(store, "iris:v2", creation_time=_YOUNG)
        assert models().latest("iris") == "v2"
        remove_model(store, "iris:v2")
        assert models().latest("iris") == "v1"


class _SlowStorage(LocalStorage):
    """A store in which each look takes long, without waiting."""

    def __init__(self, root: str, clock: Clock) -> None:
        super().__init__(root)
        self._clock = clock
        self.looks = 0

    def look_into(self, path: str) -> LocalFolder:
        self.looks += 1
        self._clock.advance(0.01)
        return super().look_into(path)


def test_names_just_listed_are_not_looked_at_again(store: Path, clock: Clock) -> None:
    """`ls -l` asks like this. Changes meanwhile are seen in time."""
    for number in range(42):
        make_model(store, f"m{number:02}:v1")
    storage = _SlowStorage(str(store), clock)
    catalogue = ModelStore(storage)
    names = catalogue.names()
    looks = storage.looks
    remove_model(store, "m00:v1")
    for name in names:
        assert catalogue.version_count(name) == 1
    assert storage.looks == looks
    clock.advance(0.8 - 0.42)  # the longest cache lifetime leaves the kernel its second
    with pytest.raises(NotFoundError):
        catalogue.version_count("m00")


class _SlowWalks(LocalStorage):
    """A store in which a look at a model takes as long as one at 65,000 files, without waiting."""

    def __init__(self, root: str, clock: Clock, *, seconds: float = 0.9) -> None:
        super().__init__(root)
        self._clock = clock
        self._seconds = seconds
        self.walks = 0

    def walk(self, path: str) -> tuple[Entries, int]:
        self.walks += 1
        self._clock.advance(self._seconds)
        return super().walk(path)


def test_a_huge_model_is_not_looked_at_all_the_time(store: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the model's files is seen some seconds later. A change of the model itself is seen at once. A caller
    that asks for a look now sees all changes."""
    monkeypatch.setattr("bentofs.store.catalog.looks._HUGE", 3)
    tag = Tag("huge", "v1")
    folder = make_model(store, "huge:v1", {"a": b"1", "b": b"2", "c": b"3"})
    storage = _SlowWalks(str(store), clock)
    catalogue = ModelStore(storage)
    before = catalogue.model(tag)
    for _ in range(7):
        clock.advance(0.4)
        assert catalogue.model(tag) is before
    assert storage.walks == 1
    (folder / "c").write_bytes(b"three")
    assert catalogue.model(tag) is before
    clock.advance(4)
    changed = catalogue.model(tag)
    assert changed.size == before.size + 4
    (folder / "d").write_bytes(b"4")
    assert catalogue.model(tag, max_age=0).file_count == 5
    remove_model(store, "huge:v1")
    make_model(store, "huge:v1", {"a": b"other", "b": b"2", "c": b"3"})
    clock.advance(0.4)
    assert catalogue.model(tag).size == before.size + 4


def test_a_slow_look_at_a_huge_model_serves_the_requests_after_it(
    store: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a look may take longer than it is cached. Each request of one `ls -l` would look anew."""
    monkeypatch.setattr("bentofs.store.catalog.looks._HUGE", 3)
    tag = Tag("huge", "v1")
    make_model(store, "huge:v1", {"a": b"1", "b": b"2", "c": b"3"})
    storage = _SlowWalks(str(store), clock, seconds=9.0)
    catalogue = ModelStore(storage)
    before = catalogue.model(tag)
    for _ in range(3):
        clock.advance(0.1)
        assert catalogue.model(tag) is before
    assert storage.walks == 1
    clock.advance(0.2)
    catalogue.model(tag)
    assert storage.walks == 2


class _FailingStorage(LocalStorage):
    """A disk or network on which directories below `below` cannot be opened for now."""

    below: str | None = None
    error: Exception = OSError(errno.EIO, "Input/output error")

    def _open_folder(self, path: str) -> int:
        if self.below is not None and path.startswith(self.below):
            raise self.error
        return super()._open_folder(path)


@pytest.mark.parametrize("below", ["iris/v2", "iris"])
@pytest.mark.parametrize("error", [_FailingStorage.error, RemoteError("no answer"), RemoteDeniedError("expired")])
def test_nothing_is_missing_from_a_listing_while_the_store_fails(
    store: Path, clock: Clock, below: str, error: Exception
) -> None:
    for tag in ("iris:v1", "iris:v2", "rose:v1"):
        make_model(store, tag)
    storage = _FailingStorage(str(store))
    catalogue = ModelStore(storage)
    storage.below, storage.error = below, error
    for _ in range(2):
        assert catalogue.names() == ["iris", "rose"]
        if below == "iris/v2":
            assert catalogue.versions("iris") == ["v1", "v2"]
            assert catalogue.version_count("iris") == 2
        with pytest.raises(StoreUnreadableError):
            catalogue.model(Tag("iris", "v2"))
        clock.advance(2)
    storage.below = None
    assert catalogue.model(Tag("iris", "v2"))


def test_what_may_not_be_read_is_left_out(store: Path, expect_log: Callable[..., None]) -> None:
    for tag in ("iris:v1", "iris:v2"):
        make_model(store, tag)
    storage = _FailingStorage(str(store))
    storage.below, storage.error = "iris/v2", PermissionError(errno.EACCES, "Permission denied")
    expect_log("iris/v2/model.yaml cannot be read: Permission denied; iris:v2 is left out")
    assert ModelStore(storage).versions("iris") == ["v1"]


class _CoarseStorage(LocalStorage):
    """A file system whose timestamps count in seconds. All changes of a test happen within one of them."""

    second = 0

    def status(self, path: str) -> Status:
        return self._coarse(path, super().status(path))

    def look_into(self, path: str) -> LocalFolder:
        return _CoarseFolder(self, path)

    def _coarse(self, path: str, look: Status) -> Status:
        """Coarsen only the timestamps that the catalogue uses: those of the store's and names' directories, and of
        `latest`."""
        if path not in ("", "iris", "rose") and not path.endswith("latest"):
            return look
        is_recent = look.identity.mtime_ns > 10**18
        mtime_ns = self.second if is_recent else look.identity.mtime_ns
        return look._replace(identity=look.identity._replace(mtime_ns=mtime_ns, ctime_ns=self.second))


class _CoarseFolder(LocalFolder):
    def __init__(self, storage: _CoarseStorage, path: str) -> None:
        super().__init__(storage, path, path)
        self._coarse, self._name = storage._coarse, path

    @property
    def identity(self) -> Identity:
        return self._coarse(self._name, Status(Kind.FOLDER, True, super().identity)).identity

    def statuses(self, paths: Sequence[str]) -> Sequence[Status | StoreError]:
        return [
            self._coarse(path, look) if isinstance(look, Status) else look
            for path, look in zip(paths, super().statuses(paths), strict=True)
        ]


class TestWithinOneTick:
    """Two changes within one tick of the clock have equal timestamps. The second must be seen all the same."""

    @pytest.fixture
    def coarse(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
        make_model(store, "iris:v1")
        make_model(store, "iris:v2")
        make_model(store, "rose:v1")
        storage = _CoarseStorage(str(store))
        storage.second = time.time_ns() // 10**9 * 10**9
        self._ahead = 0
        wall, steady = storage.second + 1_000_000, time.monotonic()
        monkeypatch.setattr(time, "time_ns", lambda: wall + self._ahead)
        monkeypatch.setattr(time, "monotonic", lambda: steady + self._ahead / 1e9)
        return ModelStore(storage)

    @pytest.mark.parametrize("restored", [False, True])
    def test_latest(self, store: Path, coarse: ModelStore, restored: bool) -> None:
        latest = store / "iris" / "latest"
        for version in ("v1", "v2", "v1"):
            latest.write_text(version)
            if restored:  # like rsync -t and cp -p
                os.utime(latest, (7, 7))
            self._ahead += 500_000_000
            assert coarse.latest("iris") == version
        latest.write_text("v2")
        if restored:
            os.utime(latest, (7, 7))
        self._ahead += 3_000_000_000
        assert coarse.latest("iris") == "v2"

    @pytest.mark.parametrize("restored", [False, True])
    def test_folders(self, store: Path, coarse: ModelStore, restored: bool) -> None:
        def restore() -> None:
            for folder in (store, store / "iris"):
                if restored:  # like rsync -t and cp -a
                    os.utime(folder, (7, 7))

        later = store.parent / "later"
        (store / "rose").rename(later)
        restore()
        assert coarse.tags() == [Tag("iris", "v1"), Tag("iris", "v2")]
        make_model(store.parent / "new", "iris:v3")
        (store.parent / "new" / "iris" / "v3").rename(store / "iris" / "v3")
        later.rename(store / "rose")
        restore()
        self._ahead += 3_000_000_000
        assert coarse.tags() == [Tag("iris", "v1"), Tag("iris", "v2"), Tag("iris", "v3"), Tag("rose", "v1")]


def test_identities_are_those_of_the_folders(store: Path, models: Looks) -> None:
    make_model(store, "iris:v1")
    for found, path in ((models().root_identity(), store), (models().name_identity("iris"), store / "iris")):
        look = path.stat()
        assert found == Identity(look.st_dev, look.st_ino, look.st_size, look.st_mtime_ns, look.st_ctime_ns)


@pytest.mark.parametrize("text", ["", ":", "Iris!", "Ïris", "iris:", "../x", "iris/v1", "iris:v1:v2", "a\0b", "iris\n"])
def test_what_is_no_tag(store: Path, models: Looks, text: str) -> None:
    make_model(store, "iris:v1")
    with pytest.raises((BadTagError, NotFoundError)):
        models().model(models().find(text))


def test_a_prefix_of_a_version(store: Path, models: Looks, expect_log: ExpectLog) -> None:
    for number in range(7):
        make_model(store, f"iris:v1.{number}")
    make_model(store, "iris:v20")
    assert models().find("iris:v1.3") == models().find("Iris:V1.3") == Tag("iris", "v1.3")
    assert models().find("iris:v20") == Tag("iris", "v20")
    with pytest.raises(BadTagError, match=r"begin with v1: v1\.0, .*v1\.4, \.\.\.: write more"):
        models().find("iris:v1")
    with pytest.raises(NotFoundError, match="iris:w"):
        models().model(models().find("iris:w"))
    # A full version means the version being saved, not a longer one that exists.
    make_model(store, "iris:v2", complete=False)
    expect_log("iris:v2 is not shown", 1)
    with pytest.raises(NotFoundError, match="iris:v2 "):
        models().model(models().find("iris:v2"))


def test_from_several_threads(store: Path, models: Looks, clock: Clock) -> None:
    failures: list[BaseException] = []
    done = threading.Event()
    catalogue = models()

    def work() -> None:
        try:
            while not done.is_set():
                for name in catalogue.names():
                    try:
                        for version in catalogue.versions(name):
                            catalogue.model(Tag(name, version), max_age=0)
                        catalogue.latest(name)
                    except NotFoundError:
                        pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(30):
        make_model(store, f"iris:v{number}")
        clock.advance(0.2)
        if number % 3 == 0:
            remove_model(store, f"iris:v{number}")
    done.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert models().versions("iris") == sorted(f"v{number}" for number in range(30) if number % 3)
