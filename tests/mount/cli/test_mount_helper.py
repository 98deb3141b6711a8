"""`mount -t fuse.bentofs` and lines of fstab, by the real mount(8), which finds the helper in /sbin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bentofs.mount.cli.mount_helper import UsageError, parse, split
from tests.harness import ROOT, make_model, run
from tests.mount.cli.shell import Shell


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (",,", []),
        ("rw,formats=zip", ["rw", "formats=zip"]),
        ('formats="zip,tar",ro', ["formats=zip,tar", "ro"]),
        (r"staging=/a\,b\\c,ro", [r"staging=/a,b\c", "ro"]),
        ('a="b', ["a=b"]),
        ("a=b\\", ["a=b\\"]),
        ('a=b"c,d"e,f', ["a=bc,de", "f"]),
        ("staging=/a\nb", ["staging=/a\nb"]),
    ],
)
def test_options_are_split_at_commas(text: str, words: list[str]) -> None:
    assert split(text) == words


def test_what_mount_gives_becomes_one_argument_each() -> None:
    store = "/models,allow_other --staging=/x"
    options = "ro,_netdev,user,noexec,x-systemd.automount,allow_other"
    options += ',formats="zip,tar",staging=--overwrite $(id),no-passthrough'
    call = parse([store, "/mnt/a b", "-n", "-o", options, "-t", "fuse.bentofs"])
    assert call.arguments == [
        "mount",
        f"--store={store}",
        "--read-only",
        "--noexec",
        "--allow-other",
        "--formats=zip,tar",
        "--staging=--overwrite $(id)",
        "--no-passthrough",
        "--",
        "/mnt/a b",
    ]
    assert (call.user, call.is_fake) == (None, False)
    assert parse(["none", "-o", "rw,setuid=me", "/mnt", "-f"]) == (["mount", "--", "/mnt"], "me", True)
    assert parse(["s3://b/p?x=1", "/mnt", "-s", "-o", "unknown,ro"]).arguments[1:3] == [
        "--store=s3://b/p?x=1",
        "--read-only",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "formts=zip"], "there is no option `formts`: did you mean `formats`?"),
        (["-o", "ready-fd=3"], "there is no option `ready-fd`"),
        (["-o", "allow_other=1"], "the option `allow-other` takes no value"),
        (["-o", "formats"], "the option `formats` needs a value"),
        (["-o", "storage_option=secret=x"], "everybody may read /etc/fstab"),
        (["-o", "rw,suid"], "the option `suid` is not possible"),
        (["-o", "remount,ro"], "unmount it first"),
        (["-o", "foreground"], "mount waits until"),
        (["-N", "1"], "nsenter"),
        (["-q"], "this program is called by mount(8)"),
        (["third"], "it must be called as"),
    ],
)
def test_what_makes_no_sense_is_said(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(["/store", "/mnt", *arguments])
    assert said in str(raised.value)


# The helper lies in /sbin for this script alone. Its Python is the one that runs the tests. mount(8) clears the
# environment, so the helper sets the test's home itself: root's is not the test's, nor readable for an ordinary user.
_SCRIPT = r"""
mount -t overlay overlay -o "lowerdir=$helpers:$(realpath /sbin)" "$(realpath /sbin)" || exit 2
mount -T "$fstab" "$mnt" || exit 3
ls "$mnt" "$mnt/by-format" && grep " $mnt " /proc/self/mountinfo
"$mnt/models/m/v1/files/run" && echo "it ran"
umount "$mnt" && while grep -q "$mnt" /proc/[0-9]*/cmdline 2>/dev/null; do sleep 0.1; done
mount -t fuse.bentofs "$store" "$mnt" -o formts=zip; echo "exit $?"
mount -t fuse.bentofs /nonexistent "$mnt"; echo "exit $?"
"""


def test_by_fstab(shell: Shell, tmp_path: Path) -> None:
    """A store whose path looks like options is shown read-only, and its programs do not run."""
    store = tmp_path / "a b,allow_other,exec"
    make_model(store, "m:v1", {"run": b"#!/bin/sh\necho hello\n"}, executable=["run"])
    helper = tmp_path / "helpers" / "mount.fuse.bentofs"
    helper.parent.mkdir()
    home = {name: value for name, value in shell.environment.items() if name == "HOME" or name.startswith("XDG_")}
    helper.write_text(
        f"#!{sys.executable}\nimport os\nfrom bentofs.mount.cli.mount_helper import main\n"
        f"os.environ |= {home!r}\nmain()\n"
    )
    helper.chmod(0o755)
    escaped = str(store).replace(" ", r"\040")
    fstab = tmp_path / "fstab"
    fstab.write_text(f'{escaped} {shell.mountpoint} fuse.bentofs ro,noexec,nofail,x-foo,formats="zip\\054tar" 0 0\n')
    become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", "--mount", *become_root, "sh", "-c", _SCRIPT],
        env={
            **shell.environment,
            "helpers": str(helper.parent),
            "fstab": str(fstab),
            "mnt": str(shell.mountpoint),
            "store": str(store),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done
    told, *shown = done.stdout.splitlines()
    assert told.startswith(f"{store} is mounted at {shell.mountpoint}; log: ")
    listed = [line for line in shown if line and "/" not in line and not line.startswith("exit")]
    assert listed == ["README.txt", "by-format", "models", "folder", "tar", "zip"]
    (line,) = [line for line in shown if " - fuse.bentofs " in line]
    options = line.split(" ")[5].split(",")
    assert {"nosuid", "nodev", "noexec"} <= set(options)
    assert "allow_other" not in line.split(" ")[-1].split(",")
    assert "it ran" not in done.stdout
    assert "exit 1" in shown
    assert "exit 32" in shown
    assert "there is no option `formts`: did you mean `formats`?" in done.stderr
    assert "there is no model store at /nonexistent" in done.stderr


# Somebody who looks at the mountpoint waits until the automounter's command has ended. A daemon that left the
# automounter's process group too early would wait for itself.
_AUTOMOUNT = r"""
$python -m tests.mount.cli.automounter "$mnt" $python -m bentofs.mount mount "$mnt" >"$log" 2>&1 & automounter=$!
until grep -q waiting "$log"; do kill -0 $automounter && sleep 0.1; done
timeout 60 setsid ls "$mnt/models" || { cat "$log"; kill $automounter; exit 1; }
wait $automounter
$python -m bentofs.mount unmount "$mnt" && umount "$mnt"
"""


@pytest.mark.root
def test_by_an_automounter(shell: Shell, tmp_path: Path) -> None:
    """`x-systemd.automount` in fstab: the first look at the mountpoint mounts."""
    environment = {"python": sys.executable, "mnt": str(shell.mountpoint), "log": str(tmp_path / "log")}
    done = run("unshare", "--mount", "sh", "-ec", _AUTOMOUNT, env={**shell.environment, **environment}, cwd=ROOT)
    assert done.stdout == "iris\n"
