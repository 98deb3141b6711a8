"""A pytest plugin: a test fails when anything at WARNING or above was logged that it did not expect.

It checks the log of this process. `tests.harness.Mounted` checks the log of a daemon under test by the same rule. A
test expects records with the marker `@pytest.mark.expect_log("regex")` or with the fixture `expect_log("regex")`. An
expectation without a record fails the test as well, else it would become outdated unseen.
"""

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import pytest

from tests.expectations import Expectation, complaints


@dataclass
class _Collector(logging.Handler):
    lines: list[str] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    # A dataclass compares by value and so has no hash. logging keeps its handlers in a set of weak references, which
    # needs one.
    __hash__ = logging.Handler.__hash__


_collector = pytest.StashKey[_Collector]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "expect_log(regex): the test logs a record at WARNING or above that fits")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    collector = _Collector()
    collector.expectations.extend(Expectation(str(mark.args[0])) for mark in item.iter_markers("expect_log"))
    item.stash[_collector] = collector
    root = logging.getLogger()
    root.addHandler(collector)
    try:
        return (yield)
    finally:
        root.removeHandler(collector)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    result = yield  # after the fixtures' own teardown, which may log too
    found = complaints(item.stash[_collector].lines, item.stash[_collector].expectations)
    if found:
        pytest.fail("\n".join(found), pytrace=False)
    return result


@pytest.fixture
def expect_log(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give a function to call with a regex: the test then logs, in this process, one or more records that match it."""
    collector: _Collector = request.node.stash[_collector]

    def expect(pattern: str, times: int | None = None) -> None:
        collector.expectations.append(Expectation(pattern, times))

    return expect
