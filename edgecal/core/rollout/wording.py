"""How gates, conditions, times and pauses of a rollout are written, in options and in settings.

>>> parse_gate("10%,8", source="--failures")
Gate(minimum=8, percent=10)
>>> parse_condition("90%,1", source="--success")
Condition(minimum=1, percent=90)
>>> parse_duration("10m", source="--soak")
600000
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from edgecal.core.rollout.gates import Condition, Gate
from edgecal.errors import InputError

_SHARE: Final = re.compile(r"(?P<number>[0-9]{1,3})%")
_COUNT: Final = re.compile(r"[0-9]{1,9}")
_DURATION: Final = re.compile(r"(?P<number>[0-9]{1,11}(?:\.[0-9]{1,3})?)(?P<unit>ms|s|m|h|d)")
_UNIT_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_LONGEST_MS: Final = 366 * _UNIT_MS["d"]
_NEVER: Final = "never"


def parse_gate(text: str, *, source: str) -> Gate:
    """Read when devices that went wrong are too many: a share, a least number, or both.

    Both must be reached. What is left out does not matter: a share alone trips from one device on,
    a number alone whatever share it is.

    >>> parse_gate("20%", source="--failures"), parse_gate("3", source="--failures")
    (Gate(minimum=1, percent=20), Gate(minimum=3, percent=0))

    Raises
    ------
    InputError
        If it says neither, one of them twice, a share beyond 100%, or the number 0.
    """
    minimum, percent = _share_and_count(text, source=source, example="10%,8")
    return Gate(minimum=minimum, percent=percent)


def parse_missing(text: str, *, source: str) -> Gate | None:
    """Read when unreachable devices are too many; `never` if they stop no rollout.

    >>> parse_missing("never", source="--missing"), parse_missing("50%,3", source="--missing")
    (None, Gate(minimum=3, percent=50))

    Raises
    ------
    InputError
        If it is neither `never` nor a gate.
    """
    return None if text.strip() == _NEVER else parse_gate(text, source=source)


def parse_condition(text: str, *, source: str) -> Condition:
    """Read when a wave has passed, in the words of a gate.

    >>> parse_condition("80%", source="--success"), parse_condition("80%, 3", source="--success")
    (Condition(minimum=1, percent=80), Condition(minimum=3, percent=80))

    Raises
    ------
    InputError
        As for a gate.
    """
    minimum, percent = _share_and_count(text, source=source, example="90%,1")
    return Condition(minimum=minimum, percent=percent)


def spell_gate(gate: Gate | Condition | None) -> str:
    """Write a gate or condition as it is read.

    >>> spell_gate(Gate(minimum=8, percent=10)), spell_gate(Gate(minimum=3, percent=0))
    ('10%,8', '3')
    >>> spell_gate(Condition(minimum=1, percent=90)), spell_gate(None)
    ('90%', 'never')
    """
    if gate is None:
        return _NEVER
    if gate.percent == 0:
        return str(gate.minimum)
    return f"{gate.percent}%" if gate.minimum == 1 else f"{gate.percent}%,{gate.minimum}"


def _share_and_count(text: str, *, source: str, example: str) -> tuple[int, int]:
    parts = [part.strip() for part in text.split(",")] if len(text) < 80 else [text]
    shares = [int(match["number"]) for part in parts if (match := _SHARE.fullmatch(part))]
    counts = [int(part) for part in parts if _COUNT.fullmatch(part)]
    if (
        len(shares) > 1
        or len(counts) > 1
        or len(shares) + len(counts) != len(parts)
        or max(shares, default=0) > 100
        or min(counts, default=1) < 1
    ):
        raise InputError(
            f"expected a share to 100%, a number of devices from 1, or both, found {text!r:.60}",
            where=source,
            remedy=f"write it like {example}: such a share, and at least so many devices",
        )
    return min(counts, default=1), max(shares, default=0)


def parse_duration(text: str, *, source: str) -> int:
    """Read a time as milliseconds: a number, and one of `ms`, `s`, `m`, `h`, `d` behind it.

    >>> [parse_duration(text, source="--deadline") for text in ("30s", "1.5h", "2d", "0")]
    [30000, 5400000, 172800000, 0]

    Only 0 needs no unit: nobody should have to guess what 90 is.

    Raises
    ------
    InputError
        If it is no such time, or longer than a year.
    """
    match = _DURATION.fullmatch(text.strip()) if text.strip() != "0" else None
    milliseconds = 0 if match is None else round(float(match["number"]) * _UNIT_MS[match["unit"]])
    if (match is None and text.strip() != "0") or milliseconds > _LONGEST_MS:
        raise InputError(
            f"expected a time of up to a year such as 30s, 10m or 24h, found {text!r:.60}",
            where=source,
            remedy="put s, m, h or d behind the number",
        )
    return milliseconds


def spell_duration(milliseconds: int) -> str:
    """Write a time as it is read, in the largest unit that needs no fraction.

    >>> spell_duration(600_000), spell_duration(5_400_000), spell_duration(0)
    ('10m', '90m', '0')
    """
    if milliseconds == 0:
        return "0"
    unit = next(unit for unit, size in _UNIT_MS.items() if milliseconds % size == 0)
    return f"{milliseconds // _UNIT_MS[unit]}{unit}"


def parse_pauses(text: str, *, waves: int, source: str) -> frozenset[int]:
    """Read after which waves a person must promote, as indices; people count from 1.

    >>> sorted(parse_pauses("1,2", waves=3, source="--pause-after"))
    [0, 1]
    >>> sorted(parse_pauses("all", waves=3, source="--pause-after"))
    [0, 1, 2]

    Parameters
    ----------
    waves
        How many bounds `parse_waves` gave.

    Raises
    ------
    InputError
        If there is no such wave.
    """
    if text.strip() == "all":
        return frozenset(range(waves))
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) if _COUNT.fullmatch(part) else 0 for part in parts]
    for part, number in zip(parts, numbers, strict=True):
        if not 1 <= number <= waves:
            raise InputError(
                f"expected waves from 1 to {waves}, or 'all', found {part!r:.60}",
                where=source,
                remedy="count the waves from 1, with commas between them",
            )
    return frozenset(number - 1 for number in numbers)


def parse_hook(text: str, *, source: str) -> tuple[str, ...]:
    """Read a program and its arguments, apart from one another as a shell would take them.

    >>> parse_hook("notify --channel 'the fleet'", source="--hook")
    ('notify', '--channel', 'the fleet')

    Nothing but quotes is understood: no variables, no pipes.

    Raises
    ------
    InputError
        If there is no program, or a quote has no end.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words or not words[0] or "\0" in text:
        raise InputError(
            f"expected a program and its arguments, found {text!r:.80}",
            where=source,
            remedy="quote words with blanks in them: --hook \"notify --channel 'the fleet'\"",
        )
    return tuple(words)
