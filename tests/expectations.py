"""The log lines that a test expects: used for this process by `tests.logcheck`, for a daemon's log by
`tests.harness`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Expectation:
    """Records that a test wants to see: a regex, and their exact number (None: one or more, or any number)."""

    pattern: str
    times: int | None = None
    optional: bool = False
    seen: int = 0

    def takes(self, line: str) -> bool:
        if not re.search(self.pattern, line):
            return False
        self.seen += 1
        return True

    def complaint(self) -> str | None:
        if self.times is None and self.seen == 0 and not self.optional:
            return f"expected in the log, but never came: {self.pattern}"
        if self.times is not None and self.seen != self.times:
            return f"expected {self.times} times in the log, but came {self.seen} times: {self.pattern}"
        return None


def complaints(lines: Iterable[str], expectations: list[Expectation]) -> list[str]:
    """Return the errors of a log: lines that nothing expected, and expectations without a line."""
    unexpected = []
    for expectation in expectations:
        expectation.seen = 0
    for line in lines:
        takers = [expectation for expectation in expectations if expectation.takes(line)]
        if not takers:
            unexpected.append(line)
    unmet = [text for expectation in expectations if (text := expectation.complaint())]
    return [f"unexpected in the log: {line}" for line in unexpected] + unmet
