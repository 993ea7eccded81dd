"""When a wave has failed and when it has passed: conditions in whole numbers, no rounding anywhere.

Refused devices count nowhere. *Reached* devices are those that ended in success or failure; *ended*
ones are these and the unreachable.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecal.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Trips when at least `minimum` devices are bad, and at least `percent` of those that count.

    >>> gate = Gate(minimum=2, percent=20)
    >>> gate.trips(1, 1), gate.trips(2, 11), gate.trips(2, 10)
    (False, False, True)

    The first is all there is, but one only; the second is 18.2 percent; the third 20 exactly, and
    "at least" includes it. With `percent=0` the count alone decides:

    >>> Gate(minimum=1, percent=0).trips(0, 100), Gate(minimum=1, percent=0).trips(1, 100)
    (False, True)
    """

    minimum: int
    percent: int

    def __post_init__(self) -> None:
        _check(self.minimum, self.percent)

    def trips(self, bad: int, counted: int) -> bool:
        """Say whether `bad` of `counted` devices are too many."""
        return bad >= self.minimum and 100 * bad >= self.percent * counted

    def room(self, bad: int, counted: int) -> int:
        """Say how many more devices may be under way so that only the last one could trip it.

        More would be too many should all of them go wrong: the gate could not hold them back.

        >>> Gate(minimum=3, percent=10).room(0, 0), Gate(minimum=3, percent=10).room(0, 100)
        (3, 12)

        At first only the minimum protects: three at a time. After a hundred successes eleven
        failures of 111 would not trip it, and twelve of 112 would.
        """
        by_count = self.minimum - bad
        # smallest k with 100 * (bad + k) >= percent * (counted + k)
        lacking, slope = self.percent * counted - 100 * bad, 100 - self.percent
        if lacking <= 0:
            by_share = 0
        elif slope == 0:  # one success, and all devices can no longer be bad
            return _ALL
        else:
            by_share = -(-lacking // slope)
        return max(by_count, by_share, 0)


_ALL = 1 << 31
"""More devices than there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Holds when `minimum` devices of a wave and `percent` of all its devices have succeeded.

    A wave smaller than the minimum needs all of its devices, and an empty one never passes:

    >>> rule = Condition(minimum=3, percent=80)
    >>> rule.holds(3, 5), rule.holds(4, 5), rule.holds(2, 2), rule.holds(1, 2), rule.holds(0, 0)
    (False, True, True, False, False)

    Of all, not of those that have answered so far: a wave of ten does not pass on its first one.
    """

    minimum: int
    percent: int

    def __post_init__(self) -> None:
        _check(self.minimum, self.percent)

    def holds(self, succeeded: int, size: int) -> bool:
        """Judge a wave of `size` devices, the refused not counted."""
        needed = max(1, min(self.minimum, size))
        return succeeded >= needed and 100 * succeeded >= self.percent * size


def _check(minimum: int, percent: int) -> None:
    if minimum < 1 or not 0 <= percent <= 100:
        raise InputError(
            f"expected a minimum from 1 and a percentage from 0 to 100, "
            f"found {minimum} and {percent}",
            remedy="write for example 10% and 2: at least two devices, and a tenth",
        )
