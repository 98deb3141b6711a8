"""The configuration file and environment variables: which one counts, and what is said of a wrong one."""

from pathlib import Path

import click
import pytest

from bentofs.mount.cli.config import defaults_for, load, name_variables, named_mountpoint
from bentofs.mount.cli.main import COMMANDS, cli
from bentofs.mount.errors import ConfigError
from tests.harness import mountpoints
from tests.mount.cli.shell import Shell


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("BENTOFS_CONFIG", str(path))
    monkeypatch.setenv("HOME", "/home/me")
    return path


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


TEAM = """
[defaults]
compression = "never"
timeout = 7
store = "s3://default/store"
storage-option = { key = "secret" }
read-only = true

[mounts.team]
mountpoint = "~/team"
store = "/srv/models"
formats = ["zip", "tar"]
cache-size = "512M"
incoming-mode = "1777"
read-only = false
"""


def test_values(config: Path) -> None:
    config.write_text(TEAM)
    values = defaults_for(command("mount"), ["--engine", "kernel", "team"])
    assert [kind.name for kind in values.pop("formats")] == ["zip", "tar"]
    assert values == {
        "compression": "never",
        "timeout": 7.0,
        "store": "/srv/models",  # without the options of the other store
        "cache_size": 512 << 20,
        "incoming_mode": 0o1777,
        "read_only": False,
    }
    assert defaults_for(command("mount"), ["./team"])["read_only"] is True
    listing = {"timeout": 7.0, "store": "s3://default/store", "storage_options": [("key", "secret")]}
    assert defaults_for(command("list"), []) == listing
    context = click.Context(command("mount"))
    assert named_mountpoint(context, context.command.params[0], "team") == "/home/me/team"
    assert named_mountpoint(context, context.command.params[0], "./team") == "./team"
    with pytest.raises(ConfigError, match=r"has no mount 'other': there are team; a directory is written \./other"):
        named_mountpoint(context, context.command.params[0], "other")


def test_what_a_daemon_was_given_is_all_that_counts(config: Path) -> None:
    config.write_text(TEAM)
    mount = command("mount")
    assert defaults_for(mount, ["/home/me/team", "--ready-fd", "3"]) == {}
    assert not any(option.envvar for option in mount.params)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = ", "is not TOML"),
        ("\udcff = 1", "is not TOML"),
        ("store = '/x'", "there is no key `store`: there are defaults, mounts"),
        ("[default]", "there is no key `default`: did you mean `defaults`?"),
        ("[defaults]\nformts = 'zip'", "there is no key `formts` in [defaults]: did you mean `formats`?"),
        ("[defaults]\nmountpoint = '/x'", "there is no key `mountpoint` in [defaults]"),
        ("defaults = 1", "[defaults] must be a table"),
        ("[mounts]\nm = 1", "[mounts.m] must be a table"),
        ("[mounts.m]\nstore = '/x'", "[mounts.m] has no mountpoint: add a line"),
        ("[mounts.'a/b']\nmountpoint = '/x'", "'a/b' cannot be the name of a mount"),
        ("[mounts.m]\nmountpoint = 'x'", "`mountpoint` in [mounts.m] is wrong: it must be a path that begins with /"),
        ("[mounts.m]\nmountpoint = 's3://x'", "`mountpoint` in [mounts.m] is wrong"),
        ("[defaults]\nstore = 'models'", "`store` in [defaults] is wrong: it must be a path that begins with / or ~/,"),
        ("[defaults]\nengine = 'fast'", "`engine` in [defaults] is wrong: 'fast' is not one of"),
        ("[defaults]\nread-only = 'yes'", "`read-only` in [defaults] is wrong: it must be true or false"),
        ("[defaults]\nttl = true", "`ttl` in [defaults] is wrong: it must be a text or a number"),
        ("[defaults]\nttl = 0", "`ttl` in [defaults] is wrong: 0.0 is not in the range"),
        ("[defaults]\nincoming-mode = 1777", "`incoming-mode` in [defaults] is wrong: it must be a text in quotation"),
        ("[defaults]\nstorage-option = 'a=b'", "`storage-option` in [defaults] is wrong: it must be a table"),
        ("[defaults]\nformats = ['rar']", "`formats` in [defaults] is wrong: rar is not a format"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(config: Path, text: str, said: str) -> None:
    config.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as raised:
        defaults_for(command("mount"), ["m"])
    assert str(raised.value).startswith(f"{config}")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.status == 2


def test_a_file_that_is_named_must_be_there(config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which BENTOFS_CONFIG names, is not there"):
        load()
    monkeypatch.delenv("BENTOFS_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    assert load().mounts == {}
    assert not config.exists()


def test_every_option_of_a_mount_can_be_configured() -> None:
    options = [option for option in command("mount").params if isinstance(option, click.Option)]
    others = {option.name for option in options if option.envvar is None}
    assert others == {"foreground", "as_json", "ready_fd"}
    flags = [option for option in options if option.is_flag and option.name not in others]
    assert all(option.secondary_opts for option in flags)  # so that the command line can switch them off


def test_no_two_options_have_one_variable() -> None:
    for name in COMMANDS:
        variables = [option.envvar for option in command(name).params if isinstance(option.envvar, str)]
        assert len(variables) == len(set(variables))
        name_variables(command(name))


def test_which_one_counts(shell: Shell, tmp_path: Path) -> None:
    """The command line before the environment, and that before the file. But a named mount keeps its store."""
    folder = tmp_path / "config" / "bentofs"
    folder.mkdir(parents=True)
    shell.environment["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    (folder / "config.toml").write_text(f"""
[mounts.mine]
mountpoint = "{shell.mountpoint}"
store = "{shell.store}"
formats = "zip"
read-only = true
compression = "never"
""")
    more = {
        "BENTOFS_STORE": "/nonexistent",
        "BENTOFS_STORAGE_OPTION": "key=theirs",
        "BENTOFS_FORMATS": "tar,tar.gz",
        "BENTOFS_READ_ONLY": "0",
    }
    done = shell("mount", "mine", "--formats", "tar", **more)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in shell.mountpoint.iterdir()) == ["README.txt", "by-format", "incoming", "models"]
    assert sorted(path.name for path in (shell.mountpoint / "by-format").iterdir()) == ["folder", "tar"]
    done = shell("unmount", "mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert not mountpoints(shell.mountpoint)
