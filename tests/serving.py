"""Shared tools of the tests of `bentofs serve`: a server of its own, ended with its log checked."""

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests import fork_server
from tests.expectations import Expectation, complaints
from tests.harness import Daemon, home_of, serious_lines, wait_until
from tests.mount.cli import json_schema

_START_SECONDS, _STOP_SECONDS = 60.0, 20.0


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


class Served(Daemon):
    """`bentofs serve` on a store, as a subprocess whose cache and state lie below `base`.

    Leaving the context ends it by SIGTERM, and asserts that the exit code is 0, and that the log holds nothing at
    WARNING or above except expected lines. `own_process` starts no fork (`fork_server`).
    """

    def __init__(
        self,
        store: Path | str,
        base: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        limit: float = 300.0,
        own_process: bool = False,
    ) -> None:
        self.store = store
        self._options = options
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **home_of(base), **(environment or {})}
        self._log = base / "server.log"
        self._output = base / "server.json"
        self._limit = limit
        self._own_process = own_process
        self._expectations: list[Expectation] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: threading.Timer | None = None
        self.url = ""

    @property
    def address(self) -> tuple[str, int]:
        """Return the host and the port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def environment(self) -> Mapping[str, str]:
        return self._environment

    def __enter__(self) -> "Served":
        self.start()
        return self

    def start(self) -> None:
        with self._log.open("wb") as log, self._output.open("wb") as output:
            self._process = fork_server.popen(
                [*self._arguments(), "--json"],
                environment=self._environment,
                death_signal=signal.SIGKILL,
                own_process=self._own_process,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )
        self._watchdog = threading.Timer(self._limit, self._process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        try:
            self.url = wait_until(self._ready, _START_SECONDS, f"the server is ready\n{self.log()}")
        except BaseException:
            print(f"--- log of the server\n{self.log()}", file=sys.stderr)
            self.kill()
            raise

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "bentofs.mount", *self._arguments()]

    def _arguments(self) -> Sequence[str]:
        options = self._options if "--bind" in self._options else (*self._options, "--bind", "127.0.0.1:0")
        return ["serve", "--store", str(self.store), *options]

    def _ready(self) -> str:
        assert self.process.poll() is None, f"the server exited with {self.process.returncode}:\n{self.log()}"
        if not self._output.read_text().endswith("}\n"):
            return ""
        document = json.loads(self._output.read_text())
        json_schema.check("serve", document)
        return str(document["url"]).rstrip("/")

    def stop(self) -> None:
        """End the server by SIGTERM, and assert everything that must hold then."""
        process = self.process
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not end the server within {_STOP_SECONDS:g} s:\n{self.log()}") from None
        self.kill()
        assert code == 0, f"the server exited with {code}:\n{self.log()}"
        found = complaints(serious_lines(self.log()), self._expectations)
        assert not found, "\n".join(found)

    def kill(self) -> None:
        """Kill the server. Harmless when it has ended already."""
        if self._watchdog:
            self._watchdog.cancel()
        if self._process:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send one request, with its path as it is, and return the answer."""
        connection = self.connection()
        try:
            connection.putrequest(method, path, skip_accept_encoding=True, skip_host="Host" in (headers or {}))
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None and "Content-Length" not in (headers or {}):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, response.reason, response.msg, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """GET a path; `headers`: with underscores for hyphens."""
        return self.ask("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection to the server. It trusts any certificate."""
        host, port = self.address
        if self.url.startswith("https:"):
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return http.client.HTTPSConnection(host, port, timeout=60, context=context)
        return http.client.HTTPConnection(host, port, timeout=60)
