from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.workflows.choosing import choose
from edgecal.workflows.collect import JudgingRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgecal.ports import Network
    from edgecal.workflows.choosing import Choice

ONES = np.ones((1, 4), np.float32)


class Noisy:
    """A network whose outputs are off by as much as its only scale says, run by run."""

    def __init__(self, journal: list[tuple[float, int]], scale: float) -> None:
        self.journal = journal
        self.scale = scale

    def run(
        self, feeds: Mapping[str, npt.NDArray[np.generic]]
    ) -> dict[str, npt.NDArray[np.float32]]:
        number = int(feeds["x"][0, 0])
        self.journal.append((round(self.scale, 6), number))
        # the candidate 0.2 is good at first, and bad in the end
        error = 5.0 if self.scale == np.float32(0.2) and number == 9 else self.scale
        return {"y": ONES * np.float32(1 + error)}


class Bench:
    """A backend that keeps a journal of what it ran."""

    def __init__(self) -> None:
        self.journal: list[tuple[float, int]] = []
        self.made: list[float] = []

    def simulate(self, scales: Mapping[str, float]) -> Network:
        self.made.append(round(scales["t"], 6))
        return Noisy(self.journal, scales["t"])  # type: ignore[return-value]


RUNS = [
    JudgingRun(inputs={"x": np.full((1, 1), number, np.float32)}, fp32={"y": ONES})
    for number in range(10)
]


def choice(bench: Bench, runs: Sequence[JudgingRun] = RUNS, **errors: float) -> Choice:
    candidates = {
        name: (lambda error=error: {"t": np.float32(error)}) for name, error in errors.items()
    }
    return choose(candidates, bench, runs, 2, lambda _done, _all: None)  # type: ignore[arg-type]


def test_the_least_error_wins_and_of_equals_the_first() -> None:
    assert choice(Bench(), a=0.5, b=0.3, c=0.4).name == "b"
    assert choice(Bench(), a=0.3, b=0.5, c=0.3).name == "a"


def test_those_far_behind_do_the_heats_only() -> None:
    bench = Bench()
    found = choice(bench, a=0.5, b=0.3, c=0.31)
    assert found.heats == 4
    done = {name: sorted(n for error, n in bench.journal if error == name) for name in (0.5, 0.31)}
    assert done == {0.5: [0, 2, 4, 6], 0.31: [*range(10)]}
    assert found.errors == pytest.approx({"b": 0.3, "c": 0.31})
    assert found.dropped == pytest.approx({"a": 0.5})


def test_a_finalist_may_pass_whoever_led_after_the_heats() -> None:
    found = choice(Bench(), a=0.2, b=0.21)
    assert found.name == "b"
    assert len(found.trial.outputs) == 8
    assert all(np.allclose(one["y"], 1.21) for one in found.trial.outputs)


@pytest.mark.parametrize(
    ("errors", "chosen"),
    [
        ({"a": 0.314, "b": 0.31, "c": 0.3}, "a"),
        ({"a": 0.316, "b": 0.31, "c": 0.3}, "b"),
        ({"a": 0.33, "b": 0.32, "c": 0.3}, "c"),
        ({"a": 0.32, "b": 0.3, "c": 0.29}, "b"),
    ],
)
def test_of_those_within_a_twentieth_of_the_least_error_the_first_wins(
    errors: dict[str, float], chosen: str
) -> None:
    bench = Bench()
    found = choice(bench, RUNS, **errors)
    assert found.name == chosen
    assert found.errors == pytest.approx(errors)
    assert found.trial.error == pytest.approx(errors[chosen])
    assert len(found.trial.outputs) == 8
    assert all(np.allclose(one["y"], 1 + errors[chosen]) for one in found.trial.outputs)


def test_three_at_most_go_on_after_the_heats_and_the_winner_does_no_run_twice() -> None:
    bench = Bench()
    found = choice(bench, a=0.33, b=0.303, c=0.32, d=0.31, e=0.3)
    assert list(found.errors) == ["b", "d", "e"]
    assert list(found.dropped) == ["a", "c"]
    assert found.name == "b"
    assert len(bench.journal) == 5 * 4 + 3 * 6
    assert len(set(bench.journal)) == len(bench.journal)


def test_equal_scales_are_run_once() -> None:
    bench = Bench()
    found = choice(bench, a=0.3, b=0.3)
    assert bench.made == [0.3]
    assert sorted(n for _, n in bench.journal) == [*range(10)]
    assert found.errors == {"a": found.errors["b"], "b": found.errors["a"]}


@pytest.mark.parametrize("count", [1, 3, 4, 5, 7, 8, 9])
def test_few_runs_are_done_whole_by_the_winner(count: int) -> None:
    bench = Bench()
    found = choice(bench, RUNS[:count], a=0.5, b=0.3)
    assert sorted(n for error, n in bench.journal if error == 0.3) == [*range(count)]
    assert len(found.trial.outputs) == min(8, count)
    assert found.trial.error == pytest.approx(0.3)


def test_one_candidate_is_simulated_once() -> None:
    bench = Bench()
    assert choice(bench, a=0.3).trial.error == pytest.approx(0.3)
    assert bench.made == [0.3]
    assert len(bench.journal) == 10
