"""Run pjdfstest in a mount: in `incoming/`, and in the read-only tree. A campaign of some minutes, as root.

Usage: .venv/bin/python scripts/pjdfstest.py FOLDER [--engine kernel|libfuse2] [--write]

FOLDER has the sources of https://github.com/pjd/pjdfstest at commit 85a8aea. They are copied and compiled elsewhere,
and are no part of this project. Regular files and directories are tested: of other kinds a mount makes none.

pjdfstest tests a file system that keeps everything. Here, many of its steps must fail. Each failed step has one of the
reasons below, else it is printed and the run fails. `pjdfstest.json` pins how many steps of each group pass, and how
many fail for each reason. `--write` pins them anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.sample_store import Files, write_model

PINNED = Path(__file__).with_suffix(".json")
_FILE_SECONDS = 600.0  # the most that one file of tests may take
_HAVE = (
    "FACCESSAT FCHMODAT FCHOWNAT FSTATAT LINKAT MKDIRAT MKFIFOAT MKNODAT OPENAT POSIX_FALLOCATE READLINKAT RENAMEAT "
)
_HAVE += "SYMLINKAT UTIMENSAT SYS_SYSMACROS_H STRUCT_STAT_ST_ATIM STRUCT_STAT_ST_CTIM STRUCT_STAT_ST_MTIM"
_KINDS = re.compile(r"for type in (regular(?: dir)?)(?: (?:fifo|block|char|socket|symlink))+; do")
_STEP = re.compile(r"not ok \d+ - tried '(?P<call>.*)', expected (?P<expected>.*), got (?P<got>.*)")

# By the name of a reason: what the failed call is, what was expected of it, and what came. The first one that fits
# counts. A step of which pjdfstest says no more than that it failed fits `follows`.
REASONS = {
    "read_only": (r".*", r".*", r"EROFS"),  # outside of incoming/
    "special": (r".*\b(link|symlink|mkfifo|mknod|bind)\b.*", r".*", r"EPERM"),  # links and devices are refused
    "owners": (r".*\bl?chown\b.*", r"0", r"EPERM"),  # nobody gives files away, so default_permissions refuses a change
    "modes": (r".*\bchmod\b.*", r"0", r"EPERM"),  # likewise: the file belongs to root
    "stays": (r".*\bl?stat\b.*", r"ENOENT", r"(dir|regular|\d+)(,\d+)*"),  # the removal or rename before was refused
    "ignored": (r".*\bl?stat\b.*", r".*", r"(dir|regular|\d+)(,\d+)*"),  # modes and owners are not kept
    "not_theirs": (r".*-u \d+.*", r".*", r"EACCES"),  # so the directory is still root's, with mode 0755
    "long": (r".*", r".*", r"ENAMETOOLONG"),  # the path on disk has the staging directory before it
    # The file, link or directory of an earlier step is not there, or is still there.
    "follows": (r".*", r".*", r"ENOENT|EEXIST|EADDRINUSE|ENOTEMPTY|EISDIR|ENOTDIR|EPERM|EACCES"),
    "unhindered": (r".*", r"(?!.*(EACCES|EPERM)).*", r"0"),  # the link that should hinder the call is not there
}


def build(sources: Path, target: Path) -> None:
    """Copy the sources, limit them to the kinds of files that a mount has, and compile the helper."""
    shutil.copytree(sources, target, ignore=shutil.ignore_patterns(".git"))
    (target / "config.h").write_text(
        "#define _GNU_SOURCE 1\n" + "".join(f"#define HAVE_{name} 1\n" for name in _HAVE.split())
    )
    for file in target.glob("tests/*/*.t"):
        file.write_text(_KINDS.sub(r"for type in \1; do", file.read_text()))
    subprocess.run(["cc", "-w", "-I.", "-o", "pjdfstest", "pjdfstest.c"], cwd=target, check=True)


@contextmanager
def mounted(base: Path, engine: str) -> Iterator[Path]:
    """Give a mount with one model, in which every user may write to `incoming/`."""
    files: Files = {"w.bin": b"w" * 5000, "sub/x": b"x"}
    write_model(base / "models", "m:v1", files, creation_time="2026-01-02T03:04:05+00:00")
    mountpoint = base / "mnt"
    mountpoint.mkdir()
    command = [sys.executable, "-m", "bentofs.mount", "mount", mountpoint, "--store", base / "models", "--foreground"]
    command += ["--engine", engine, "--allow-other", "--incoming-mode", "1777"]
    environment = {**os.environ, "XDG_STATE_HOME": str(base / "state"), "XDG_CACHE_HOME": str(base / "cache")}
    with (base / "log").open("wb") as log, subprocess.Popen(map(str, command), stderr=log, env=environment) as daemon:
        try:
            while not (mountpoint / "README.txt").exists():
                if daemon.poll() is not None:
                    raise SystemExit((base / "log").read_text())
                time.sleep(0.1)
            yield mountpoint
        finally:
            daemon.send_signal(signal.SIGTERM)


def reason_of(line: str) -> str | None:
    """Return the reason of a failed step, or None if nothing explains it."""
    step = _STEP.match(line)
    if step is None:
        return "follows"
    for name, patterns in REASONS.items():
        texts = (step["call"], step["expected"], step["got"].strip())
        if all(re.fullmatch(pattern, text) for pattern, text in zip(patterns, texts, strict=True)):
            return name
    return None


def run(tests: Path, folder: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """Run all tests in a directory. Return the count of passed and failed steps by group, and the unexplained lines."""

    def run_one(file: Path) -> tuple[str, list[str]]:
        done = subprocess.run(
            ["sh", file],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_FILE_SECONDS,
            check=False,
        )
        return file.parent.name, done.stdout.splitlines()

    counts: dict[str, Counter[str]] = {}
    unexplained = []
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        for group, lines in pool.map(run_one, sorted(tests.glob("*/*.t"))):
            count = counts.setdefault(group, Counter())
            for line in lines:
                if line.startswith("ok "):
                    count["passed"] += 1
                elif line.startswith("not ok "):
                    reason = reason_of(line)
                    count[reason or "unexplained"] += 1
                    if reason is None:
                        unexplained.append(f"{group}: {line}")
    return counts, unexplained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", default="kernel", choices=["kernel", "libfuse2"])
    parser.add_argument("--write", action="store_true", help="pin the counts of this run")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("pjdfstest needs root: it becomes other users")
    found: dict[str, dict[str, dict[str, int]]] = {}
    unexplained = []
    with tempfile.TemporaryDirectory(prefix="bentofs-pjdfstest-") as base:
        os.chmod(base, 0o755)
        build(arguments.folder, Path(base, "suite"))
        with mounted(Path(base), arguments.engine) as mountpoint:
            (mountpoint / "incoming" / "t").mkdir()
            for name, folder in (("incoming", "incoming/t"), ("tree", "models/m/v1")):
                counts, lines = run(Path(base, "suite", "tests"), mountpoint / folder)
                found[name] = {group: dict(sorted(count.items())) for group, count in sorted(counts.items())}
                unexplained += [f"{name}: {line}" for line in lines]
    for line in unexplained:
        print(line)
    if arguments.write:
        PINNED.write_text(json.dumps(found, indent=1) + "\n")
        return
    pinned = json.loads(PINNED.read_text())
    differences = [
        f"{name}/{group}: {found[name].get(group)} instead of {pinned[name].get(group)}"
        for name in pinned
        for group in sorted(pinned[name].keys() | found[name].keys())
        if found[name].get(group) != pinned[name].get(group)
    ]
    print("\n".join(differences) or "all as pinned")
    raise SystemExit(bool(differences or unexplained))


if __name__ == "__main__":
    main()
