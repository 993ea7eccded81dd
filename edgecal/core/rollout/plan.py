"""Which devices go together: waves cut from the selected targets by exact integer rules.

Waves are cumulative. `1,10%,100%` over 25 devices reads: first one device, then so many more that a
tenth has gone (2.5, rounded up: 3), then all. Refused targets are taken out before and never count.

>>> [len(wave) for wave in cut_waves(parse_waves("1,10%,100%"), [f"d{n}" for n in range(25)])]
[1, 2, 22]

Every wave adds at least one device, in the inventory's order, as long as there is one:

>>> cut_waves(parse_waves("1,10%,100%"), ["a", "b", "c"])
(('a',), ('b',), ('c',))
>>> cut_waves(parse_waves("1,10%,100%"), ["a", "b"])
(('a',), ('b',))
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_BOUND: Final = re.compile(r"(?P<number>[0-9]{1,9})(?P<percent>%?)")
MOST_BOUNDS: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def parse_rollout_name(text: str, *, source: str) -> str:
    """Read the name of a rollout: it stands in commands, journals and file names.

    Raises
    ------
    InputError
        If it is longer than 100 characters, or holds others than it may.
    """
    if not _NAME.fullmatch(text):
        raise InputError(
            f"expected a name of letters, digits, '.', '_' and '-', found {text!r:.80}",
            where=source,
            remedy="choose a shorter or plainer name",
        )
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How far a wave reaches, waves before it included: a count, or a share in percent."""

    number: int
    percent: bool

    def __str__(self) -> str:
        """Spell it as `parse_waves` reads it."""
        return f"{self.number}%" if self.percent else str(self.number)

    def reach(self, total: int) -> int:
        """Say how many of `total` devices that is; shares are rounded up.

        >>> Bound(number=10, percent=True).reach(25), Bound(number=10, percent=True).reach(20)
        (3, 2)
        """
        return -(-self.number * total // 100) if self.percent else min(self.number, total)


def parse_waves(text: str, *, source: str = "--waves") -> tuple[Bound, ...]:
    """Read waves such as `1,10%,100%`.

    Raises
    ------
    InputError
        If a part is neither a count nor a whole percentage, is 0 or beyond 100%, or reaches no
        further than the one of the same sort before it.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST_BOUNDS:
        raise InputError(
            f"expected at most {MOST_BOUNDS} waves, found {len(parts)}",
            where=source,
            remedy="a handful of waves is enough: 1,10%,100%",
        )
    bounds: list[Bound] = []
    for part in parts:
        bound = _bound(part, source=source)
        before = [one.number for one in bounds if one.percent == bound.percent]
        if before and bound.number <= before[-1]:
            raise InputError(
                f"the wave {part} comes after one that reaches as far, in {text!r:.80}",
                where=source,
                remedy="waves include those before them: write them ascending, as 1,10%,100%",
            )
        bounds.append(bound)
    return tuple(bounds)


def _bound(part: str, *, source: str) -> Bound:
    match = _BOUND.fullmatch(part)
    number = int(match["number"]) if match else 0
    percent = bool(match and match["percent"])
    if number < 1 or (percent and number > 100):
        raise InputError(
            f"expected a number of devices or a share from 1% to 100%, found {part!r:.60}",
            where=source,
            remedy="write waves such as 1,10%,100%",
        )
    return Bound(number=number, percent=percent)


def cut_waves(
    bounds: Sequence[Bound], targets: Sequence[str], *, source: str = "--waves"
) -> tuple[tuple[str, ...], ...]:
    """Share out the targets, in their order. Bounds that nobody is left for give no wave.

    Raises
    ------
    InputError
        If there is no target, one stands there twice, or some are in no wave.
    """
    if not targets:
        raise InputError(
            "no device is left to roll out to",
            where=source,
            remedy="select others, or mend what they were refused for",
        )
    twice = [name for name, times in Counter(targets).items() if times > 1]
    if twice:
        raise InputError(
            f"the target {twice[0]!r} is selected twice",
            where=source,
            remedy="give every device one name in the inventory",
        )
    waves: list[tuple[str, ...]] = []
    gone = 0
    for bound in bounds:
        reach = min(max(bound.reach(len(targets)), gone + 1), len(targets))
        if reach > gone:
            waves.append(tuple(targets[gone:reach]))
        gone = reach
    if gone < len(targets):
        raise InputError(
            f"the waves {','.join(map(str, bounds))} reach {gone} of {len(targets)} devices",
            where=source,
            remedy="end them with 100%, or select fewer devices",
        )
    return tuple(waves)
