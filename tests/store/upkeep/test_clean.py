"""The state on disk shrinks when models go. Nothing that is needed is removed."""

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.index import Index
from bentofs.store.archives.index import default_path as index_path
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.formats.write.registry import FORMATS
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.baseline import default_path as baseline_path
from bentofs.store.integrity.verify import VerifyOutcome, verify_model
from bentofs.store.model.tag import Tag
from bentofs.store.paths import state_folder
from bentofs.store.staging.area import StagingArea
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.open import StoreSpec
from bentofs.store.upkeep.clean import OLD_SECONDS, Upkeep
from bentofs.store.upkeep.report import Kept, Line
from tests.harness import make_model
from tests.store.staged import other_process
from tests.waiting import wait_until_settled

KINDS = [FORMATS[name] for name in ("tar", "tar.gz", "zip")]
FILES: dict[str | bytes, bytes | int] = {f"{number:03}": b"text " * 200 + bytes([number]) for number in range(250)}
FILES["large"] = b"some text " * 30_000
OLD = 1_600_000_000  # a time before all models' grace: a file so old is settled


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the index and the baseline lie below the test's own directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def use(store: Path, *tags: str) -> None:
    """Measure and verify models, as mounts and commands do."""
    models = ModelStore(LocalStorage(str(store)))
    index, baseline = Index(store=str(store)), Baseline()
    archives = Archives(models.storage, index, Compression.ALWAYS, formats=KINDS)
    with contextlib.closing(index), contextlib.closing(baseline), contextlib.closing(archives):
        for tag in map(Tag.parse, tags):
            model = models.model(tag)
            archives.measure(model, KINDS, lambda _count: None)
            archives.sha256(model, KINDS[0])
            verify_model(models, baseline, tag)


def clean(*stores: Path, dry_run: bool = False, gone: bool = False) -> dict[Kept, list[Line]]:
    lines: dict[Kept, list[Line]] = {kept: [] for kept in Kept}
    specs = [StoreSpec.named(str(store)) for store in stores]
    for line in Upkeep(specs, None, (), dry_run=dry_run, gone=gone).run():
        lines[line.kept].append(line)
    return lines


def rows() -> int:
    """Count the rows of the index and of the baseline."""
    count = 0
    for path, tables in (
        (index_path(), ("checksums", "chunk_sizes", "archive_digests")),
        (baseline_path(), ("file_digests",)),
    ):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            count += sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
    return count


def lengths() -> int:
    """Count the lengths of archives that the index keeps."""
    with contextlib.closing(sqlite3.connect(index_path())) as connection:
        return int(connection.execute("SELECT count(*) FROM archive_lengths").fetchone()[0])


def test_all_that_is_kept_for_models_that_are_gone_goes(store: Path) -> None:
    for number in range(4):
        make_model(store, f"m:v{number}", FILES)
    wait_until_settled(store)
    use(store, "m:v0")
    one = rows()
    use(store, "m:v1", "m:v2", "m:v3")
    assert rows() == 4 * one
    assert lengths() == 4 * 2  # a tar's is arithmetic
    for version in ("v1", "v2", "v3"):
        shutil.rmtree(store / "m" / version)
    before = rows()
    told = clean(store, dry_run=True)
    assert rows() == before
    line = told[Kept.INDEX][0]
    assert line.left == line.size > line.stale > line.size // 2
    done = clean(store)
    assert rows() == one
    for kept in (Kept.INDEX, Kept.BASELINE):
        assert done[kept][0].left < done[kept][0].size * 0.6
    # The rows that are left serve: nothing is measured or recorded anew.
    models = ModelStore(LocalStorage(str(store)))
    with contextlib.closing(Index(store=str(store))) as index, contextlib.closing(Baseline()) as baseline:
        archives = Archives(models.storage, index, Compression.ALWAYS, formats=KINDS)
        model = models.model(Tag("m", "v0"))
        assert all(archives.is_length_known(model, kind) for kind in KINDS)
        assert archives.known_sha256(model, KINDS[0])
        assert verify_model(models, baseline, model.tag).outcome is VerifyOutcome.SAME
        archives.close()
    shutil.rmtree(store / "m")
    done = clean(store)
    assert rows() == lengths() == 0
    assert done[Kept.INDEX][0].left + done[Kept.BASELINE][0].left < 200_000


def test_other_stores_keep_theirs(store: Path, tmp_path: Path) -> None:
    other, away = tmp_path / "other", tmp_path / "away"
    for each in (store, other, away):
        make_model(each, "m:v1", FILES)
        make_model(each, "n:v1", {})
    for each in (store, other, away):
        wait_until_settled(each)
        use(each, "m:v1")
    before = rows()
    away.rename(tmp_path / "unplugged")
    done = clean(store)
    assert rows() == before
    assert f"{away} is not there" in done[Kept.BASELINE][0].note
    shutil.rmtree(other / "m")  # a store that was not named, but is known
    clean(store)
    assert rows() == before * 2 // 3
    # Its disk is not mounted: an empty directory is in its place.
    away.mkdir()
    done = clean(store)
    assert "is empty, and was another directory" in done[Kept.BASELINE][0].note
    away.rmdir()
    (tmp_path / "unplugged").rename(away)
    models = ModelStore(LocalStorage(str(away)))
    with contextlib.closing(Baseline()) as baseline:
        assert verify_model(models, baseline, Tag("m", "v1")).outcome is VerifyOutcome.SAME
    shutil.rmtree(away)
    clean(store, gone=True)
    assert rows() == before // 3


def test_a_model_that_cannot_be_shown_keeps_its_baseline(store: Path, expect_log: Callable[..., None]) -> None:
    expect_log("the model.yaml of m:v1 .* is left out")
    make_model(store, "m:v1", FILES)
    wait_until_settled(store)
    use(store, "m:v1")
    (store / "m" / "v1" / "model.yaml").write_text("damaged: [")
    clean(store)
    with contextlib.closing(Baseline()) as baseline:
        assert baseline.rows_by_tag(str(store)) == {"m:v1": len(FILES) + 1}


def test_an_index_of_an_older_release(store: Path) -> None:
    """Its rows are kept and used, and pruned though no store is known for them."""
    make_model(store, "m:v1", FILES)
    make_model(store, "n:v1", FILES)
    wait_until_settled(store)
    use(store, "m:v1", "n:v1")
    to_version_1(index_path())
    before = rows()
    use(store, "m:v1")
    assert rows() == before
    shutil.rmtree(store / "n")
    clean(store)
    assert rows() == before // 2
    assert not list(index_path().parent.glob("*.damaged*"))


def to_version_1(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for table in ("checksums", "chunk_sizes", "archive_digests"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN store")
            connection.execute(f"ALTER TABLE {table} DROP COLUMN added")
        connection.execute("DROP TABLE stores")
        connection.execute("DROP TABLE archive_lengths")
        connection.execute("PRAGMA user_version=1")
        connection.execute("PRAGMA auto_vacuum=NONE")
        connection.execute("VACUUM")


def test_beside_processes_that_measure(store: Path) -> None:
    """Rows that come while the index is pruned stay, and neither side meets an error."""
    tags = [f"m:v{number}" for number in range(4)]
    for tag in tags:
        make_model(store, tag, FILES)
    wait_until_settled(store)
    use(store, *tags)
    for tag in tags[:2]:
        shutil.rmtree(store / "m" / tag.removeprefix("m:"))
    adding = threading.Thread(target=lambda: use(store, *tags[2:]))
    adding.start()
    while adding.is_alive():
        clean(store)
    adding.join()
    use(store, *tags[2:])
    before = rows()
    clean(store)
    assert rows() == before


def test_logs_and_damaged_databases_go_after_a_month() -> None:
    folder = state_folder()
    folder.mkdir(parents=True)
    index_path().parent.mkdir(parents=True)
    names = ["0123456789abcdef.log", "0123456789abcdef.log.1", "f" * 16 + ".log", "e" * 16 + ".log", "mine.log"]
    paths = [folder / name for name in names] + [index_path().with_name("index.sqlite.damaged")]
    for path in paths:
        path.write_bytes(b"x" * 5000)
        os.utime(path, (OLD, OLD))
    young, used = folder / ("e" * 16 + ".log"), folder / ("f" * 16 + ".log")
    os.utime(young, (time.time() - OLD_SECONDS + 60,) * 2)

    def remaining(*, dry_run: bool) -> list[Path]:
        list(Upkeep([], None, [used], dry_run=dry_run, gone=False).run())
        return [path for path in paths if path.exists()]

    assert remaining(dry_run=True) == paths
    assert remaining(dry_run=False) == [used, young, folder / "mine.log"]


_SESSION = """
import os, sys
from pathlib import Path
from bentofs.store.staging.area import StagingArea
session = StagingArea(sys.argv[1]).open_session()
staged = Path(session.new_staged_path())
staged.mkdir()
(staged / "w").write_bytes(b"w" * 100_000)
if sys.argv[2] == "upload":
    (Path(session.spool) / "m.zip").write_bytes(b"PK")
if sys.argv[2] == "intent":
    (Path(session.intents) / "1").write_bytes(b"")
print(session.path, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def session(store: Path, kind: str) -> Iterator[tuple[Path, object]]:
    with other_process(_SESSION, store, kind) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip()), process
        process.kill()


def test_staging_areas_keep_what_can_be_resumed(store: Path) -> None:
    dead = {}
    for kind in ("upload", "intent", "nothing"):
        with session(store, kind) as (path, _):
            # Sessions of processes that died later would take over these.
            path.rename(store.parent / kind)
        dead[kind] = path
    with session(store, "nothing") as (living, _):
        for kind, path in dead.items():
            (store.parent / kind).rename(path)
        line = clean(store, dry_run=True)[Kept.STAGING][0]
        assert line.left == line.size > line.stale >= 200_000
        assert all((path / "staged").exists() for path in dead.values())
        line = clean(store)[Kept.STAGING][0]
        assert "1 in use" in line.note
        assert (living / "staged" / "1" / "w").stat().st_size == 100_000
    assert not dead["nothing"].exists()
    assert (dead["upload"] / "spool" / "m.zip").read_bytes() == b"PK"
    assert not (dead["upload"] / "staged").exists()
    assert (dead["intent"] / "staged" / "1" / "w").exists()
    (dead["intent"] / "intents" / "1").unlink()
    with contextlib.closing(StagingArea(str(store)).open_session()) as next_one:
        assert os.listdir(next_one.spool) == ["m.zip"]
