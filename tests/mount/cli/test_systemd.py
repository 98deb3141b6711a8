"""The systemd units, judged by systemd itself, and where they are installed."""

import os
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bentofs.mount.cli.systemd import systemd_command
from bentofs.mount.daemon.unit import MARK, unit_text
from bentofs.mount.errors import CannotMountError
from tests.harness import ROOT, run
from tests.mount.cli.shell import Shell

# With any of these, the daemon would get a mount namespace of its own, and nobody else would see the mount.
_NAMESPACES = re.compile(
    r"^(Private|Protect(System|Home|Proc|Kernel|Control)|ReadOnly|ReadWrite|Inaccessible|Bind|TemporaryFile|Root|"
    r"MountFlags|DynamicUser|MountAPIVFS|ProcSubset|ExecPaths|NoExecPaths|.*Directory=)",
    re.MULTILINE,
)


@pytest.mark.parametrize("of_user", [False, True])
def test_systemd_understands_the_unit(tmp_path: Path, of_user: bool) -> None:
    program = tmp_path / "odd name 100%h $HOME" / "bentofs"
    program.parent.mkdir()
    program.symlink_to("/bin/true")
    text = unit_text(str(program), of_user=of_user)
    assert not _NAMESPACES.search(text)
    unit = tmp_path / "bentofs@models.service"
    unit.write_text(text)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = run("systemd-analyze", "verify", "--man=no", *(["--user"] if of_user else []), unit, env=environment)
    assert str(unit) not in done.stdout + done.stderr
    if of_user:  # its service manager would set NoNewPrivileges for a filter, and fusermount could not mount
        assert not re.search("NoNewPrivileges|SystemCall|Restrict(?!art)|LockPersonality|Capabilit", text)
    else:
        told = run("systemd-analyze", "security", "--offline=yes", "--no-pager", unit).stdout
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
        assert exposure is not None
        assert float(exposure[1]) < 6


def test_a_path_that_no_unit_can_name() -> None:
    for path in ("/a\nExecStartPre=/bin/sh/bentofs", '/a"b/bentofs', "/a\\x20b/bentofs"):
        with pytest.raises(ValueError, match="no unit can name"):
            unit_text(path, of_user=True)


def test_installing_for_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    unit = tmp_path / "config/systemd/user/bentofs@.service"
    bentofs = CliRunner()
    printed = bentofs.invoke(systemd_command, ["print", "--user"]).stdout
    done = bentofs.invoke(systemd_command, ["install", "--user"])
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, f"{unit} is installed")
    assert unit.read_text() == printed
    assert printed.startswith(f"{MARK}\n")
    program = re.search("^ExecStart=(.*) mount --foreground %i$", printed, re.MULTILINE)
    assert program is not None
    assert os.path.samefile(os.path.dirname(program[1]), os.path.dirname(sys.executable))
    assert bentofs.invoke(systemd_command, ["uninstall", "--user"]).exit_code == 0
    assert not unit.exists()
    unit.write_text("[Unit]\n")
    for command in ("install", "uninstall"):
        with pytest.raises(CannotMountError, match="not ours"):
            bentofs.invoke(systemd_command, [command, "--user"], catch_exceptions=False)


_SYSTEM = r"""
mount -t tmpfs none /etc/systemd/system && mount -t tmpfs none "$scratch" && cd "$scratch" && mkdir up work || exit 9
sbin=$(realpath /sbin)
mount -t overlay overlay -o "lowerdir=$sbin,upperdir=up,workdir=work" "$sbin" || exit 9
$bentofs systemd install && ls /etc/systemd/system /sbin/mount.fuse.bentofs && $bentofs systemd uninstall || exit 8
ls /etc/systemd/system
[ ! -e /sbin/mount.fuse.bentofs ] || exit 7
"""


def test_installing_for_the_system(shell: Shell) -> None:
    """Root installs the unit, and the helper of mount(8). This script sees another /etc/systemd/system and /sbin."""
    become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    bentofs = f"{sys.executable} -m bentofs.mount"
    environment = {**shell.environment, "bentofs": bentofs, "scratch": shell.environment["TMPDIR"]}
    done = run("unshare", "--mount", *become_root, "sh", "-c", _SYSTEM, env=environment, cwd=ROOT)
    lines = done.stdout.splitlines()
    assert lines[0] == "/etc/systemd/system/bentofs@.service is installed"
    assert lines[1].startswith("/sbin/mount.fuse.bentofs is installed")
    assert "  systemctl enable --now bentofs@NAME" in lines
    assert "bentofs@.service" in lines
    assert lines[-2:] == [
        "/etc/systemd/system/bentofs@.service is removed",
        "/sbin/mount.fuse.bentofs is removed",
    ]
