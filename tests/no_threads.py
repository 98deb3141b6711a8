"""A pytest plugin: lets no more threads begin for a while, as a container or a user's limit does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

NoThreads = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def no_threads() -> NoThreads:
    @contextmanager
    def none() -> Iterator[None]:
        def fail(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            yield

    return none
