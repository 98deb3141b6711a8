"""fsx's pattern: random reads, writes, truncations and the like on one file, against the same in memory.

A campaign of an hour with each engine: BENTOFS_IO_SECONDS=3600 scripts/test tests/mount/kernel/test_random_io.py
"""

import mmap
import os
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Mounted

STEPS = int(os.environ.get("BENTOFS_IO_STEPS", "1500"))
SECONDS = float(os.environ.get("BENTOFS_IO_SECONDS", "0"))  # it goes on for so long after the steps
SEED = int(os.environ.get("BENTOFS_IO_SEED", "1"))
SIZE = 3 << 20  # the file's maximum length in bytes


class RandomIO:
    """A file being uploaded to `incoming/`, and its expected bytes."""

    def __init__(self, path: Path, dice: random.Random) -> None:
        self.path = path
        self.dice = dice
        self.content = bytearray()
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        self.steps: list[Callable[[], str]] = [
            *[self.write] * 5,
            *[self.read] * 5,
            self.append,
            self.truncate,
            self.allocate,
            self.map,
            self.reopen,
            self.rename,
            self.copy_within,
        ]

    def step(self) -> str:
        """Do one operation, and return its description."""
        return self.dice.choice(self.steps)()

    def size(self) -> int:
        """Return a size near a page or request size, or any other."""
        border = self.dice.choice([1, 512, 4096, 131_072, 1 << 20])
        return max(1, self.dice.choice([border - 1, border, border + 1, self.dice.randrange(1, 300_000)]))

    def write(self) -> str:
        offset = self.dice.randrange(len(self.content) + 10_000)
        data = self.dice.randbytes(min(self.size(), SIZE - offset)) if offset < SIZE else b""
        assert os.pwrite(self.descriptor, data, offset) == len(data)
        if data:
            self.content.extend(bytes(max(0, offset - len(self.content))))
            self.content[offset : offset + len(data)] = data
        return f"write {offset} {len(data)}"

    def read(self) -> str:
        offset, size = self.dice.randrange(len(self.content) + 1), self.size()
        assert os.pread(self.descriptor, size, offset) == self.content[offset : offset + size]
        return f"read {offset} {size}"

    def append(self) -> str:
        data = self.dice.randbytes(min(self.size(), max(0, SIZE - len(self.content))))
        os.close(self.descriptor)  # two writers of one file at once are an error here
        with open(self.path, "ab", buffering=0) as file:
            file.write(data)
        self.descriptor = os.open(self.path, os.O_RDWR)
        self.content += data
        return f"append {len(data)}"

    def truncate(self) -> str:
        length = self.dice.randrange(min(SIZE, 2 * len(self.content) + 100))
        if self.dice.random() < 0.5:
            os.ftruncate(self.descriptor, length)
        else:
            self.reopen()
            os.truncate(self.path, length)
        self.content[length:] = bytes(max(0, length - len(self.content)))
        return f"truncate {length}"

    def allocate(self) -> str:
        offset, length = self.dice.randrange(len(self.content) + 1), self.size()
        length = min(length, max(1, SIZE - offset))
        os.posix_fallocate(self.descriptor, offset, length)
        self.content.extend(bytes(max(0, offset + length - len(self.content))))
        return f"allocate {offset} {length}"

    def map(self) -> str:
        if not self.content:
            return "map nothing"
        with mmap.mmap(self.descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
            assert mapped[:] == self.content
        return "map"

    def reopen(self) -> str:
        os.close(self.descriptor)
        self.descriptor = os.open(self.path, os.O_RDWR)
        return "reopen"

    def rename(self) -> str:
        self.path = self.path.rename(self.path.with_name(f".random-{self.dice.randrange(5)}"))
        return f"rename {self.path.name}"

    def copy_within(self) -> str:
        size = self.size()
        source, target = (self.dice.randrange(len(self.content) + 1) for _ in range(2))
        size = min(size, len(self.content) - source, abs(target - source), SIZE - target)
        if size <= 0:
            return "copy nothing"
        done = os.copy_file_range(self.descriptor, self.descriptor, size, source, target)
        self.content.extend(bytes(max(0, target + done - len(self.content))))
        self.content[target : target + done] = self.content[source : source + done]
        return f"copy {source} {target} {done}"

    def check(self) -> None:
        """Check the size by handle and by path."""
        assert os.fstat(self.descriptor).st_size == self.path.stat().st_size == len(self.content)


@pytest.mark.parametrize("engine", ["kernel", "libfuse2"])
def test_random_io(store: Path, mounted: Callable[..., Mounted], engine: str) -> None:
    mount = mounted(store, options=["--engine", engine], limit=36_000)
    file = RandomIO(mount.path / "incoming" / ".random", random.Random(SEED))
    done: deque[str] = deque(maxlen=30)
    number, end = 0, time.monotonic() + SECONDS
    try:
        while number < STEPS or time.monotonic() < end:
            done.append(file.step())
            if number % 20 == 0:
                file.check()
            number += 1
    except BaseException:
        print("\n".join(done))
        raise
    finally:
        print(f"{number} operations")
    file.check()
    os.close(file.descriptor)
    assert file.path.read_bytes() == file.content
