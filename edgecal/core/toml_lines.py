"""Where the tables and keys of a TOML file stand, which its decoder forgets."""

from __future__ import annotations

import re
from typing import Final

_WORD: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_DOTTED: Final = rf"{_WORD}(?:[ \t]*\.[ \t]*{_WORD})*"
_KEY: Final = re.compile(rf"[ \t]*(?P<key>{_DOTTED})[ \t]*=")
_TABLE: Final = re.compile(rf"[ \t]*\[{{1,2}}[ \t]*(?P<key>{_DOTTED})[ \t]*\]{{1,2}}")
_PART: Final = re.compile(_WORD)
# What a value is made of, as far as its end is concerned; texts first, for they may hold the rest
_PIECE: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]"
    r"|[^\[\]{}\n\"'#]+",
    re.DOTALL,
)

Lines = dict[tuple[str, ...], int]
"""The first line of each table and key, counted from 1, by path."""


def find_lines(text: str) -> Lines:
    """Locate tables and keys of a text that a TOML decoder has taken.

    Keys of inline tables have no line of their own; what cannot be made out is left out.
    """
    lines: Lines = {}
    table: tuple[str, ...] = ()
    at, number = 0, 1
    while at < len(text):
        if head := _TABLE.match(text, at):
            table = _path(head["key"])
            for end in range(1, len(table) + 1):
                lines.setdefault(table[:end], number)
        elif key := _KEY.match(text, at):
            path = (*table, *_path(key["key"]))
            for end in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:end], number)
            head = key
        end = _end_of_statement(text, head.end() if head else at)
        number += text.count("\n", at, end)
        at = end
    return lines


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(_plain(one[0]) for one in _PART.finditer(dotted))


def _plain(word: str) -> str:
    if word[0] not in "\"'":
        return word
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word[0] == '"' else word[1:-1]


def _end_of_statement(text: str, at: int) -> int:
    """Find the line break that ends a statement, beyond its texts, lists and inline tables."""
    depth = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            return len(text)
        at = piece.end()
        if piece[0] in {"[", "{"}:
            depth += 1
        elif piece[0] in {"]", "}"}:
            depth -= 1
        elif piece[0] == "\n" and depth <= 0:
            break
    return at
