"""The README and the recipes, followed word by word by an ordinary user in a fresh clone. Each command runs, and prints
the output that is shown.

The user is `you`, whose home is /home/you, as in the README. Both exist in a mount namespace of their own, with a
directory /media/stick. The machine `host` of the README is this one, reached by a real sshd. Its buckets lie on a real
S3 server.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, run
from tests.interop.readme import Step, steps
from tests.servers import SeaweedServer, free_port

_UID = 54321
_LONGEST = 240.0  # seconds

# Lines that the README takes for granted, before the command that begins so.
_BEFORE = {
    "ls ~/bentofs/by-label/task/classification": (
        "cd && bentofs unmount ~/bentofs && bentofs mount --by-label ~/bentofs"
    ),
    "cp iris-species-v1.zip ~/bentofs/incoming/": (
        "mkdir ~/downloads && cd ~/downloads && cp /media/stick/iris-species-v1.zip ."
        " && cp ~/bentofs/models/language-id/v1/language-id-v1.zip ."
        " && head -c 700 iris-species-v1.zip > half-a-model.zip"
    ),
    "bentofs mount ~/bentofs --store s3://models/production": "cd && bentofs unmount ~/bentofs",
    "cp language-id-v1.zip ~/bentofs/incoming/": "cd ~/downloads",
    "bentofs status": (
        "cd && bentofs unmount ~/bentofs && bentofs mount ~/bentofs"
        " && cp ~/bentofs/models/*/v1/*.bentomodel ~/bentofs/models/*/v1/*.zip ~/downloads/"
        " && cp ~/downloads/iris-species-v1.zip ~/bentofs/incoming/"
        " && ! cp ~/downloads/half-a-model.zip ~/bentofs/incoming/"
    ),
}
# Commands that are to fail.
_FAILS = {
    "cp half-a-model.zip ~/bentofs/incoming/",
    "head -c 9000 whole.tar > ~/bentofs/incoming/whole.tar",
}

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
# shellcheck disable=SC2016
setpriv --reuid "$uid" --regid "$uid" --clear-groups env -i HOME=/home/you USER=you LOGNAME=you SHELL=/bin/bash \
  PATH="$python/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin" LANG=C.UTF-8 TZ=UTC MANPAGER=cat $AWS \
  bash /home/you/session 2>&1
"""


def _session(todo: list[Step]) -> str:
    """Return a script that runs all commands in one shell, and tells the end and the status of each."""
    lines = [
        "cd ~/src && ./scripts/start > ~/started || { cat ~/started; exit 1; }",
        "cat ~/started",
        # Paste the line that `scripts/start` prints.
        "eval \"$(grep '^  export ' ~/started)\"",
        "cd",
    ]
    for number, step in enumerate(todo):
        if before := _BEFORE.get(step.command):
            lines.append(f"{{ {before}; }} > ~/before 2>&1 || {{ echo '@@ before'; cat ~/before; }}")
        lines += [f"echo '@@ begin {number}'", step.command, f'echo "@@ end {number} $?"']
    return "\n".join([*lines, "cd", "bentofs unmount ~/bentofs", ""])


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


def test_every_command(buckets: dict[str, str], tmp_path: Path) -> None:
    todo = [step for path in ("README.md", "scripts/RECIPES.md") for step in steps((ROOT / path).read_text())]
    assert len(todo) > 40
    assert {*_BEFORE, *_FAILS} <= {step.command for step in todo}, "the README has lost a command"
    (tmp_path / "session").write_text(_session(todo))
    (tmp_path / "setup").write_text(_SETUP)
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
