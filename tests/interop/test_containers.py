"""The examples for containers: judged by the tools of the field, and played with the kernel's own namespaces."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from bentofs.mount.cli.main import cli
from bentofs.mount.serve.variables import TOKEN_VARIABLE
from tests.harness import ROOT, home_of, make_model, run
from tests.interop.readme import blocks

EXAMPLES = ROOT / "scripts" / "containers"
_BIN = Path(sys.executable).parent


def become_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["--map-root-user"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a store, and a `bentofs` that runs this project."""
    folder = tmp_path_factory.mktemp("containers")
    home_of(folder)
    make_model(folder / "bentoml" / "models", "m:v1", {"w.bin": b"weights"})
    (folder / "bin").mkdir()
    (folder / "bin" / "bentofs").write_text(f'#!/bin/sh\nexec {sys.executable} -m bentofs.mount "$@"\n')
    (folder / "bin" / "bentofs").chmod(0o755)
    return folder


def play(base: Path, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script as root in a mount namespace of its own."""
    environment = {
        **os.environ,
        **home_of(base),
        "PATH": f"{base / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "entrypoint": str(EXAMPLES / "entrypoint"),
    }
    return run("unshare", "--mount", *become_root(), "sh", "-ec", script, env=environment, cwd=base, seconds=180)


def test_dockerfile() -> None:
    run(_BIN / "hadolint", EXAMPLES / "Dockerfile")
    run("sh", "-n", EXAMPLES / "entrypoint")
    text = (EXAMPLES / "Dockerfile").read_text()
    copied = [word for line in re.findall("^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    command = re.search("^CMD (.*)$", text, re.MULTILINE)
    assert command is not None
    check_options(json.loads(command[1]))


def test_compose() -> None:
    run(_BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", EXAMPLES / "compose.yaml")


def test_kubernetes() -> None:
    run(_BIN / "kubernetes-validate", "--strict", "-k", "1.29", EXAMPLES / "kubernetes.yaml")
    pod: dict[str, Any] = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())["spec"]
    (sidecar,) = pod["initContainers"]
    check_options(sidecar["args"])
    # Kubernetes checks these, too, but its schema does not tell.
    assert sidecar["securityContext"]["privileged"]
    names = {volume["name"] for volume in pod["volumes"]}
    for container in (sidecar, *pod["containers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= names


def test_commands_of_the_readme() -> None:
    """`docker run` makes the container of the Compose file, and `docker build` reads the Dockerfile.

    No client of Docker is in Debian without its daemon. A test of its whole grammar would need both.
    """
    (block,) = [block for block in blocks("README.md") if "docker" in block.text]
    build, run_image, serve_image = map(shlex.split, block.commands())
    assert build[:3] == ["docker", "build", "-f"]
    assert ROOT / build[3] == EXAMPLES / "Dockerfile"
    assert build[4:] == ["-t", "bentofs", "."]
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("-d", action="store_true", required=True)
    for option in ("--device", "--cap-add", "--security-opt", "-v", "-p", "-e"):
        parser.add_argument(option, action="append")
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    assert run_image[:2] == ["docker", "run"]
    asked = parser.parse_args(run_image[2:])
    service: dict[str, Any] = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]["bentofs"]
    assert asked.image == service["image"]
    assert (asked.device, asked.cap_add) == (service["devices"], service["cap_add"])
    assert asked.security_opt == [option.replace(":", "=") for option in service["security_opt"]]
    binds = [volume for volume in service["volumes"] if volume["type"] == "bind"]
    expected = [":".join([v["source"], v["target"], *v.get("bind", {}).values()]) for v in binds]
    server = parser.parse_args(serve_image[2:])
    check_options(server.command)
    assert server.image == asked.image
    assert (server.p, server.e) == (["127.0.0.1:8080:8080"], [TOKEN_VARIABLE])
    assert not server.device
    assert asked.v == [text.replace("${BENTOML_HOME:-~/bentoml}", "~/bentoml") for text in expected]


def check_options(arguments: list[str]) -> None:
    """Check that `bentofs` has these options."""
    name, *others = arguments
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_parser(click.Context(command)).parse_args(args=others)


# The volume is shared as Kubernetes shares it. A container is a mount namespace: the sidecar's mounts go to the node
# (Bidirectional), and the node's to the program (HostToContainer).
_SIDECAR = r"""
mkdir -p volume && mount -t tmpfs volume volume && mount --make-rshared volume
look() { nsenter --mount="/proc/$program/ns/mnt" --wd=/ ls "$PWD/volume/models" "$PWD/volume/models/models" 2>&1; }
sidecar() {
    rm -f log  # the last daemon's words are not this one's
    unshare --mount --propagation unchanged "$entrypoint" mount "$PWD/volume/models" --foreground --allow-other 2>log &
    sidecar=$!
    until grep -qs "is mounted at" log; do kill -0 $sidecar && sleep 0.1; done
}
unshare --mount --propagation slave sleep 600 & program=$!
trap 'kill $program $sidecar' EXIT
sidecar; echo "first:" $(look)
kill -9 $sidecar; wait $sidecar || true
echo "killed:" $(look)
sidecar; echo "again:" $(look)
kill $sidecar; wait $sidecar; echo "ended:" $(look)
kill $program; trap '' EXIT
"""


def test_a_sidecar_that_is_killed_and_started_again(base: Path) -> None:
    """The program in the other container sees the models again, though nobody restarted it."""
    told = dict(line.split(": ", 1) for line in play(base, _SIDECAR).stdout.splitlines())
    assert "README.txt by-format incoming models" in told["first"]
    assert told["first"].endswith(" m")
    assert "Transport endpoint is not connected" in told["killed"]
    assert told["again"] == told["first"]
    assert "No such file or directory" in told["ended"]
    assert "README.txt" not in told["ended"]


# Of /dev, only what every container has.
_NO_DEVICE = r"""
mkdir -p dev && mount -t tmpfs dev dev && touch dev/null && mount --bind /dev/null dev/null && mount --move dev /dev
! "$entrypoint" mount mnt 2>&1
"$entrypoint" list --json
"$entrypoint" export m:v1 exported.zip --quiet
"$entrypoint" import exported.zip --store other --quiet
find other -name w.bin
"""


def test_without_the_device(base: Path) -> None:
    """A container that may not mount lists, exports and imports."""
    (base / "other").mkdir()
    told = play(base, _NO_DEVICE).stdout
    assert told.startswith("bentofs: /dev/fuse is not there")
    assert '"tag": "m:v1"' in told
    assert told.splitlines()[-1] == "other/m/v1/w.bin"
