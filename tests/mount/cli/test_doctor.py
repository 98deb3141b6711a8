"""`bentofs doctor`: each thing that a mount needs is found missing where it is missing, and `bentofs mount` agrees."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, Mounted, home_of, make_model
from tests.mount.cli.shell import Shell
from tests.store.users import NOBODY, folder_of_an_ordinary_user

Found = dict[str, dict[str, Any]]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of an ordinary user, who may read where the tests' Python lies."""
    with folder_of_an_ordinary_user() as folder:
        make_model(folder / "bentoml" / "models", "m:v1", {"w": b"w"})
        home_of(folder)
        (folder / "mnt").mkdir()
        (folder / "bin").mkdir()
        for path in folder.rglob("*"):
            os.chown(path, NOBODY, NOBODY)
        yield folder


def checks_of(done: "subprocess.CompletedProcess[str]") -> Found:
    assert done.stdout, done
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == any(check["outcome"] == "failed" for check in found.values()), done
    return found


def test_below_a_program_that_ignores_its_children(tmp_path: Path) -> None:
    """Their parent's ignored SIGCHLD is inherited, and the system then removes children without a word."""
    command = ["bash", "-c", 'trap "" CHLD; exec "$0" -m bentofs.mount doctor --json', sys.executable]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **home_of(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checks_of(done)["libraries"]["outcome"] in ("ok", "warning"), done


def test_a_good_place(shell: Shell, mounted: Callable[..., Mounted]) -> None:
    found = checks_of(shell("doctor", shell.mountpoint, "--json"))
    bad = [check for check in found.values() if check["outcome"] == "failed"]
    assert not bad
    assert "packaging " in found["libraries"]["detail"] or found["libraries"]["outcome"] == "ok"
    assert found["store"]["detail"] == f"{shell.store} may be read and written"
    assert not (shell.store.parent / ".models.bentofs").exists(), "a look makes nothing"
    text = shell("doctor").stdout
    assert f"ok      store        {shell.store} may be read and written\n" in text

    mount = mounted(shell.store, own_process=True)
    taken = checks_of(shell("doctor", mount.path, "--json"))
    assert taken["mountpoint"]["outcome"] == "failed"
    os.kill(mount.pid, signal.SIGKILL)
    mount.process.wait(10)
    dead = checks_of(shell("doctor", "--json"))["mounts"]
    assert dead["outcome"] == "warning"
    assert str(mount.path) in dead["detail"]
    assert f"`bentofs unmount {mount.path}`" in dead["advice"]
    mount.kill()


def test_places(shell: Shell, tmp_path: Path) -> None:
    """Both commands name the fault of a place in the same words, with the same exit status."""
    (tmp_path / "file").touch()
    for options, environment, names, status in (
        (["--store", str(tmp_path / "gone")], {}, ["store"], 3),
        (["--staging", "/dev/shm"], {}, ["staging"], 1),
        (["--staging", str(shell.store / "x")], {"XDG_STATE_HOME": str(tmp_path / "file")}, ["staging", "state"], 1),
        (["--engine", "libfuse2"], {"FUSE_LIBRARY_PATH": "libc.so.6"}, ["libfuse"], 1),
    ):
        environment["XDG_CACHE_HOME"] = str(tmp_path / "file")
        found = checks_of(shell("doctor", *options, "--json", **environment))
        assert [each for each, check in found.items() if check["outcome"] == "failed"] == names
        sentence = ": ".join(filter(None, (found[names[0]]["detail"], found[names[0]]["advice"])))
        assert shell.refuses("mount", shell.mountpoint, *options, status=status, **environment) == sentence
        assert found["cache"]["outcome"] == "warning"
        assert "XDG_CACHE_HOME" in found["cache"]["advice"]


_NOBODY = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps +dac_read_search"
_NOBODY += " --ambient-caps +dac_read_search"  # the tests' Python may lie in root's home
_CONFIGURED = 'mount --bind "$0/fuse.conf" /etc/fuse.conf'

# The changes that root makes in a mount namespace; the program that starts doctor; the configuration of the helper;
# and what doctor finds: the check, its outcome, and words.
_BROKEN = {
    "root": (
        'mount -t tmpfs none /dev && mount -t tmpfs -o size=1m none "$0/bentoml/models"',
        "prlimit --nofile=100:100 setpriv --bounding-set -sys_admin",
        "",
        [
            ("device", "failed", "--device /dev/fuse"),
            ("capabilities", "failed", "--cap-add SYS_ADMIN"),
            ("open files", "warning", "ulimit"),
            ("space", "warning", "free some space"),
        ],
    ),
    "a service": (
        "mount -t tmpfs none /dev && mknod -m 600 /dev/fuse c 10 229 && "
        'mount --bind "$0/bentoml" "$0/bentoml" && mount -o remount,bind,ro "$0/bentoml"',
        f"{_NOBODY} --no-new-privs",
        "mount_max = 0\n#user_allow_other\n",
        [
            ("device", "failed", "Permission denied"),
            ("helper", "failed", "no new privileges"),
            ("mount_max", "failed", "raise mount_max in /etc/fuse.conf"),
            ("allow_other", "failed", "add the line user_allow_other to /etc/fuse.conf"),
            ("store", "warning", "no incoming/"),
        ],
    ),
    "a helper of one's own": (
        "mount -t tmpfs none /dev && mknod -m 666 /dev/fuse c 1 3 && "
        'mount --bind "$0/bin" "$0/bin" && mount -o remount,bind,nosuid "$0/bin"',
        f"{_NOBODY} env PATH=$0/bin",
        "user_allow_other # yes\nmount_max=-1\n",
        [
            ("device", "failed", "mknod"),
            ("helper", "failed", "mounted with nosuid"),
            ("mount_max", "ok", "any number"),
            ("allow_other", "ok", ""),
        ],
    ),
}


@pytest.mark.root
@pytest.mark.parametrize("what", _BROKEN)
def test_broken_systems(home: Path, what: str) -> None:
    assert os.geteuid() == 0, "only root can break a system: run the tests as root"
    change, program, configuration, expected = _BROKEN[what]
    helper = home / "bin" / "fusermount3"
    shutil.copy(str(shutil.which("fusermount3")), helper)
    helper.chmod(0o4755)
    (home / "fuse.conf").write_text(configuration)
    script = f'{_CONFIGURED} && {change} && exec {program.replace("$0", str(home))} "$@"'
    command = [sys.executable, "-m", "bentofs.mount", "doctor", "--engine", "kernel", "--allow-other", "--json"]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(home), *command],
        cwd=ROOT,
        env={**os.environ, **home_of(home), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = checks_of(done)
    for name, outcome, words in expected:
        assert found[name]["outcome"] == outcome, found[name]
        assert words in f"{found[name]['detail']} {found[name]['advice']}"
