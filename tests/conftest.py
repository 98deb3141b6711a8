"""Fixtures for every test: mounts that end with the test, and checks that a test leaves nothing behind."""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

# Failed asserts of helpers show their values, as those of tests do. This must come before their import.
pytest.register_assert_rewrite(
    *(f"tests.{name}" for name in ("harness", "serving", "incoming", "buckets", "interop", "mount", "store", "faults"))
)

from tests import fork_server, harness  # noqa: E402
from tests.harness import Mounted  # noqa: E402
from tests.interop import judge_server  # noqa: E402

pytest_plugins = ["tests.logcheck", "tests.no_threads", "tests.servers"]

# No deadline on a single example: the machine may be busy. scripts/bench measures the things that must be fast.
# BENTOFS_EXAMPLES=1000 is a campaign (scripts/test).
hypothesis.settings.register_profile(
    "bentofs", deadline=None, max_examples=int(os.environ.get("BENTOFS_EXAMPLES", "40"))
)
hypothesis.settings.load_profile("bentofs")


# Fixtures that start servers, and folders whose tests mount or start programs.
_SERVERS = {"seaweed", "bucket", "rclone", "ftp_server", "proxies"}
_MOUNTING = (
    "interop",
    "faults",
    "mount/kernel",
    "mount/view",
    "mount/incoming",
    "mount/daemon",
    "mount/cli",
    "mount/serve",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that take long or start servers (`.github/CONTRIBUTING.md`)."""
    for item in items:
        folder = item.path.parent.relative_to(harness.ROOT / "tests").as_posix()
        fixtures = set(getattr(item, "fixturenames", ()))
        if folder.startswith(_MOUNTING):
            item.add_marker(pytest.mark.slow)
        if fixtures & _SERVERS:
            item.add_marker(pytest.mark.network)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty model store."""
    folder = tmp_path / "bentoml" / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Mounted]]:
    """Mount a store for the length of the test: `mounted(store, **arguments of Mounted)`."""
    running: list[Mounted] = []

    def mount(store: Path, **arguments: object) -> Mounted:
        daemon = Mounted(store, tmp_path / f"mount-{len(running)}", **arguments)  # type: ignore[arg-type]
        running.append(daemon)
        daemon.start()
        return daemon

    yield mount
    complaints = [text for daemon in reversed(running) if (text := _stop(daemon))]
    assert not complaints, "\n".join(complaints)


def _stop(daemon: Mounted) -> str:
    """End a daemon that the test has not ended. Return its error, so that the others are ended too."""
    if not daemon.running:
        return ""
    try:
        daemon.stop()
    except AssertionError as error:
        return str(error)
    return ""


def pytest_runtest_setup() -> None:
    harness.renew_limits()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Check that no mount outlives its test, except mounts that a fixture of wider scope still holds."""
    result = yield
    base: Path = item.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    forgotten = harness.forgotten_mounts(base)
    if forgotten:
        pytest.fail(f"left mounted, and unmounted now: {', '.join(map(str, forgotten))}", pytrace=False)
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Check that no daemon goes on, also after an interrupted run."""
    judge_server.stop_servers()
    for daemon in harness.living():
        daemon.kill()
    fork_server.stop()
    harness.forgotten_mounts(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
