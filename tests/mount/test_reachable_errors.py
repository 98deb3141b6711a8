"""Each row of the two tables of errors, by something that really happens (`bentofs.mount.errors`)."""

import errno
import http.server
import io
import os
import pwd
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from bentofs.mount import errors as tables
from bentofs.mount.cli.main import cli
from bentofs.mount.errors import errno_of, exit_status_of
from bentofs.store import api, errors
from bentofs.store.location import Location
from bentofs.store.staging.area import staging_area
from bentofs.store.staging.limits import Limits
from bentofs.store.storage.open import StoreSpec
from bentofs.store.wiring.transfers import opened_fetcher
from tests.harness import ROOT, Mounted, home_of, make_model
from tests.mount.test_errors import STATUSES, TABLE
from tests.store.users import NOBODY


class Place(NamedTuple):
    """A home whose store has the model m:v1."""

    base: Path
    store: Path
    archive: Path  # of m:v1

    def model(self, tag: str, content: bytes = b"x") -> str:
        """Make an archive of a model with this tag. Return its path."""
        other = self.base / "other"
        make_model(other, tag, {"w": content})
        return api.export_model(tag, f"{self.base}/{tag.replace(':', '-')}-{len(content)}.tar", store=str(other))

    def tar(self, *names: str) -> str:
        """Make a tar of a model.yaml and empty files."""
        path = self.base / "made.tar"
        with tarfile.open(path, "w") as made:
            text = (self.store / "m/v1/model.yaml").read_bytes()
            info = tarfile.TarInfo("model.yaml")
            info.size = len(text)
            made.addfile(info, io.BytesIO(text))
            for name in names:
                made.addfile(tarfile.TarInfo(name))
        return str(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in home_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    store = tmp_path / "bentoml/models"
    make_model(store, "m:v1", {"w": os.urandom(200_000)})
    return Place(tmp_path, store, Path(api.export_model("m:v1", f"{tmp_path}/m.tar")))


def _changed_under_a_reader(place: Place) -> None:
    with api.Store() as store, store.open("m:v1", "tar") as archive:
        (place.store / "m/v1/w").write_bytes(b"y" * 200_000)
        archive.read()


def _malformed(place: Place) -> None:
    (make_model(place.store, "bad:v1", {}) / "model.yaml").write_text("- no mapping\n")
    with api.Store() as store:
        store.get("bad:v1")


def _altered(place: Place) -> None:
    cli.main(["verify"], standalone_mode=False)
    path = place.store / "m/v1/w"
    before = path.stat()
    path.write_bytes(b"y" * 200_000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    cli.main(["verify"], standalone_mode=False)


def _record_of_another_user(place: Place) -> None:
    area = place.base / "bentoml/.models.bentofs"
    area.mkdir()
    (area / "receipts.sqlite").touch()
    if os.geteuid() == 0:
        os.chown(area, NOBODY, NOBODY)
    else:
        area.chmod(0o500)
    cli.main(["imports"], standalone_mode=False)


def _store_unwritable(place: Place) -> None:
    (place.base / "file").touch()
    api.export_model("m:v1", f"{place.base}/file/m.tar")


def _other_file_system(place: Place) -> None:
    # Nothing may be left in a directory that was refused.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as staging:
        try:
            with opened_fetcher(str(place.store), staging=staging):
                pass
        finally:
            assert os.listdir(staging) == []


def _no_home(place: Place) -> None:
    def unknown(_uid: int) -> None:
        raise KeyError

    with pytest.MonkeyPatch.context() as patch:
        for name in home_of(place.base):
            patch.delenv(name, raising=False)
        patch.setattr(pwd, "getpwuid", unknown)
        staging_area("s3://bucket/models", None, None)


def _cut(place: Place) -> None:
    place.archive.write_bytes(place.archive.read_bytes()[:100_000])
    api.import_model(str(place.archive))


def _target_exists(place: Place) -> None:
    (place.base / "target/m-v1").mkdir(parents=True)
    (place.base / "target/m-v1/file").touch()
    api.export_model("m:v1", f"{place.base}/target/", "folder")


def _too_many_files(place: Place) -> None:
    with opened_fetcher(None, limits=Limits(members=1)) as fetcher:
        fetcher.fetch(Location.parse(str(place.archive)), lambda _count: None)


def _given_up(place: Place) -> None:
    stop = threading.Event()
    stop.set()
    with opened_fetcher(None, stops=[stop]) as fetcher:
        fetcher.fetch(Location.parse(place.model("n:v1")), lambda _count: None)


@contextmanager
def _web_server(status: int) -> Iterator[str]:
    """Run a server that answers every request with a status. Yield a URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_HEAD = do_GET  # noqa: N815 - of http.server

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/m.tar"
        finally:
            server.shutdown()


def _denied(_place: Place) -> None:
    with _web_server(403) as url:
        api.import_model(url)


SCENARIOS: dict[type[errors.StoreError], Callable[[Place], object]] = {
    errors.NotFoundError: lambda _place: api.export_model("no:v1", "x.tar"),
    errors.BadTagError: lambda _place: api.export_model("Not A Tag", "x.tar"),
    errors.BadLocationError: lambda _place: api.export_model("m:v1", "nope://host/x.tar"),
    errors.BadModelError: _malformed,
    errors.SourceChangedError: _changed_under_a_reader,
    errors.RemoteDeniedError: _denied,
    errors.StoreUnreadableError: _record_of_another_user,
    errors.StoreUnwritableError: _store_unwritable,
    errors.StagingError: _other_file_system,
    errors.NoHomeError: _no_home,
    errors.AlteredModelError: _altered,
    errors.DamagedArchiveError: _cut,
    errors.ModelExistsError: lambda place: api.import_model(place.model("m:v1")),
    errors.TargetExistsError: _target_exists,
    errors.TooBigError: _too_many_files,
    errors.NoSpaceError: lambda _place: api.export_model("m:v1", "/dev/full", "tar"),
    errors.CancelledError: _given_up,
    errors.MissingStoreError: lambda _place: api.Store("memory://nowhere/models").list(),
    errors.RemoteError: lambda _place: StoreSpec.named("ftp://127.0.0.1:1/models", patience=1.0).open(),
    errors.UnsafeMemberError: lambda place: api.import_model(place.tar("../above")),
    errors.NotAModelError: lambda place: api.import_model(str(place.store / "m/v1/w")),
}
_LOGGED = {
    errors.BadModelError: ["bad:v1 is left out"],
    errors.StoreUnreadableError: ["no record of imports is kept"],
}
# Rows that only uploads into a mount reach.
IN_A_MOUNT = {errors.InUseError: "mount/incoming/test_concurrent.py::test_two_who_write_to_one_file_are_told_why"}


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.__name__)
def test_it_happens(
    kind: type[errors.StoreError],
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    if TABLE[kind] in (errno.EIO, errno.EACCES):
        expect_log("errors: read: ")
    for sentence in _LOGGED.get(kind, ()):
        expect_log(sentence)
    monkeypatch.chdir(place.base)
    with pytest.raises(errors.StoreError) as raised:
        SCENARIOS[kind](place)
    assert isinstance(raised.value, kind)
    assert exit_status_of(raised.value) == STATUSES[kind]
    assert errno_of(raised.value, "read") == TABLE[kind]
    sentence = str(raised.value)
    assert sentence
    assert not sentence.endswith(".")
    assert "\n" not in sentence


def test_every_row_has_a_scenario() -> None:
    rows = {kind for kind, _ in tables._ERRNOS} | {kind for kind, _ in tables._EXIT_STATUSES}
    assert rows <= SCENARIOS.keys() | IN_A_MOUNT.keys()
    for test in IN_A_MOUNT.values():
        file, _, name = test.partition("::")
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text()


def test_a_model_that_cannot_be_shown(store: Path, mounted: Callable[..., Mounted]) -> None:
    """A lookup that reads it is told why. Once it is left out of its directory, it is not there."""
    mount = mounted(store)
    mount.expect_log("bad:v1 is left out")
    make_model(store, "bad:v0", {})
    (make_model(store, "bad:v1", {"w": b"x"}) / "model.yaml").write_text("- no mapping\n")
    numbers = set()
    for name in ("v1", "v1/bad-v1.tar", "v1", "v9"):
        with pytest.raises(OSError, match=name) as raised:
            os.stat(mount.path / "models/bad" / name)
        numbers.add(raised.value.errno)
    assert numbers == {errno.EINVAL, errno.ENOENT}
