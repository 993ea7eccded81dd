"""What `auto` does: tries sets of scales on judging runs, and takes the first of the best.

Running INT8 is what costs most, so all of them do a few runs, and only the few that are near the
best do the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.workflows.judging import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from edgecal.ports import Backend
    from edgecal.workflows.collect import JudgingRun
    from edgecal.workflows.judging import Trial

_FEWEST: Final = 4
"""Runs that every candidate does at least, where there are so many; else a quarter of them."""
_NEAR: Final = 1.2
"""Times the least error: whoever lies above it after the heats does no more runs."""
_MOST: Final = 3
"""So many do them at most."""
EQUAL: Final = 1.05
"""Times the least error: runs are too few to tell apart what lies below it.

Measured on nine networks, by 10 and by 32 runs out of many: to take the first of them and not the
least costs 0.02 dB at most, on average, on pictures of the same kind, and gains 0.05 to 0.07 dB on
other ones, most of them of another kind.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen, and how all candidates did."""

    name: str
    trial: Trial
    errors: Mapping[str, float]
    """Relative error of simulated outputs on all runs, of those that did them."""
    dropped: Mapping[str, float]
    """The same on the heats, of those that were too far behind to go on."""
    heats: int
    """How many runs everybody did."""


def choose(
    candidates: Mapping[str, Callable[[], Mapping[str, np.float32]]],
    backend: Backend,
    runs: Sequence[JudgingRun],
    workers: int,
    progress: Callable[[int, int], None],
) -> Choice:
    """Take the candidate whose scales make the least error; of those as good as equal the first.

    Parameters
    ----------
    candidates
        Make the scales of each, by tensor; the ones to be preferred come first.
    """
    count = max(_FEWEST, len(runs) // 4)
    heats = range(0, len(runs), max(1, len(runs) // count))[:count]
    judges: dict[str, Judge] = {}
    seen: list[tuple[Mapping[str, np.float32], Judge]] = []
    for number, (name, make) in enumerate(candidates.items()):
        progress(number, len(candidates))
        scales = make()
        twin = next((judge for known, judge in seen if known == scales), None)
        if twin is None:
            twin = Judge(backend, scales, runs, workers)
            twin.judge(heats)
            seen.append((scales, twin))
        judges[name] = twin
    final = _finalists([judge for _, judge in seen])
    for _, judge in seen:
        if judge not in final:
            judge.rest()
    others = [number for number in range(len(runs)) if number not in heats]
    for number, judge in enumerate(final, start=1):
        judge.judge(others)
        best = _first_of_the_best(final[:number])
        for one in final[:number]:
            if one is not best:
                one.rest()
    progress(len(candidates), len(candidates))
    return Choice(
        name=next(name for name, judge in judges.items() if judge is best),
        trial=best.trial(),
        errors={name: judge.error for name, judge in judges.items() if judge in final},
        dropped={name: judge.error for name, judge in judges.items() if judge not in final},
        heats=len(heats),
    )


def _finalists(judges: Sequence[Judge]) -> list[Judge]:
    limit = min(one.error for one in judges) * _NEAR
    near = [one for one in judges if one.error <= limit]
    least = sorted(near, key=lambda one: one.error)[:_MOST]
    return [one for one in near if one in least]


def _first_of_the_best(judges: Sequence[Judge]) -> Judge:
    limit = min(one.error for one in judges) * EQUAL
    return next(one for one in judges if one.error <= limit)
