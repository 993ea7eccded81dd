"""Thirty devices, of which a fifth fail at random: nobody's account differs from another's.

Three accounts of each device: what stands in the journal, what the device itself has active and
wrote down, and what the rollout says at its end.
"""

from __future__ import annotations

import random
import shutil
import sys
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, get_args

import pytest

from edgecal.adapters.journal import DatabaseJournal
from edgecal.core.rollout.counts import counts
from edgecal.core.rollout.events import Kind
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.job import Job
from edgecal.core.rollout.machine import advance, replay
from edgecal.core.rollout.state import DevicePhase, OnFailure, Phase, begin
from tests.fleets import Fault, start_fleet
from tests.workflows.rollout.control import NAME, QUICK, Control, policy, push_by_hand
from tests.workflows.rollout.cutting import Cut, Cutter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgecal.core.rollout.events import Event
    from edgecal.core.rollout.state import Rollout
    from tests.fleets import Fleet, Supplies

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("setsid"),
    reason="needs Linux and setsid, as a target has them",
)

_DEVICES = 30
_SHARE = 0.2
_COMMANDS = 30
"""More than a push and a rollback take, so that some cuts never come."""
_GATE = Gate(minimum=3, percent=25)
_SEEDS = range(2)
_MORE_SEEDS = range(20)
_HERE = (DevicePhase.ACTIVE, DevicePhase.KEPT)
_NEVER = (
    *(DevicePhase.PENDING, DevicePhase.WAITING, DevicePhase.REFUSED),
    *(DevicePhase.FAILED, DevicePhase.UNREACHABLE),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose seeds: with `--slow` more of them."""
    if "seed" in metafunc.fixturenames:
        slow = metafunc.config.getoption("--slow")
        metafunc.parametrize("seed", _MORE_SEEDS if slow else _SEEDS)


def spoil_at_random(fleet: Fleet, chance: random.Random) -> list[Cut]:
    """Choose what goes wrong on which devices; gives where connections are cut."""
    faults = [one for one in get_args(Fault) if one != "hang" and (fleet.health or one != "health")]
    cuts = []
    for name in fleet.names:
        if chance.random() >= _SHARE:
            continue
        what = chance.choice(["cut", "cut", "cut", "away", *faults])
        if what == "away":
            fleet.stop(name)
        elif what == "cut":
            after = chance.random() < 0.5
            cuts.append(Cut(name, number=chance.randint(1, _COMMANDS), after=after))
        else:
            fleet.spoil(name, what)
    return cuts


def test_every_account_of_every_device_agrees(
    tmp_path: Path, supplies: Supplies, seed: int
) -> None:
    chance = random.Random(seed)
    health = seed % 2 == 1
    journal = DatabaseJournal(f"sqlite:///{tmp_path / 'journal.sqlite'}")
    with start_fleet(
        tmp_path / "fleet", _DEVICES, real=False, supplies=supplies, health=health
    ) as fleet:
        former = chance.sample(fleet.names, 4)
        for name in former:
            push_by_hand(fleet, supplies.old, name)
        before = {name: len(fleet.activations(name)) for name in fleet.names}
        control = Control(fleet, [supplies.new], Job(), journal)
        control.plan(
            waves="4,30%,100%",
            settings=policy(
                retries=replace(QUICK, deadline_ms=5_000),
                passing=Condition(minimum=1, percent=60),
                failing=_GATE,
                on_failure=list(OnFailure)[seed % 3],
            ),
        )
        control.connect = Cutter(fleet.connect, spoil_at_random(fleet, chance))
        rollout = control.drive()
        for name in fleet.names:
            check_device(fleet, rollout, name, is_former=name in former, before=before[name])
        events = journal.read(NAME)
    assert replay(events, source=NAME) == rollout
    assert journal.verify(NAME) == ""
    assert rollout.phase in {Phase.FINISHED, Phase.FAILED}
    assert sum(counts(rollout).values()) == _DEVICES
    check_gates(events)
    journal.close()


def check_device(
    fleet: Fleet, rollout: Rollout, name: str, *, is_former: bool, before: int
) -> None:
    """Hold what the rollout says of a device against what the device says."""
    device = rollout.devices[name]
    # a health check that was not followed to its end is repeated: the same release, activated again
    done = [
        key
        for key, _ in groupby(
            (one.action, one.release, one.rollout)
            for one in fleet.activations(name)[before:]
            if one.action != "confirm"
        )
    ]
    ours = [one for one in done if one[0] == "activate"]
    account = (name, device, done, fleet.active(name))
    assert all(one[2] == NAME for one in ours), account
    assert len(ours) <= 1, account
    assert fleet.builds(name) - is_former <= 1, account
    if device.phase in _HERE:
        assert done == [("activate", device.release, NAME)], account
        assert fleet.active(name) == device.release, account
        return
    assert device.phase in {*_NEVER, DevicePhase.ROLLED_BACK}, account
    assert (fleet.active(name) is not None) == is_former, account
    if device.phase is DevicePhase.ROLLED_BACK:
        back = "rollback" if is_former else "deactivate"
        assert [one[0] for one in done] == ["activate", back], account
    elif done:  # its health check failed, and it went back by itself
        assert fleet.health, account
        assert device.phase is DevicePhase.FAILED, account
        assert [one[0] for one in done[1:]] == ["rollback" if is_former else "deactivate"], account


def check_gates(events: Sequence[Event]) -> None:
    """See that no device failed in a wave that had too many failures already."""
    assert events[0].plan is not None
    plan = events[0].plan
    rollout = begin(plan)
    for event in events[1:]:
        if event.kind is Kind.PUSH_FAILED and plan.policy.on_failure is not OnFailure.CONTINUE:
            wave = rollout.devices[event.target].wave
            failed = rollout.count(wave, DevicePhase.FAILED)
            assert not _GATE.trips(failed, failed + rollout.count(wave, *_HERE)), event
        if event.kind is Kind.WAVE_STARTED and event.wave > 0:
            assert rollout.passed_ms is not None
        rollout = advance(rollout, event)
