"""Buffers of requests stay in memory, but not while decoders need it."""

from bentofs.mount.kernel.native.request_buffers import Buffers
from bentofs.store.util.memory_budget import MemoryBudget

_SIZE = 1 << 20


def test_rooms_stay_unless_memory_is_short() -> None:
    budget = MemoryBudget(10 << 20)
    buffers = Buffers(_SIZE, _SIZE, budget)
    room = buffers.take_room()
    buffers.give_back(room)
    assert buffers.take_room() is room
    buffers.give_back(room)
    budget.reserve(11 << 20)
    assert buffers.take_room() is not room  # it was freed
    buffers.give_back(room)
    assert buffers.take_room() is not room
    budget.reserve(-11 << 20)
    buffers.give_back(room)
    assert buffers.take_room() is room


def test_requests_stay_unless_memory_is_short() -> None:
    budget = MemoryBudget(10 << 20)
    request = Buffers(_SIZE, _SIZE, budget).for_requests()

    def last_after_a_use() -> int:
        request.view[-1] = 7
        request.was_used(_SIZE)
        return request.view[-1]

    assert last_after_a_use() == 7
    budget.reserve(11 << 20)
    assert last_after_a_use() == 0
    budget.reserve(-11 << 20)
    assert last_after_a_use() == 7
