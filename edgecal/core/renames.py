"""Guesses which tensor of a network an entry that matches nothing may have meant."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_SUFFIX: Final = re.compile(r"(?::[0-9]+|\.quantized\.dequantized)\Z")
_NOISE: Final = re.compile(r"[^a-z0-9]")
_COUNT: Final = re.compile(r"[0-9]+")

_MOST_COMPARED: Final = 50
_LONGEST_COMPARED: Final = 120
"""Comparing letter by letter takes the product of everything."""
_ALIKE: Final = 0.75


def guess_renames(unknown: Sequence[str], missing: Sequence[str]) -> dict[str, str]:
    """Match names that differ in spelling, then in numbers, then in a few letters.

    Parameters
    ----------
    unknown
        Entries to guess about; give those that are shown.
    missing
        Tensors without an entry. Each is guessed for once, and only where it is the only one.
    """
    guesses: dict[str, str] = {}
    left = list(missing)
    for spelling in (_plain, _without_numbers):
        open_names = [name for name in unknown if name not in guesses]
        guesses.update(_unique(open_names, left, spelling))
        taken = set(guesses.values())
        left = [name for name in left if name not in taken]
    spelled = Counter(map(_plain, unknown))
    open_names = [
        name
        for name in unknown
        if name not in guesses and _without_numbers(name) and spelled[_plain(name)] == 1
    ]
    short = [name for name in left if len(name) <= _LONGEST_COMPARED][:_MOST_COMPARED]
    for name in open_names[:_MOST_COMPARED]:
        if len(name) <= _LONGEST_COMPARED:
            close = difflib.get_close_matches(name, short, n=1, cutoff=_ALIKE)
            guesses.update((name, one) for one in close)
            short = [one for one in short if one not in close]
    return guesses


def _unique(
    unknown: Iterable[str], missing: Iterable[str], spelling: Callable[[str], str]
) -> dict[str, str]:
    wanted: dict[str, list[str]] = {}
    for name in missing:
        wanted.setdefault(spelling(name), []).append(name)
    given: dict[str, list[str]] = {}
    for name in unknown:
        given.setdefault(spelling(name), []).append(name)
    return {
        names[0]: wanted[key][0]
        for key, names in given.items()
        if key and len(names) == 1 and len(wanted.get(key, ())) == 1
    }


def _plain(name: str) -> str:
    """Leave out what exporters add: `:0`, slashes, dots, case. Numbers alone say nothing."""
    bare = _NOISE.sub("", _SUFFIX.sub("", name).lower())
    return bare if _COUNT.sub("", bare) else ""


def _without_numbers(name: str) -> str:
    return _COUNT.sub("", _plain(name))
