"""The nodes that the kernel knows: one per generation, counted, bounded."""

import stat

import pytest

from bentofs.mount.kernel.native.node_table import NodeTable
from bentofs.mount.kernel.operations import Look
from bentofs.mount.view.nodes import Attributes
from bentofs.store.errors import SourceChangedError
from bentofs.store.util.memory_budget import MemoryBudget

FILE = Attributes(stat.S_IFREG | 0o644, 7, 1, 10, 0, 0)
FOLDER = Attributes(stat.S_IFDIR | 0o755, 8, 2, 0, 0, 0)


def test_a_generation_has_a_node_of_its_own() -> None:
    nodes = NodeTable()
    old = nodes.tell("/m.tar", Look(FILE, "old"))
    assert nodes.tell("/m.tar", Look(FILE, "old")) is old
    new = nodes.tell("/m.tar", Look(FILE, "new"))
    assert new.id != old.id
    assert nodes.get(old.id) is old  # its readers go on
    nodes.forget([(old.id, 2)])
    assert nodes.tell("/m.tar", Look(FILE, "new")) is new


def test_a_file_that_becomes_a_folder_gets_another_node() -> None:
    nodes = NodeTable()
    assert nodes.tell("/x", Look(FILE)).id != nodes.tell("/x", Look(FOLDER)).id


def test_forgotten_when_every_lookup_was_given_back() -> None:
    nodes = NodeTable()
    node = nodes.tell("/m.tar", Look(FILE, 1))
    nodes.tell("/m.tar", Look(FILE, 1))
    nodes.forget([(node.id, 1), (12345, 1)])
    assert nodes.get(node.id) is node
    nodes.forget([(node.id, 1), (1, 99)])
    with pytest.raises(SourceChangedError):
        nodes.get(node.id)
    assert len(nodes) == 1  # the root
    assert nodes.tell("/m.tar", Look(FILE, 1)).id != node.id  # numbers are never used again


def test_a_renamed_folder_takes_along_what_lies_below() -> None:
    nodes = NodeTable()
    folder = nodes.tell("/incoming/a", Look(FOLDER))
    file = nodes.tell("/incoming/a/x", Look(FILE))
    beside = nodes.tell("/incoming/ab", Look(FILE))
    replaced = nodes.tell("/incoming/b", Look(FOLDER))
    nodes.rename("/incoming/a", "/incoming/b")
    assert (folder.path, file.path, beside.path) == ("/incoming/b", "/incoming/b/x", "/incoming/ab")
    assert replaced.is_gone
    assert nodes.tell("/incoming/b/x", Look(FILE)) is file


def test_files_are_bounded_and_open_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentofs.mount.kernel.native.node_table._FILES_KEPT", 100)
    nodes = NodeTable()
    folder = nodes.tell("/models", Look(FOLDER))
    for number in range(300):  # directories are never dropped: a process may have one as its own
        nodes.tell(f"/models/folder-{number}", Look(FOLDER))
    held = nodes.tell("/held", Look(FILE, 1))
    nodes.opened(held, 5)
    for number in range(1000):
        nodes.tell(f"/models/{number}", Look(FILE, number))
    assert len(nodes) <= 403
    assert nodes.get(held.id) is held
    assert nodes.get(folder.id) is folder
    nodes.released(held.id, 5)
    assert not held.handles


def test_most_files_are_dropped_when_decoders_need_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentofs.mount.kernel.native.node_table._FILES_LEFT", 10)
    budget = MemoryBudget(10 << 20)
    nodes = NodeTable(budget)
    held = nodes.tell("/held", Look(FILE, 1))
    nodes.opened(held, 5)
    for number in range(1000):
        nodes.tell(f"/models/{number}", Look(FILE, number))
    budget.reserve(5 << 20)
    assert len(nodes) == 1002
    budget.reserve(6 << 20)
    assert len(nodes) == 11
    assert nodes.get(held.id) is held


def test_open_files_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay, and looking for others to drop costs little."""
    monkeypatch.setattr("bentofs.mount.kernel.native.node_table._FILES_KEPT", 100)
    nodes = NodeTable()
    opened = [nodes.tell(f"/{number}", Look(FILE, number)) for number in range(90)]
    for node in opened:
        nodes.opened(node, node.id)
    for number in range(10_000):
        nodes.tell(f"/others/{number}", Look(FILE, number))
    assert all(nodes.get(node.id) is node for node in opened)
    assert len(nodes) <= 90 + 100 + 1
