"""Text of others in lines of ours: it stays within its line, and steers no terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Write control and format characters as Python's escapes; all else stays as it is."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )
