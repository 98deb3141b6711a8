"""Shared tools of the tests of `incoming/` with real tools: uploads with a known outcome, the check of the outcome, and
a web server to fetch from."""

import contextlib
import enum
import errno
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from bentofs.store.staging.area import StagingArea
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.receipt import Receipt
from tests.harness import ROOT, Mounted, home_of, make_model, run, wait_until

SIZE = 300_000  # bytes of an ordinary upload: several requests to the file system
_TAR_MODES = {".bentomodel": "w:xz", ".tar": "w", ".tar.gz": "w:gz", ".tar.bz2": "w:bz2"}

_numbers = itertools.count(1)


class Outcome(enum.Enum):
    """The expected outcome of an upload, and the error that a tool must get."""

    IMPORTED = 0
    TRUNCATED = errno.EBADMSG
    NO_ARCHIVE = errno.EINVAL
    TAKEN = errno.EEXIST  # the store has other content under the tag


@dataclass(frozen=True)
class Upload:
    """A file that a test sends into `incoming/`."""

    source: Path
    model: Path  # the folder in it
    tag: str
    outcome: Outcome

    @property
    def name(self) -> str:
        return self.source.name


def pack(model: Path, archive: Path) -> Path:
    """Make an archive of a model's folder, in the format of its name's suffix."""
    if archive.suffix == ".zip":
        shutil.make_archive(str(archive.with_suffix("")), "zip", model)
        return archive
    suffix = next(suffix for suffix in sorted(_TAR_MODES, key=len, reverse=True) if archive.name.endswith(suffix))
    fast = {".bentomodel": {"preset": 0}, ".tar.gz": {"compresslevel": 1}}.get(suffix, {})
    with tarfile.open(archive, _TAR_MODES[suffix], **fast) as tar:  # type: ignore[call-overload]
        for path in sorted(model.iterdir()):
            tar.add(path, path.name)
    return archive


def execute(*command: object, seconds: float = 60.0, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a tool with a time limit. The caller judges its exit code. Errors are in English."""
    return subprocess.run(
        [part if isinstance(part, bytes) else str(part) for part in command],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=seconds,
        check=False,
        **{"env": {**os.environ, "LC_ALL": "C.UTF-8"}, **options},
    )


def shell(script: str, *arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Do what `execute` does, for a script with the arguments $1, $2..."""
    return execute("bash", "-c", script, "bash", *arguments, **options)


class Drop:
    """A mount, and uploads for its `incoming/`, each with a name and a tag of its own."""

    def __init__(self, mount: Mounted, scratch: Path) -> None:
        self.mount = mount
        self.store = mount.store
        self._scratch = scratch

    @property
    def incoming(self) -> Path:
        return self.mount.path / "incoming"

    def folder(self) -> Path:
        """Return an empty folder outside of the mount."""
        folder = self._scratch / f"folder-{next(_numbers)}"
        folder.mkdir(parents=True)
        return folder

    def model(self, size: int = SIZE) -> tuple[str, Path]:
        """Make a model that the store does not have. Return its tag and its folder."""
        number = next(_numbers)
        tag = f"model{number}:v1"
        chance = random.Random(number)
        files: dict[str | bytes, bytes | int] = {
            "weights.bin": chance.randbytes(size),
            "text/notes.txt": b"some text\n" * 1000,
        }
        return tag, make_model(self._scratch / "models", tag, files)

    def take(self, tag: str) -> None:
        """Put other content into the store under a tag."""
        make_model(self.store, tag, {"other.bin": b"not what the upload holds"})

    def upload(self, outcome: Outcome, name: str = "", suffix: str = ".bentomodel", size: int = SIZE) -> Upload:
        """Make an upload with this outcome. `name`: of the file; without one, it has the suffix."""
        tag, model = self.model(size)
        source = self.folder() / (name or f"{tag.replace(':', '-')}{suffix}")
        packed = pack(model, source.parent / f"packed{suffix}")
        packed.rename(source)
        if outcome is Outcome.TRUNCATED:
            os.truncate(source, source.stat().st_size * 2 // 3)
        elif outcome is Outcome.NO_ARCHIVE:
            source.write_bytes(b"This is no archive.\n" * (source.stat().st_size // 20))
        elif outcome is Outcome.TAKEN:
            self.take(tag)
        return Upload(source, model, tag, outcome)

    def expect_refusal(self, upload: Upload, times: int | None = None) -> None:
        """Expect a log line with the reason of a refused upload."""
        self.mount.expect_log(rf"{re.escape(upload.name)} was not imported: .", times)

    def in_store(self, tag: str) -> Path:
        name, version = tag.split(":")
        return self.store / name / version

    def check_imported(self, tag: str, model: Path) -> None:
        """Check that the store holds the whole model, and that the mount shows it."""
        assert run("diff", "-r", model, self.in_store(tag)).stdout == ""
        wait_until(lambda: self.mount.shows(tag), 10, f"the mount shows {tag}")

    def check(self, upload: Upload, target: Path | None = None, *, stays: bool = True) -> None:
        """Check that an upload had its outcome. `target`: the path of the copy; `stays`: true if the tool leaves the
        refused file there."""
        target = target or self.incoming / upload.name
        note = target.with_name(f"{target.name}.error")
        here = os.listdir(target.parent)
        if upload.outcome is Outcome.IMPORTED:
            self.check_imported(upload.tag, upload.model)
            assert target.name not in here, "what was imported is not listed"
            assert target.stat().st_size == upload.source.stat().st_size
            assert note.name not in here
            return
        self.expect_refusal(upload)
        if upload.outcome is Outcome.TAKEN:
            assert sorted(os.listdir(self.in_store(upload.tag))) == ["model.yaml", "other.bin"]
        else:
            assert not self.in_store(upload.tag).exists()
        if stays:
            assert target.name in here
            if upload.outcome is not Outcome.NO_ARCHIVE:  # the error is known, and reported, before all of it is here
                assert target.read_bytes() == upload.source.read_bytes()
            assert re.fullmatch(rf"{re.escape(upload.name)} was not imported: .+\n", note.read_text())
        else:
            self.check_recorded(upload)

    def check_recorded(self, upload: Upload) -> None:
        """Check that `bentofs imports` reports the refusal."""
        last = self.imports(upload.name)[-1]
        assert (last["state"], last["errno"]) == ("refused", errno.errorcode[upload.outcome.value])
        assert last["error"]
        assert last["ended"]

    def imports(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the output of `bentofs imports --json`, of one file or of all, newest last."""
        return imports_of(self.mount, name)

    def receipts(self, name: str) -> list[Receipt]:
        """Do what `imports` does, without starting a program."""
        record = ImportLog(StagingArea(os.path.realpath(self.store), None).receipts)
        try:
            return [receipt for receipt in reversed(record.recent(1000)) if receipt.path.rpartition("/")[2] == name]
        finally:
            record.close()


def imports_of(mount: Mounted, name: str | None = None) -> list[dict[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "bentofs.mount",
        "imports",
        "--store",
        str(mount.store),
        "--json",
        "--limit",
        "1000",
    ]
    printed = run(*command, cwd=ROOT, env={**os.environ, **home_of(mount.base)}).stdout
    found = [json.loads(line) for line in printed.splitlines()]
    return found if name is None else [receipt for receipt in found if receipt["file"].rpartition("/")[2] == name]


@dataclass
class WebServer:
    """Serves files over HTTP on loopback, with ranges. A file may be served slowly."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    ranges: list[str] = field(default_factory=list)  # the Range headers of the requests
    sent_slowly: int = 0  # bytes of slow files

    def offer(self, name: str, content: bytes, *, slowly: bool = False) -> str:
        """Offer a file. Return its URL. `slowly`: 64 KiB at a time, so that there is time to interrupt."""
        self.files[f"/{quote(name)}"] = content
        if slowly:
            self.slow.add(f"/{quote(name)}")
        else:
            self.slow.discard(f"/{quote(name)}")
        return f"http://127.0.0.1:{self.port}/{quote(name)}"


@contextlib.contextmanager
def serving() -> Iterator[WebServer]:
    """Run a web server for the time of the context."""
    web = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = web.files.get(quote(unquote(self.path)))
            if content is None:
                self.send_error(404)
                return
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted else 0
            end = int(wanted[2]) + 1 if wanted and wanted[2] else len(content)
            if wanted:
                web.ranges.append(wanted[0])
            if wanted and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client was interrupted
                self._send(content[start:end], self.path in web.slow)

        def _send(self, content: bytes, slowly: bool) -> None:
            if not slowly:
                self.wfile.write(content)
                return
            for at in range(0, len(content), 65536):
                web.sent_slowly += self.wfile.write(content[at : at + 65536])
                time.sleep(0.15)  # a slow server

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Log nothing to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
