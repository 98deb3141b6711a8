"""The service manager is told how the daemon fares. A small socket takes its place."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.mount.daemon.notify import ServiceManager
from tests.harness import Mounted, make_model


def listening(address: str) -> socket.socket:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(60)
    manager.bind(address)
    return manager


def test_ready_and_stopping(store: Path, tmp_path: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"w": b"w"})
    with listening(str(tmp_path / "notify")) as manager:
        mount = mounted(store, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(4096).decode().split("\n") == [
            "READY=1",
            f"MAINPID={mount.pid}",
            f"STATUS={store} is mounted at {mount.path}",
        ]
        mount.stop()
        assert manager.recv(4096).decode() == f"STOPPING=1\nSTATUS={mount.path} is being unmounted"


def test_an_abstract_socket_and_a_hostile_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break in a path tells nothing of its own."""
    with listening("\0bentofs-test-notify") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", "@bentofs-test-notify")
        ServiceManager().stopping("a\nFDSTORE=1 \udcff")
        assert manager.recv(4096).decode() == "STOPPING=1\nSTATUS=a FDSTORE=1 ?"
        ServiceManager().ready("the address was taken out of the environment")
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_a_service_manager_that_has_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    ServiceManager().ready("nobody reads this")
