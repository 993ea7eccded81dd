"""Counts for reports."""

from __future__ import annotations

from edgecal.core.rollout.counts import counts, wave_counts
from edgecal.core.rollout.state import OnFailure, Policy
from tests.core.rollout.simulation import Controller, World, plan_of, planned


def test_every_device_is_counted_once_and_the_refused_apart() -> None:
    policy = Policy(on_failure=OnFailure.CONTINUE)
    world = World({"a": ("build",), "b": ("host-key",), "c": ("incompatible",), "d": ("kept",)})
    end = Controller(planned(plan_of([["a", "b"], ["c", "d", "e"]], policy)), world).run()
    found = {phase: number for phase, number in counts(end).items() if number}
    assert found == {"failed": 1, "unreachable": 1, "refused": 2, "kept": 1, "active": 1}
    first = {phase: number for phase, number in wave_counts(end, 0).items() if number}
    assert first == {"failed": 1, "unreachable": 1}
    assert len(counts(end)) == len(wave_counts(end, 1)) == 11, "zeros are told too"
