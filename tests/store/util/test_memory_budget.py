"""One budget for all caches: each counts its memory, and gives way to decoders."""

import sys
from concurrent.futures import ThreadPoolExecutor

from bentofs.store.util.budgeted_cache import BudgetedCache
from bentofs.store.util.memory_budget import MemoryBudget


def test_the_last_used_stay() -> None:
    cache: BudgetedCache[int, str] = BudgetedCache(MemoryBudget(), 1000)
    for number in range(10):
        cache.put(number, f"{number}", 100)
    assert cache.get(0) == "0"
    cache.put(10, "10", 150)
    assert [number for number in range(11) if cache.get(number) is not None] == [0, 3, 4, 5, 6, 7, 8, 9, 10]
    assert cache.size == 950


def test_a_value_put_again_counts_once() -> None:
    cache: BudgetedCache[int, str] = BudgetedCache(MemoryBudget(), 1000)
    for weight in (100, 300, 200):
        cache.put(1, "one", weight)
        assert cache.size == weight
    assert cache.put_first(1, "other", 100) == "one"
    cache.drop(1)
    assert (cache.size, cache.get(1)) == (0, None)


def test_one_that_is_too_large_is_kept_while_it_is_used() -> None:
    cache: BudgetedCache[int, str] = BudgetedCache(MemoryBudget(), 1000)
    cache.put(1, "small", 100)
    cache.put(2, "huge", 5000)
    assert (cache.get(1), cache.get(2)) == (None, "huge")
    cache.put(3, "small", 100)
    assert (cache.get(2), cache.get(3)) == (None, "small")


def test_all_give_way_to_decoders_each_by_its_share() -> None:
    trimmed: list[int] = []
    budget = MemoryBudget(1000, lambda: trimmed.append(1))
    large, small = BudgetedCache[int, str](budget, 600), BudgetedCache[int, str](budget, 200)
    for number in range(60):
        large.put(number, "", 10)
        small.put(number, "", 10)
    assert (large.size, small.size) == (600, 200)
    budget.reserve(200)
    assert (large.size, small.size, trimmed) == (600, 200, [])
    budget.reserve(400)
    assert (large.size, small.size, trimmed) == (300, 100, [1])
    budget.reserve(4400)
    assert (large.size, small.size) == (0, 0)
    small.put(1, "", 10)
    assert small.get(1) is None
    budget.reserve(-5000)
    small.put(1, "", 10)
    assert small.get(1) is not None


def test_a_cache_that_is_gone_has_no_share() -> None:
    budget = MemoryBudget(1000)
    gone = BudgetedCache[int, str](budget, 600)
    gone.put(1, "", 600)
    del gone
    cache = BudgetedCache[int, str](budget, 600)
    budget.reserve(400)
    cache.put(1, "", 300)
    cache.put(2, "", 300)
    assert cache.size == 600


def test_reservations_of_many_threads_add_up() -> None:
    """Each thread ends with as much as it began with, whatever the order in which they come."""
    budget = MemoryBudget(1000)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def take_and_give_back(amount: int) -> None:
        for _ in range(2000):
            budget.reserve(amount)
            budget.reserve(-amount)

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(take_and_give_back, (100, 200, 300, 400)))
    finally:
        sys.setswitchinterval(interval)
    assert budget.usage().decoders == 0
