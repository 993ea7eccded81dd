"""What `auto` does: tries sets of scales on judging runs, and takes the one of least error.

Running INT8 is what costs most, so all of them do a few runs, and only those that are near the best
do the others.
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
    """Take the candidate whose scales make the least error; of equal ones the first.

    Parameters
    ----------
    candidates
        Make the scales of each, by tensor.
    """
    count = max(_FEWEST, len(runs) // 4)
    heats = range(0, len(runs), max(1, len(runs) // count))[:count]
    judges: dict[str, Judge] = {}
    seen: list[tuple[Mapping[str, np.float32], Judge]] = []
    best: Judge | None = None
    for number, (name, make) in enumerate(candidates.items()):
        progress(number, len(candidates))
        scales = make()
        twin = next((judge for known, judge in seen if known == scales), None)
        if twin is not None:
            judges[name] = twin
            continue
        judges[name] = judge = Judge(backend, scales, runs, workers)
        seen.append((scales, judge))
        judge.judge(heats)
        if best is None:
            best = judge
        elif judge.error < best.error:
            best.rest()
            best = judge
        else:
            judge.rest()
    if best is None:
        raise AssertionError("there is no candidate")
    limit = best.error * _NEAR
    others = [number for number in range(len(runs)) if number not in heats]
    final = [judge for _, judge in seen if judge.error <= limit]
    for judge in final:
        judge.judge(others)
        if judge is not best:
            judge.rest()
    best = min(final, key=lambda one: one.error)
    progress(len(candidates), len(candidates))
    return Choice(
        name=next(name for name, judge in judges.items() if judge is best),
        trial=best.trial(),
        errors={name: judge.error for name, judge in judges.items() if judge in final},
        dropped={name: judge.error for name, judge in judges.items() if judge not in final},
        heats=len(heats),
    )
