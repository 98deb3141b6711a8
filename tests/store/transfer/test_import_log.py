"""ImportLog: kept, shared, bounded, and when broken, only a lost record."""

import datetime
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.transfer import import_log as module
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.receipt import ReceiptState
from tests.store.at_once import in_processes, in_threads
from tests.store.damages import another_version, garbage
from tests.store.staged import in_a_namespace_of_its_own
from tests.store.users import an_ordinary_user, folder_of_an_ordinary_user

ExpectLog = Callable[..., None]

IMPORTED, REFUSED = ReceiptState.IMPORTED, ReceiptState.REFUSED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "area" / "receipts.sqlite"


def _import(receipts: ImportLog, name: str, state: ReceiptState = IMPORTED, **said: object) -> int:
    number = receipts.begin("session", name, 1000)
    receipts.finish(number, state, **said)  # type: ignore[arg-type]
    return number


def _works(receipts: ImportLog) -> None:
    """Check all uses of a record whose past is unknown."""
    number = _import(receipts, "iris.zip", size=9, mtime_ns=7, tag="iris:v1", creation_time="2026")
    answer = receipts.answer("iris.zip", None)
    assert answer is not None
    assert (answer.id, answer.size, answer.mtime_ns, answer.tag, answer.creation_time) == (
        number,
        9,
        7,
        "iris:v1",
        "2026",
    )
    assert receipts.recent(1) == [answer]


def test_the_course_of_an_import(path: Path) -> None:
    receipts = ImportLog(path)
    before = datetime.datetime.now(datetime.timezone.utc)
    number = receipts.begin("session", "a/ümläut.zip", 4_000_000_000)
    (receipt,) = receipts.recent()
    assert (receipt.id, receipt.path, receipt.uid, receipt.state) == (
        number,
        "a/ümläut.zip",
        4_000_000_000,
        ReceiptState.RECEIVING,
    )
    assert (receipt.received, receipt.size, receipt.mtime_ns, receipt.ended) == (0, None, None, None)
    receipts.progress(number, 1 << 40)
    assert receipts.recent()[0].received == 1 << 40
    receipts.importing(number, 1 << 41, size=1 << 41)
    assert receipts.recent()[0].state is ReceiptState.IMPORTING
    assert receipts.answer("a/ümläut.zip", None) is None
    receipts.finish(number, IMPORTED, tag="iris:v1", creation_time="2026", sha256="a" * 64)
    receipts.progress(number, 3)  # too late
    receipts.close()

    again = ImportLog(path)
    receipt = again.recent()[0]
    assert again.answer("a/ümläut.zip", None) == receipt
    assert (receipt.state, receipt.size, receipt.received, receipt.tag) == (IMPORTED, 1 << 41, 1 << 41, "iris:v1")
    assert (receipt.creation_time, receipt.sha256, receipt.error, receipt.errno) == ("2026", "a" * 64, None, None)
    assert receipt.ended is not None
    assert before <= receipt.started <= receipt.ended <= datetime.datetime.now(datetime.timezone.utc)
    again.close()


def test_a_refusal_that_was_not_final(path: Path) -> None:
    receipts = ImportLog(path)
    number = receipts.begin("s", "m.zip", 0)
    receipts.finish(number, ReceiptState.REFUSED, error="cut short", errno="EBADMSG")
    assert receipts.resume(number)
    (receipt,) = receipts.recent()
    assert (receipt.state, receipt.ended, receipt.error, receipt.errno) == (ReceiptState.RECEIVING, None, None, None)
    receipts.finish(number, ReceiptState.IMPORTED, tag="m:v1")
    (receipt,) = receipts.recent()
    assert (receipt.state, receipt.error) == (ReceiptState.IMPORTED, None)
    assert not receipts.resume(number + 1)
    receipts.close()


def test_the_newest_success_answers_until_it_is_forgotten(path: Path) -> None:
    receipts = ImportLog(path)
    _import(receipts, "iris.zip", mtime_ns=1, tag="iris:v1")
    second = _import(receipts, "iris.zip", ReceiptState.REPLACED, mtime_ns=2, tag="iris:v1")
    _import(receipts, "iris.zip", REFUSED, error="damaged", errno="EBADMSG")
    _import(receipts, "other.zip", ReceiptState.UNCHANGED, tag="iris:v2")
    answer = receipts.answer("iris.zip", None)
    assert answer is not None
    assert (answer.id, answer.mtime_ns) == (second, 2)
    assert (receipts.recent()[1].error, receipts.recent()[1].errno) == ("damaged", "EBADMSG")
    receipts.set_mtime("iris.zip", 1000, 10**20)
    answer = receipts.answer("iris.zip", None)
    assert answer is not None
    assert answer.mtime_ns == 10**20
    receipts.forget("iris.zip", 1000)
    assert receipts.answer("iris.zip", None) is None
    assert receipts.answer("other.zip", None) is not None
    assert len(receipts.recent()) == 4, "the outcomes stay"
    receipts.close()


def test_an_upload_that_was_renamed_answers_for_its_last_name(path: Path) -> None:
    receipts = ImportLog(path)
    _import(receipts, ".iris.zip.Ab3dEf", path="iris.zip", tag="iris:v1")
    assert receipts.answer(".iris.zip.Ab3dEf", None) is None
    assert receipts.answer("iris.zip", None) is not None
    receipts.close()


def test_following(path: Path) -> None:
    receipts = ImportLog(path)
    other = ImportLog(path)
    first, second = (receipts.begin("session", name, 0) for name in "ab")
    seen = receipts.since(0)
    assert [receipt.id for receipt in seen] == [first, second]
    assert receipts.since(seen[-1].change) == []
    other.progress(first, 10)
    (changed,) = receipts.since(seen[-1].change)
    assert (changed.id, changed.received) == (first, 10)
    other.finish(second, REFUSED, error="no")
    (ended,) = receipts.since(changed.change)
    assert (ended.id, ended.state) == (second, REFUSED)
    assert [receipt.id for receipt in receipts.since(0, limit=1)] == [first]
    receipts.close()
    other.close()


def test_imports_of_dead_sessions_are_interrupted(path: Path) -> None:
    receipts = ImportLog(path)
    dead = [receipts.begin("dead", f"{number}.zip", 0) for number in range(3)]
    living = receipts.begin("living", "living.zip", 0)
    done = _import(receipts, "done.zip")
    receipts.importing(dead[1], 7, path="other.zip", size=7)
    found = receipts.of_dead(lambda session: session == "living")
    assert [(session, receipt.id, receipt.path, receipt.state, receipt.size) for session, receipt in found] == [
        ("dead", dead[0], "0.zip", ReceiptState.RECEIVING, None),
        ("dead", dead[1], "other.zip", ReceiptState.IMPORTING, 7),
        ("dead", dead[2], "2.zip", ReceiptState.RECEIVING, None),
    ]
    change = max(receipt.change for receipt in receipts.recent())
    for _, receipt in found:
        receipts.interrupt(receipt.id)
    receipts.interrupt(done)
    states = {receipt.id: receipt.state for receipt in receipts.recent()}
    assert states == {
        **dict.fromkeys(dead, ReceiptState.INTERRUPTED),
        living: ReceiptState.RECEIVING,
        done: IMPORTED,
    }
    assert len({receipt.change for receipt in receipts.since(change)}) == 3
    assert receipts.of_dead(lambda session: session == "living") == []
    receipts.close()


_paths = st.text(st.characters(exclude_characters="\0", categories=None, exclude_categories=["Cs"]), min_size=1).map(
    lambda text: os.fsdecode(text.encode() + b"\xff")
)


def test_any_name_and_time_and_sentence(path: Path) -> None:
    receipts = ImportLog(path)

    @given(_paths, st.integers(-(2**70), 2**70), st.text() | st.just("\udcff"))
    def kept(name: str, mtime_ns: int, sentence: str) -> None:
        _import(receipts, name, mtime_ns=mtime_ns, error=sentence)
        answer = receipts.answer(name, None)
        assert answer is not None
        assert (answer.path, answer.mtime_ns) == (name, mtime_ns)
        assert answer.error == (sentence if sentence.isascii() else answer.error)

    kept()
    receipts.close()


def test_it_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ENDED_KEPT", 10), ("ANSWERING_KEPT", 20), ("_PRUNE_EVERY", 5)):
        monkeypatch.setattr(module, name, value)
    receipts = ImportLog(path)
    running = receipts.begin("session", "running.zip", 0)
    for number in range(100):
        _import(receipts, f"{number}.zip")
        _import(receipts, f"{number}.zip", REFUSED)
    found = receipts.recent(1000)
    assert len(found) <= 10 + 20 + 5 + 1
    assert running in {receipt.id for receipt in found}
    assert [number for number in range(100) if receipts.answer(f"{number}.zip", None)] == list(range(80, 100))
    assert {receipt.path for receipt in found if receipt.state is REFUSED} >= {f"{number}.zip" for number in (98, 99)}
    receipts.close()


def test_ten_thousand_are_kept_and_stay_fast(path: Path) -> None:
    receipts = ImportLog(path)
    receipts.close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<11000) INSERT INTO receipts "
            "(change, session, path, uid, state, received, started, ended) "
            "SELECT i, 's', CAST(i AS BLOB), 0, 'refused', 0, '2026-01-01T00:00:00+00:00', '2026-01-01' FROM n"
        )
    receipts = ImportLog(path)
    for _ in range(256):
        _import(receipts, "iris.zip")
    assert 10_000 <= len(receipts.recent(100_000)) <= 10_001
    receipts.close()


def _other_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE receipts; CREATE TABLE receipts (id, change, answers, path, ended)")


@pytest.mark.parametrize("damage", [garbage, another_version, _other_tables])
def test_damage_costs_only_the_record_and_is_told_once(
    path: Path, damage: Callable[[Path], None], expect_log: ExpectLog
) -> None:
    receipts = ImportLog(path)
    _works(receipts)
    receipts.close()
    damage(path)
    expect_log(r"the record of imports .*receipts\.sqlite", 1)
    receipts = ImportLog(path)
    _works(receipts)
    receipts.close()
    receipts = ImportLog(path)
    assert receipts.answer("iris.zip", None) is not None, "a new one is kept in its place"
    receipts.close()


@pytest.mark.parametrize("column", ["state='nonsense'", "started='never'", "received='much'", "path=7"])
def test_rows_that_bentofs_did_not_write_are_left_out(path: Path, column: str, expect_log: ExpectLog) -> None:
    receipts = ImportLog(path)
    _import(receipts, "a.zip")
    _import(receipts, "b.zip")
    with sqlite3.connect(path) as other:
        other.execute(f"UPDATE receipts SET {column} WHERE id=1")
    expect_log("receipt 1 in the record of imports is malformed", 1)
    assert [receipt.path for receipt in receipts.recent()] == ["b.zip"]
    receipts.close()


def test_a_folder_that_may_not_be_written(expect_log: ExpectLog) -> None:
    expect_log("no record of imports is kept", 1)
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        folder.chmod(0o500)
        receipts = ImportLog(folder / "area" / "receipts.sqlite")
        _works(receipts)
        receipts.close()
        assert os.listdir(folder) == []


def test_a_full_disk(tmp_path: Path) -> None:
    script = """
import logging, subprocess, sys
from pathlib import Path
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.receipt import ReceiptState
base = Path(sys.argv[1])
said = []
class Collect(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger().addHandler(Collect(logging.WARNING))
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", base], check=True)
receipts = ImportLog(base / "receipts.sqlite")
receipts.finish(receipts.begin("session", "first", 0), ReceiptState.IMPORTED)
with open(base / "filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
for number in range(100):
    if not receipts.begin("session", "x" * 1000, 0):
        break
assert not receipts.begin("session", "not kept", 0)
assert len(said) == 1 and "cannot be written" in said[0], said
assert receipts.answer("first", None)
(base / "filler").unlink()
receipts.finish(receipts.begin("session", "kept again", 0), ReceiptState.IMPORTED)
assert receipts.answer("kept again", None)
"""
    in_a_namespace_of_its_own(script, tmp_path)


_WORKER = """
import logging, sys, time
from pathlib import Path
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.receipt import ReceiptState
logging.basicConfig(format="%(levelname)s %(message)s")
path, name, start = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(max(0, start - time.time()))  # all workers begin at once
receipts = ImportLog(path)
for count in range(40):
    receipt = receipts.begin(name, f"{name}/{count}", 0)
    receipts.progress(receipt, count)
    receipts.finish(receipt, ReceiptState.IMPORTED, size=count)
receipts.close()
"""


def test_several_processes_at_once(path: Path) -> None:
    in_processes(_WORKER, path, 4)
    receipts = ImportLog(path)
    found = receipts.recent(1000)
    assert len({receipt.change for receipt in found}) == len(found) == 160
    answers = [receipts.answer(f"{number}/{count}", None) for number in range(4) for count in range(40)]
    assert [answer and answer.size for answer in answers] == [*range(40)] * 4
    receipts.close()


def test_a_process_that_holds_it_too_long_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.1)
    receipts = ImportLog(path)
    _works(receipts)
    expect_log(r"the record of imports .* is in use")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        number = receipts.begin("session", "b.zip", 0)
        receipts.finish(number, IMPORTED)
        assert receipts.answer("iris.zip", None) is not None
        other.execute("ROLLBACK")
    _works(receipts)
    receipts.close()


def test_from_several_threads(path: Path) -> None:
    receipts = ImportLog(path)

    def work(name: str) -> None:
        for number in range(50):
            _import(receipts, f"{name}/{number}", size=number)
            answer = receipts.answer(f"{name}/{number}", None)
            assert answer is not None
            assert answer.size == number

    in_threads(work, "abcd")
    assert len(receipts.recent(1000)) == 200
    receipts.close()
