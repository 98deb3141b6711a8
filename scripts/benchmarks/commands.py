"""Run other programs: always with a time limit, and with their own output when they fail."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence


class BenchError(Exception):
    """The benchmark itself cannot go on. The sentence is for the reader at the terminal."""


def run(argv: Sequence[str], limit: float, *, env: Mapping[str, str] | None = None, stdout: str | None = None) -> str:
    """Run a program to its end. Return its output, or write it to the file `stdout` if one is named."""
    command = " ".join(argv)
    sink = os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) if stdout else subprocess.PIPE
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.PIPE, timeout=limit, env=env, check=False
        )
    except FileNotFoundError:
        raise BenchError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"`{command}` did not end within {limit:.0f} s") from None
    finally:
        if stdout:
            os.close(sink)
    if done.returncode:
        raise BenchError(f"`{command}` failed ({done.returncode}): {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode(errors="replace") if done.stdout else ""


def seconds(argv: Sequence[str], limit: float, *, env: Mapping[str, str] | None = None, stdout: str = "") -> float:
    """Run a program and return its time in seconds, start included."""
    start = time.perf_counter()
    run(argv, limit, env=env, stdout=stdout or os.devnull)
    return time.perf_counter() - start


# The script times itself, so that its own start does not count. It is a program of its own, so that a stuck mount
# cannot stop the bench.
FIRST_BYTES = """
import os, sys, time
start = time.perf_counter()
descriptor = os.open(sys.argv[1], os.O_RDONLY)
data = os.pread(descriptor, int(sys.argv[2]), 0)
print(time.perf_counter() - start)
sys.exit(len(data) != int(sys.argv[2]))
"""


def first_bytes(path: str, count: int, limit: float) -> float:
    """Return the seconds from opening a file to having its first `count` bytes."""
    return float(run([sys.executable, "-S", "-c", FIRST_BYTES, path, str(count)], limit))


def drop_pages(path: str) -> None:
    """Drop this one file's pages from the kernel's cache, and no other's (dd's documented way)."""
    run(["dd", f"if={path}", "iflag=nocache", "count=0", "status=none"], 60)


def say(text: str) -> None:
    """Report progress on stderr: stdout holds the table."""
    print(text, file=sys.stderr, flush=True)
