"""A mount of an ordinary user, made by a helper, and the error where there is no usable helper."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, home_of, make_model
from tests.incoming import made_tar
from tests.store.users import NOBODY, folder_of_an_ordinary_user

# A system where everybody may open /dev/fuse, like desktops and most servers. The user may read root's home: the tests'
# Python may lie there.
_SHARE_DEVICE = (
    'mknod "$0/fuse" c 10 229 && chmod 666 "$0/fuse" && mount --bind "$0/fuse" /dev/fuse && '
    f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups "
    '--inh-caps +dac_read_search --ambient-caps +dac_read_search "$@"'
)


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_of_an_ordinary_user() as folder:
        make_model(
            folder / "bentoml" / "models", "m:v1", {"w.bin": os.urandom(300_000), "words": b"some words " * 300_000}
        )
        home_of(folder)
        (folder / "mnt").mkdir()
        (folder / "bin").mkdir()
        made_tar(folder / "tmp", "n:v1")
        if os.geteuid() == 0:
            for path in folder.rglob("*"):
                os.chown(path, NOBODY, NOBODY)
        yield folder


def as_ordinary_user(
    home: Path, script: str, then_as_root: str = ":", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a script as nobody, or as the user who runs the tests. `$bentofs` is this project's command. Nothing stays
    mounted. `then_as_root`: a script that root runs in the same mount namespace; nothing if root does not run the
    tests."""
    command = ["sh", "-c", script]
    if os.geteuid() == 0:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        command += [f"{_SHARE_DEVICE} && {then_as_root}", str(home), "sh", "-c", script]
    return subprocess.run(
        command,
        cwd=home,
        env={
            **os.environ,
            **home_of(home),
            "PYTHONPATH": str(ROOT),
            "bentofs": f"{sys.executable} -m bentofs.mount",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("engine", ["kernel", "libfuse2"])
def test_reading_and_importing(home: Path, engine: str) -> None:
    done = as_ordinary_user(
        home,
        f"$bentofs mount mnt --engine {engine} && cmp mnt/models/m/v1/files/w.bin bentoml/models/m/v1/w.bin && "
        "tar tf mnt/models/m/v1/m-v1.tar && cp tmp/n-v1.tar mnt/incoming && ls mnt/models/n/v1; "
        "grep mnt /proc/mounts; $bentofs unmount mnt",
    )
    assert done.returncode == 0, done
    assert "model.yaml\nw.bin\n" in done.stdout
    assert "n-v1.bentomodel" in done.stdout
    assert f"user_id={NOBODY if os.geteuid() == 0 else os.geteuid()}," in done.stdout


@pytest.mark.parametrize("engine", ["kernel", "libfuse2"])
def test_while_no_more_threads_may_begin(home: Path, engine: str) -> None:
    """Read what is known while no thread may begin, and the rest once they may."""
    done = as_ordinary_user(
        home,
        f"set -e; $bentofs mount mnt --engine {engine}; cat mnt/models/m/v1/m-v1.tar.gz > tmp/one; "
        f"$bentofs unmount mnt; $bentofs mount mnt --engine {engine}; "
        'pid=$($bentofs status --json | grep -o \'"pid": *[0-9]*\' | grep -o "[0-9]*"); '
        "prlimit --pid $pid --nproc=1:; "
        "for _ in 1 2; do timeout 20 cat mnt/models/m/v1/m-v1.tar.gz > tmp/two; cmp tmp/one tmp/two; done; "
        "timeout 20 cat mnt/.bentofs/status.json > tmp/status; ! timeout 20 cp tmp/n-v1.tar mnt/incoming; "
        "prlimit --pid $pid --nproc=10000:; timeout 20 cp tmp/n-v1.tar mnt/incoming; ls mnt/models/n/v1; "
        "$bentofs unmount mnt",
    )
    assert done.returncode == 0, done
    assert "n-v1.bentomodel" in done.stdout


def test_without_a_helper(home: Path) -> None:
    done = as_ordinary_user(home, "$bentofs mount mnt --engine kernel", PATH=_path(home))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "bentofs: neither fusermount3 nor fusermount is installed, and only root mounts without: "
        "`apt install fuse3` first\n"
    )


def test_a_helper_without_its_setuid_bit(home: Path) -> None:
    path = _path(home)
    helper = home / "bin" / "fusermount3"
    shutil.copy(str(shutil.which("fusermount3")), helper)
    helper.chmod(0o755)
    done = as_ordinary_user(home, "$bentofs mount mnt --engine kernel", PATH=path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"bentofs: {helper} may not mount, since its setuid bit is missing: `sudo chmod u+s {helper}` first\n"
    )


def _path(home: Path) -> str:
    """Return a PATH without a helper."""
    for name in ("sh", "setpriv", "mknod", "chmod", "mount", "unshare"):
        (home / "bin" / name).symlink_to(str(shutil.which(name)))
    return str(home / "bin")
