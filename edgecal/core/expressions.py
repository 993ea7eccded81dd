"""Expressions over names, groups and facts: text to tree and back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST: Final = 10_000
_DEEPEST: Final = 100
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<operator>[&|!()=])"""
    r"""|"(?P<double>[^"]*)"|'(?P<single>[^']*)'"""
    r"""|(?P<word>(?:\[[^\]\s]+\]|[^\s&|!()='"\[\]])+)|(?P<stray>\S))"""
)
_MAGIC: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Word:
    """A name of a target or group, or a glob over both."""

    text: str
    quoted: bool = False
    """Whether it stood in quotes: then it is a name whatever it holds."""
    at: int = field(default=0, compare=False)

    @property
    def is_glob(self) -> bool:
        """Whether it may stand for many names."""
        return not self.quoted and _MAGIC.search(self.text) is not None

    def matches(self, text: str, *, fold: bool = False) -> bool:
        """Compare with a name or value."""
        mine, text = (self.text.lower(), text.lower()) if fold else (self.text, text)
        return fnmatchcase(text, mine) if self.is_glob else text == mine

    def __str__(self) -> str:
        if not self.quoted:
            return self.text
        return f"'{self.text}'" if '"' in self.text else f'"{self.text}"'


@dataclass(frozen=True, slots=True)
class Fact:
    """A comparison of what a target said of itself, or of a variable, with a value."""

    name: str
    value: Word
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


@dataclass(frozen=True, slots=True)
class Not:
    """All that one does not mean."""

    part: Expression

    def __str__(self) -> str:
        return f"!{_inside(self.part, And, Or)}"


@dataclass(frozen=True, slots=True)
class And:
    """What every part means."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " & ".join(_inside(one, And, Or) for one in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """What any part means."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " | ".join(_inside(one, Or) for one in self.parts)


Expression = Word | Fact | Not | And | Or


def _inside(part: Expression, *kinds: type) -> str:
    return f"({part})" if isinstance(part, kinds) else str(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """An expression as it was read."""

    text: str
    expression: Expression
    source: str = "--on"

    def names(self) -> tuple[str, ...]:
        """List the words that are names or groups, and no globs."""
        return tuple(
            one.text
            for one in _leaves(self.expression)
            if isinstance(one, Word) and not one.is_glob
        )

    def facts(self) -> frozenset[str]:
        """Name the facts that it asks about, variables too."""
        return frozenset(one.name for one in _leaves(self.expression) if isinstance(one, Fact))


def _leaves(expression: Expression) -> Iterator[Word | Fact]:
    if isinstance(expression, Word | Fact):
        yield expression
    elif isinstance(expression, Not):
        yield from _leaves(expression.part)
    else:
        for one in expression.parts:
            yield from _leaves(one)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse_selection(text: str, *, source: str = "--on") -> Selection:
    """Read an expression; `!` binds closest, then `&`, then `|`.

    Raises
    ------
    InventoryError
        If it has another form; the message shows where.
    """
    if len(text) > _LONGEST:
        raise InventoryError(
            f"the expression has {len(text)} characters; {_LONGEST} is the most",
            where=source,
            remedy="make a group of these targets in the inventory, and name that",
        )
    parser = _Parser(text, source)
    return Selection(text=text, expression=parser.whole(), source=source)


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._tokens = list(self._tokenize())
        self._at = 0
        self._depth = 0

    def whole(self) -> Expression:
        found = self._or()
        if self._next.kind != "end":
            raise self._expected("'&' or '|'")
        return found

    def _tokenize(self) -> Iterator[_Token]:
        for match in _TOKEN.finditer(self._text):
            kind = match.lastgroup or "stray"
            begin = match.start(kind) - (kind in {"double", "single"})
            text = match[kind]
            if kind == "stray":
                quote = text in "\"'"
                raise wrong_place(
                    f"a quote {text} that is not closed" if quote else f"a stray {text!r}",
                    self._text,
                    begin,
                    self._source,
                )
            yield _Token(text if kind == "operator" else kind, text, begin)
        yield _Token("end", "", len(self._text))

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, kind: str) -> bool:
        taken = self._next.kind == kind
        self._at += taken
        return taken

    def _expected(self, what: str) -> InventoryError:
        found = "the end" if self._next.kind == "end" else repr(self._next.text)
        return wrong_place(
            f"expected {what}, found {found}", self._text, self._next.at, self._source
        )

    def _or(self) -> Expression:
        parts = [self._and()]
        while self._take("|"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Expression:
        parts = [self._not()]
        while self._take("&"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Expression:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise wrong_place(
                f"more than {_DEEPEST} levels", self._text, self._next.at, self._source
            )
        if self._take("!"):
            found: Expression = Not(self._not())
        elif self._take("("):
            found = self._or()
            if not self._take(")"):
                raise self._expected("')'")
        else:
            found = self._leaf()
        self._depth -= 1
        return found

    def _leaf(self) -> Expression:
        first = self._word("a name, a group, fact=value, '!' or '('")
        if first.quoted or not self._take("="):
            return first
        return Fact(first.text, self._word("a value"), first.at)

    def _word(self, what: str) -> Word:
        token = self._next
        if token.kind not in {"word", "double", "single"}:
            raise self._expected(what)
        self._at += 1
        return Word(token.text, token.kind != "word", token.at)


def wrong_place(what: str, text: str, at: int, source: str) -> InventoryError:
    """Make an error that shows the place; a long expression is cut around it."""
    begin = max(0, at - 50)
    shown = "".join(one if one.isprintable() else " " for one in text[begin : at + 30])
    return InventoryError(
        f"{what}\n    {shown}\n    {' ' * (at - begin)}^",
        where=source,
        remedy="write it like 'site-a & !canary & tensorrt=8.5 & module=orin-*'",
    )
