"""The lines that a model's page offers for copying: each runs in a shell, as it stands on the page."""

import html
import os
import re
import subprocess
from pathlib import Path

from tests.harness import home_of, make_model, run
from tests.incoming import same
from tests.interop.conftest import Judge, SshServer
from tests.serving import Served

TOKEN = "a-token-of-32-characters-or-more!"
_TITLES = ["Download", "Check it", "Import it into BentoML", "Straight into your store"]


def lines_of(server: Served, path: str, **headers: str) -> dict[str, str]:
    """Return the lines of a page by their titles."""
    page = server.get(path, **headers).body.decode()
    found = re.findall(r'<h3 id="command-\d+">(.*?)</h3>\s*<pre[^>]*><code[^>]*>(.*?)</code>', page, re.DOTALL)
    return {html.unescape(title): html.unescape(line) for title, line in found}


def test_they_bring_the_model(tmp_path: Path, ssh_server: SshServer) -> None:
    judge = Judge("1.4")
    model = make_model(tmp_path / "models", "iris:v1", {"w.bin": os.urandom(200_000), "sub/x.txt": b"x"})
    with Served(tmp_path / "models", tmp_path) as server:
        lines = lines_of(server, "/models/iris/v1/")
        assert list(lines) == _TITLES
        want = server.get("/models/iris/v1/iris-v1.bentomodel").body
        for copy in ("by-archive", "by-rsync"):
            (tmp_path / copy).mkdir()
        environment = {
            **os.environ,
            **home_of(tmp_path / "by-archive"),
            "PATH": f"{judge.python.parent}:{os.environ['PATH']}",
            "BENTOML_DO_NOT_TRACK": "True",
            "RSYNC_RSH": " ".join(["ssh", *ssh_server.options]),
        }

        def follow(*titles: str, **variables: str) -> None:
            script = "\n".join(["set -e", *(lines[title] for title in titles)])
            run("bash", "-c", script, cwd=tmp_path, env={**environment, **variables}, seconds=300)

        follow("Download", "Check it", "Import it into BentoML", BENTOML_HOME=str(tmp_path / "by-archive"))
        assert (tmp_path / "iris-v1.bentomodel").read_bytes() == want
        same(model, tmp_path / "by-archive/models/iris/v1")
        follow("Straight into your store", BENTOML_HOME=str(tmp_path / "by-rsync"))
        same(model, tmp_path / "by-rsync/models/iris/v1")


def test_a_damaged_download_is_found(tmp_path: Path) -> None:
    make_model(tmp_path / "models", "iris:v1", {"w.bin": os.urandom(200_000)})
    with Served(tmp_path / "models", tmp_path) as server:
        lines = lines_of(server, "/models/iris/v1/")
        run("bash", "-c", lines["Download"], cwd=tmp_path)
        with (tmp_path / "iris-v1.bentomodel").open("r+b") as file:
            file.seek(5000)
            file.write(b"damage")
        checked = subprocess.run(["bash", "-c", lines["Check it"]], cwd=tmp_path, timeout=60, check=False)
        assert checked.returncode == 1


def test_they_name_the_server_as_its_visitor_does(tmp_path: Path) -> None:
    """rsync connects to that address, too."""
    make_model(tmp_path / "models", "iris:v1", {"w.bin": b"w"})
    called, remote = tmp_path / "called", tmp_path / "remote"
    remote.write_text(f'#!/bin/sh\necho "$1" > {called}\nexit 1\n')
    remote.chmod(0o755)
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path / "home"), "RSYNC_RSH": str(remote)}
    with Served(tmp_path / "models", tmp_path, "--host", "models.example.org") as server:
        for host, name in (
            ("[::1]:8080", "::1"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("models.example.org", "models.example.org"),
        ):
            lines = lines_of(server, "/models/iris/v1/", Host=host)
            assert f"http://{host}/models/iris/v1/iris-v1.bentomodel" in lines["Download"]
            line = lines["Straight into your store"]
            subprocess.run(["bash", "-c", line], env=environment, capture_output=True, timeout=60, check=False)
            assert called.read_text() == f"{name}\n"


def test_behind_a_password(tmp_path: Path) -> None:
    """A token, in place of USER's password, is asked for by curl."""
    make_model(tmp_path / "models", "iris:v1", {"w.bin": b"w" * 5000})
    with Served(tmp_path / "models", tmp_path, environment={"BENTOFS_SERVE_TOKEN": TOKEN}) as server:
        lines = lines_of(server, "/models/iris/v1/", Authorization=f"Bearer {TOKEN}")
        for title in ("Download", "Check it"):
            assert " -u USER " in lines[title]
            run("bash", "-c", "set -e -o pipefail\n" + lines[title].replace("USER", f"any:{TOKEN}"), cwd=tmp_path)
        assert (tmp_path / "iris-v1.bentomodel").stat().st_size > 5000
