"""Names from files as a terminal can show them."""

from __future__ import annotations


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""Write what would move the cursor, or cannot be written in an encoding, as in `\x1b`."""
    if not text.isprintable():
        text = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    if text.isascii():
        return text
    return text.encode(encoding, "backslashreplace").decode(encoding)
