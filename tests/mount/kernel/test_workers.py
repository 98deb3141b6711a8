"""Workers: more while all are stuck, fewer again later, and a bounded end."""

import queue
import threading
import time
from collections.abc import Callable

import pytest

from bentofs.mount.kernel.workers import Workers
from tests.harness import wait_until

Task = Callable[[], int] | None


class Server:
    """A server with requests from a queue, like libfuse's from the device. None means that the mount has gone."""

    def __init__(self) -> None:
        self.requests: queue.Queue[Task] = queue.Queue()
        self.answers: list[int] = []
        self.workers = Workers(2)
        self.workers.start(self.serve, lambda: self.serve_one, lambda: not self.requests.empty())

    def serve(self) -> None:
        while self.serve_one():
            pass

    def serve_one(self) -> bool:
        task = self.requests.get()
        if task is None:
            self.requests.put(None)
            return False
        self.answers.append(self.workers.guard("read", task, lambda *_: -1)())
        return True

    def end(self) -> None:
        self.requests.put(None)
        assert self.workers.await_end(10)


def test_stuck_tasks_stop_nobody() -> None:
    server = Server()
    gate = threading.Event()

    def stuck() -> int:
        assert gate.wait(30)
        return 1

    for _ in range(50):
        server.requests.put(stuck)
    server.requests.put(lambda: 2)
    wait_until(lambda: 2 in server.answers, 10, "the quick one is served")
    assert 1 not in server.answers
    assert len(server.workers._workers) > 50
    gate.set()
    wait_until(lambda: server.answers.count(1) == 50, 10, "all are served")

    def one_more() -> bool:
        server.requests.put(lambda: 3)
        return len(server.workers._workers) < 10

    wait_until(one_more, 10, "the extra workers go", interval=0.001)
    server.end()


@pytest.mark.expect_log("all 2 workers are busy, and no more can begin: can't start new thread")
def test_threads_that_cannot_be_started_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed thread starts are tried again, and existing workers go on. A container may limit the number of threads."""
    server = Server()
    gate = threading.Event()
    refused: list[str] = []
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name == "extra-worker" and len(refused) < 5:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    for _ in range(2):
        server.requests.put(lambda: int(gate.wait(30)))
    server.requests.put(lambda: 2)
    wait_until(lambda: 2 in server.answers, 10, "the quick one is served")
    assert len(refused) == 5
    gate.set()
    server.end()


def test_errors_are_answered_and_serving_goes_on() -> None:
    server = Server()

    def fail() -> int:
        raise KeyError("x")

    server.requests.put(fail)
    server.requests.put(lambda: 5)
    wait_until(lambda: len(server.answers) == 2, 10, "both are answered")
    assert sorted(server.answers) == [-1, 5]
    server.end()


def test_no_waiting_for_what_will_not_come() -> None:
    """The device may stay open because a program holds a file open: no request runs, and none ends."""
    server = Server()
    begun = time.monotonic()
    assert not server.workers.await_end(10)
    assert time.monotonic() - begun < 5
    server.end()


def test_what_is_under_way_gets_its_grace() -> None:
    server = Server()
    gate = threading.Event()
    server.requests.put(lambda: int(gate.wait(30)))
    wait_until(lambda: any(worker.busy_since for worker in server.workers._workers), 5, "begun")
    begun = time.monotonic()
    assert not server.workers.await_end(1.0)
    assert 0.9 < time.monotonic() - begun < 10
    gate.set()
    server.end()


def test_the_end_is_told() -> None:
    server = Server()
    told = threading.Event()
    server.workers.on_end(told.set)
    assert not told.is_set()
    server.end()
    assert told.wait(10)
    assert server.workers.have_ended()
