"""The commands of the README, read from its text: blocks of `$ command` lines, each with the output that it shows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Texts that differ from run to run and from machine to machine: numbers, digests, names of log files, months.
_VARIES = re.compile(
    r"[0-9a-f]{16,}|[0-9]+(?:[.,:-][0-9]+)*(?: bytes| [kMG]B)?|"
    r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b|request [0-9a-f-]+"
)


@dataclass
class Step:
    """A command, and the lines that the README shows for it. A line `...` stands for any lines."""

    command: str
    shown: list[str] = field(default_factory=list)

    def missing(self, printed: str) -> list[str]:
        """Return the shown lines that do not occur in the output. Numbers may differ."""
        actual = {_plain(line) for line in printed.splitlines()}
        return [line for line in self.shown if line != "..." and _plain(line) not in actual]


def steps(text: str) -> Iterator[Step]:
    """Yield the commands of a document in its order."""
    for block in _BLOCK.finditer(text):
        step: Step | None = None
        for line in block[1].splitlines():
            if line.startswith("$ "):
                if step is not None:
                    yield step
                step = Step(line[2:])
            elif step is not None:
                step.shown.append(line)
        if step is not None:
            yield step


def _plain(line: str) -> str:
    return " ".join(_VARIES.sub("#", line).split())
