"""KeyedLock: one thread at a time for one key; others go on."""

import threading
import time

from bentofs.store.util.keyed_lock import KeyedLock
from tests.harness import wait_until


def test_one_thread_at_a_time_at_the_same_thing() -> None:
    turns, inside, most = KeyedLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(30):
            with turns.at("same"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)  # let another thread come in, if it can
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == 1


def test_who_is_at_another_thing_goes_on() -> None:
    turns, done = KeyedLock(), threading.Event()

    def work() -> None:
        with turns.at(2):
            done.set()

    with turns.at(1):
        threading.Thread(target=work, daemon=True).start()
        assert done.wait(10)


def test_a_turn_that_fails_is_given_on() -> None:
    turns, order = KeyedLock(), list[str]()

    def work() -> None:
        with turns.at("same"):
            order.append("next")

    waiting = threading.Thread(target=work, daemon=True)
    try:
        with turns.at("same"):
            waiting.start()
            wait_until(waiting.is_alive, 10, "another thread waits")
            order.append("first")
            raise ValueError
    except ValueError:
        waiting.join(10)
    assert order == ["first", "next"]
    assert not turns._turns
