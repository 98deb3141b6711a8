"""Text from a store, made fit for a terminal and a log."""


def printable(text: str) -> str:
    """A path as a user may see it: no terminal escapes, no undecodable bytes raw."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
