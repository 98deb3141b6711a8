"""The README and the recipes, followed word by word by an ordinary user in a fresh clone. Each command runs, and prints
the output that is shown. Two readers follow: one without models, and one with models of their own.

The user is `you`, whose home is /home/you, as in the README. Both exist in a mount namespace of their own, with a
directory /media/stick. The machine `host` of the README is this one, reached by a real sshd. Its buckets lie on a real
S3 server.

Every fenced block of every document has a kind, and each kind has its test:

- blocks of `$ command` lines, `python`, `toml` and `sh` run here (`test_every_command`). The configuration file is
  mounted by the enabled unit's own command. There is no service manager: systemctl enables the unit offline.
- `fstab` lines are mounted here by mount(8), after the session of the reader without models.
- `docker` commands: `tests/interop/test_containers.py` (no daemon of Docker runs here).
- `usage`: `test_usage`. Commands for developers: `test_commands_for_developers`. `diagram`: nothing to run.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bentofs.mount.cli.main import COMMANDS, cli
from tests.harness import ROOT, make_model, run
from tests.interop.readme import CONSOLE, Block, Step, blocks
from tests.servers import SeaweedServer, free_port

_UID = 54321
_LONGEST = 480.0  # seconds

# Lines before a command: reads and a server's failure that the README shows without a command.
_BEFORE = {
    "bentofs status": (
        "cp ~/bentofs/models/*/v1/*.bentomodel /media/stick/ && ! cp /media/stick/half-a-model.zip ~/bentofs/incoming/"
    ),
}
# A server, at a port that is free here. It is ended with the session.
_PORT = free_port()
_SERVE = f"""{{
  bentofs serve --bind 127.0.0.1:{_PORT} > ~/served 2>&1 & serving=$!
  until grep -q 'is served' ~/served; do kill -0 $serving && sleep 0.1 || break; done
  cat ~/served
}}"""
# Commands that are to fail.
_FAILS = {
    "cp half-a-model.zip ~/bentofs/incoming/",
    "head -c 9000 whole.tar > ~/bentofs/incoming/whole.tar",
    f"curl -sS --fail-with-body -T /media/stick/half-a-model.zip http://127.0.0.1:{_PORT}/incoming/",
}
# Run a command of the clone, and paste the lines that it prints.
_START = """cd ~/src && { %s > ~/started; } && cat ~/started && eval "$(grep '^  export ' ~/started)" && cd"""
# Enable the unit as without a running service manager. Then do what the manager would do.
_ENABLE = """{
  SYSTEMD_OFFLINE=1 %s
  exec=$(sed -n 's/^ExecStart=//p' ~/.config/systemd/user/default.target.wants/bentofs@team.service)
  ${exec/\\%%i/team} & daemon=$!
  until mountpoint -q ~/team; do kill -0 $daemon && sleep 0.1 || break; done
  ls ~/team/by-format && bentofs unmount ~/team && wait $daemon
}"""
# A command that does not end: stop it after its first line.
_FOLLOW = """{
  setsid bash -c %s > ~/followed & group=$!
  until [ -s ~/followed ]; do kill -0 $group && sleep 0.1 || break; done
  kill -- -$group; cat ~/followed; test -s ~/followed
}"""
# The commands of blocks without output, and their forms in the session.
_SHELL = {
    "./scripts/start": _START % "./scripts/start",
    "./scripts/start --sample": _START % "./scripts/start --sample",
    "bentofs systemd install --user": "bentofs systemd install --user",
    "systemctl --user enable --now bentofs@team": _ENABLE % "systemctl --user enable bentofs@team",
}
_NOT_HERE = {"./scripts/test"}  # it runs this test
_WITHOUT_STEPS = {"fstab", "usage", "diagram"}
_OF_DEVELOPERS = (".github/CONTRIBUTING.md", "scripts/BENCHMARKS.md")

_SETUP = r"""
set -euo pipefail
base=$1 root=$2 uid=$3 port=$4 python=$5
# Python and the clone may lie in root's own directories. Let others pass there, in this namespace only.
for wanted in "$python" "$root"; do
  closed=$wanted found=
  while [ "$closed" != / ]; do
    [ -n "$(find "$closed" -maxdepth 0 -perm -o=x)" ] || found=$closed
    closed=$(dirname "$closed")
  done
  [ -n "$found" ] || continue
  kept=$(mktemp -d "$base/kept.XXXX")
  mount --bind "$wanted" "$kept"
  mount -t tmpfs -o mode=755 none "$found"
  mkdir -p "$wanted"
  mount --bind "$kept" "$wanted"
done
# A machine where everybody may open /dev/fuse, like desktops and most servers.
mknod -m 666 "$base/fuse" c 10 229
mount --bind "$base/fuse" /dev/fuse
# /home/you, beside the homes that are there.
mkdir -p "$base/home/you" "$base/media/stick"
for folder in /home/*/; do
  [ -d "$folder" ] || continue
  mkdir -p "$base$folder"
  mount --rbind "$folder" "$base$folder"
done
mount --rbind "$base/home" /home
mount --bind "$base/media" /media
for file in passwd group; do cp "/etc/$file" "$base/$file"; done
echo "you:x:$uid:$uid::/home/you:/bin/bash" >> "$base/passwd"
echo "you:x:$uid:" >> "$base/group"
for file in passwd group; do mount --bind "$base/$file" "/etc/$file"; done
git -c safe.directory='*' clone -q "$root" /home/you/src
ln -s "$root/.venv" /home/you/src/.venv
cp "$base/session" /home/you/session
if [ -d "$base/models" ]; then mkdir /home/you/bentoml && cp -a "$base/models" /home/you/bentoml/; fi
mkdir -p /home/you/.ssh /run/sshd
ssh-keygen -q -t ed25519 -N "" -f "$base/host_key"
ssh-keygen -q -t ed25519 -N "" -f /home/you/.ssh/id_ed25519
cp /home/you/.ssh/id_ed25519.pub /home/you/.ssh/authorized_keys
echo "[127.0.0.1]:$port $(cat "$base/host_key.pub")" > /home/you/.ssh/known_hosts
printf 'Host host\n  HostName 127.0.0.1\n  Port %s\n' "$port" > /home/you/.ssh/config
chown -R "$uid:$uid" /home/you /media/stick
chmod 700 /home/you/.ssh
cat > "$base/sshd_config" <<CONFIG
ListenAddress 127.0.0.1
Port $port
HostKey $base/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
SetEnv PATH=/home/you/.local/bin:/usr/local/bin:/usr/bin:/bin BENTOFS_STORE=/home/you/.local/share/bentofs/sample/models
CONFIG
"$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$base/sshd_config" 2> "$base/sshd.log" &
sshd=$!
ended() {
  fusermount3 -uz /home/you/bentofs 2>/dev/null || true
  kill "$sshd"
}
trap ended EXIT
look() { find /home/you/bentoml/models -printf '%P %y %m %s %T@ %C@ %U\n' -type f -exec sha256sum {} + | sort; }
[ ! -d "$base/models" ] || look > "$base/before"
# shellcheck disable=SC2016
setpriv --reuid "$uid" --regid "$uid" --clear-groups env -i HOME=/home/you USER=you LOGNAME=you SHELL=/bin/bash \
  PATH="$python/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin" LANG=C.UTF-8 TZ=UTC MANPAGER=cat $AWS \
  bash /home/you/session 2>&1
if [ -d "$base/models" ]; then look | diff "$base/before" - && echo "@@ models unchanged"; fi
[ ! -f "$base/by_fstab" ] || . "$base/by_fstab"
"""

# The store and the user of the README's lines exist here only, and so does the helper in /sbin.
_BY_FSTAB = r"""
mkdir -p "$base/srv/bentoml" "$base/srv/models" "$base/srv/team" "$base/sbin"
mount --bind "$base/srv" /srv
mount -t tmpfs none "$base/sbin" && mkdir "$base/sbin/up" "$base/sbin/work"
sbin=$(realpath /sbin)
mount -t overlay overlay -o "lowerdir=$sbin,upperdir=$base/sbin/up,workdir=$base/sbin/work" "$sbin"
echo "bento:x:54322:54322::/home/bento:/bin/sh" >> /etc/passwd
mkdir /home/bento && cp -a /home/you/.local/share/bentofs/sample/models /srv/bentoml/
chown -R 54322:54322 /home/bento /srv/bentoml /srv/models
echo user_allow_other > "$base/fuse.conf" && mount --bind "$base/fuse.conf" /etc/fuse.conf
(cd /home/you/src && @link@)
export $AWS
/home/you/src/.venv/bin/bentofs import /media/stick/iris-species-v1.zip --store s3://models/team
mount --fstab "$base/fstab" --all
as_you() { setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"; }
shown=$(as_you ls /srv/models/by-format /srv/models/models; stat -c %U /srv/models/README.txt
  as_you ls /srv/team/models)
for mountpoint in /srv/models /srv/team; do /home/you/src/.venv/bin/bentofs unmount $mountpoint; done
echo "@@ fstab:" $(grep -v : <<< "$shown")
"""


def _steps(block: Block) -> Iterator[Step]:
    """Yield the commands with which a reader follows a block."""
    if block.kind == CONSOLE:
        for step in block.steps():
            command = _FOLLOW % shlex.quote(step.command) if "--follow" in step.command else step.command
            command = _SERVE if command == "bentofs serve" else command.replace(":8080", f":{_PORT}")
            yield Step(command, step.shown)
    elif block.kind == "python":
        yield Step(f"~/src/.venv/bin/python <<'PYTHON'\n{block.text}PYTHON")
    elif block.kind == "toml":
        text = block.text.replace("https://s3.example.org", "$AWS_ENDPOINT_URL")
        yield Step(f"mkdir -p ~/.config/bentofs && cat > ~/.config/bentofs/config.toml <<TOML\n{text}TOML")
    elif block.kind == "sh":
        for command in block.commands():
            if command in _SHELL:
                yield Step(_SHELL[command])
            else:
                assert command in _NOT_HERE or command.startswith("docker "), f"no test runs: {command}"
    else:
        assert block.kind in _WITHOUT_STEPS, f"{block.document}: no test runs a block of this kind:\n{block.text}"


def _session(todo: list[Step]) -> str:
    """Return a script that runs all commands in one shell, and tells the end and the status of each."""
    lines = ["cd"]
    for number, step in enumerate(todo):
        if before := _BEFORE.get(step.command):
            lines.append(f"{{ {before}; }} > ~/before 2>&1 || {{ echo '@@ before'; cat ~/before; }}")
        lines += [f"echo '@@ begin {number}'", step.command, f'echo "@@ end {number} $?"']
    # "A plain `scripts/start` in another shell mounts them again."
    lines += [
        "cd",
        "kill $serving && wait $serving",
        "bentofs unmount ~/bentofs",
        "env -u BENTOFS_STORE ~/src/scripts/start",
        "bentofs unmount ~/bentofs",
    ]
    return "\n".join([*lines, ""])


@pytest.fixture
def buckets(seaweed: SeaweedServer) -> Iterator[dict[str, str]]:
    """The buckets that the README names, and the variables for access to them."""
    client = seaweed.client()
    for name in ("bucket", "models"):
        client.create_bucket(Bucket=name)
    yield {name: value for name, value in seaweed.environment().items() if not name.endswith("_FILE")}
    for name in ("bucket", "models"):
        for key in seaweed.keys(name):
            client.delete_object(Bucket=name, Key=key)
        client.delete_bucket(Bucket=name)


@pytest.mark.parametrize("reader", ["without models", "with models"])
def test_every_command(buckets: dict[str, str], tmp_path: Path, reader: str) -> None:
    documents = blocks("README.md", "scripts/RECIPES.md", "mount/JSON.md")
    todo = [step for block in documents for step in _steps(block)]
    assert {*_BEFORE, *_FAILS, *_SHELL.values()} <= {step.command for step in todo}, "the README has lost a command"
    if reader == "with models":  # what follows the README does not depend on the store of the reader
        todo = [step for block in documents if block.document == "README.md" for step in _steps(block)]
    assert len(todo) > 40
    (tmp_path / "session").write_text(_session(todo))
    (tmp_path / "setup").write_text(_SETUP)
    if reader == "with models":
        for tag in ("churn:2024", "churn:2025", "price-forecast:a", "price-forecast:b"):
            make_model(
                tmp_path / "models", tag, {"weights.bin": tag.encode() * 1000}, labels={"task": "classification"}
            )
    else:
        (fstab,) = [block for block in documents if block.kind == "fstab"]
        (tmp_path / "fstab").write_text(fstab.text)
        (link,) = re.findall(r"`sudo (ln -s [^`]*)`", (ROOT / "README.md").read_text())
        (tmp_path / "by_fstab").write_text(_BY_FSTAB.replace("@link@", link))
    environment = {**os.environ, "AWS": " ".join(f"{name}={value}" for name, value in buckets.items())}
    namespace = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*namespace, "bash", tmp_path / "setup"]
    said = run(*command, tmp_path, ROOT, _UID, free_port(), sys.base_prefix, env=environment, seconds=_LONGEST).stdout
    assert "@@ before" not in said, said
    wrong = []
    for number, step in enumerate(todo):
        found = re.search(rf"^@@ begin {number}\n(.*?)^@@ end {number} (\d+)$", said, re.DOTALL | re.MULTILINE)
        assert found, f"{step.command}: not run\n{said}"
        if (found[2] != "0") != (step.command in _FAILS) or step.missing(found[1]):
            wrong.append(f"$ {step.command}\n{found[1]}status {found[2]}; not printed: {step.missing(found[1])}")
    assert not wrong, "\n".join(wrong)
    ended = said.rpartition("@@ end")[2]
    if reader == "with models":
        assert "Mounting your model store /home/you/bentoml/models on /home/you/bentofs." in ended
        assert "@@ models unchanged" in ended
    else:
        assert "There are no models in /home/you/bentoml/models" in ended
        assert ended.splitlines()[-1] == "@@ fstab: folder tar zip iris-species language-id bento iris-species"


def test_every_block_has_a_kind() -> None:
    for block in blocks():
        if block.document not in _OF_DEVELOPERS:
            list(_steps(block))


def test_usage() -> None:
    """The list of commands names each command, and each option that it names exists."""
    (usage,) = [block for block in blocks("README.md") if block.kind == "usage"]
    lines = re.sub(r"\n\s+", " ", usage.text).splitlines()
    context = click.Context(cli)
    named = {line.split()[1] for line in lines}
    assert named == set(COMMANDS)
    for line in lines:
        command = cli.get_command(context, line.split()[1])
        assert command is not None
        if isinstance(command, click.Group):
            assert set(line.split()[2].split("|")) == set(command.list_commands(context))
            continue
        known = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
        for name, choices in re.findall(r"\[(--[a-z0-9-]+)(?: ([^\]]*))?\]", line):
            assert name in known, line
            kind = known[name].type
            if isinstance(kind, click.Choice) and "|" in choices:
                assert set(choices.split("|")) == set(kind.choices), line


def test_commands_for_developers() -> None:
    """The paths, markers, checks and options that CONTRIBUTING and BENCHMARKS name exist."""
    markers = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    script = (ROOT / "scripts" / "test").read_text()
    mount = cli.get_command(click.Context(cli), "mount")
    assert mount is not None
    known = {option.envvar for option in mount.params}
    for block in blocks(*_OF_DEVELOPERS):
        assert block.kind == "sh"
        for command in " && ".join(block.commands()).split(" && "):
            program, *words = shlex.split(command)
            while program.startswith("BENTOFS_"):
                variable, program, words = program.partition("=")[0], words[0], words[1:]
                assert variable in known, command
            assert program == "git" or (ROOT / program).exists(), command
            if words[:2] == ["-m", "pytest"]:
                for word in words[2:]:
                    named = {*re.findall(r"\w+", word)} - {"not", "and", "m"}
                    assert (ROOT / word).is_dir() or named <= set(markers), command
            elif program == "scripts/bench":
                options = run(ROOT / program, "--help").stdout
                assert all(word in options for word in words if word.startswith("--")), command
            elif program != "git":
                assert f'"$bin/{Path(program).name}"' in script, f"scripts/test does not run {command}"
