"""Escape text from a store for a terminal or a log."""


def printable(text: str) -> str:
    """Return a path with terminal escapes, undecodable bytes and other unprintable characters escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
