"""The fenced blocks of the project's documents, and the commands in them.

A block's kind is the word after its opening fence. A block of `$ command` lines, each with the output that it shows,
has no word. `tests/interop/test_readme.py` says which test runs which kind.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.harness import ROOT, run

CONSOLE = "console"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Texts that differ from run to run and from machine to machine: numbers, digests, names of log files, months.
_VARIES = re.compile(
    r"[0-9a-f]{16,}|[0-9]+(?:[.,:-][0-9]+)*(?: bytes| [kMG]B)?|"
    r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b|request [0-9a-f-]+"
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    kind: str
    text: str

    def steps(self) -> "Iterator[Step]":
        """Yield the commands of a block of `$ command` lines."""
        step: Step | None = None
        for line in self.text.splitlines():
            if line.startswith("$ "):
                if step is not None:
                    yield step
                step = Step(line[2:])
            elif step is not None:
                step.shown.append(line)
        if step is not None:
            yield step

    def commands(self) -> list[str]:
        """Return the command lines of a block without output. Comments are left out, broken lines are joined."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        words = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
        return [line for line in words if line]


@dataclass
class Step:
    """A command, and the lines that the README shows for it. A line `...` stands for any lines."""

    command: str
    shown: list[str] = field(default_factory=list)

    def missing(self, printed: str) -> list[str]:
        """Return the shown lines that do not occur in the output. Numbers may differ."""
        actual = {_plain(line) for line in printed.splitlines()}
        return [line for line in self.shown if line != "..." and _plain(line) not in actual]


def blocks(*documents: str) -> list[Block]:
    """Return all fenced blocks of documents, in their order; without arguments, those of all documents."""
    names = documents or tuple(run("git", "-C", ROOT, "ls-files", "*.md").stdout.splitlines())
    found = []
    for name in names:
        text = (ROOT / name).read_text()
        here = [
            Block(name, kind or (CONSOLE if body.startswith("$ ") else ""), body) for kind, body in _BLOCK.findall(text)
        ]
        assert 2 * len(here) == len(re.findall("^ *```", text, re.MULTILINE)), f"{name} has a fence that is not read"
        found += here
    return found


def _plain(line: str) -> str:
    return " ".join(_VARIES.sub("#", line).split())
