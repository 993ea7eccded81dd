"""Who drives: one at a time; who lost the lease writes no more; who is stopped leaves it tidy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.journal import DatabaseJournal
from edgecal.core.rollout.events import Kind
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.state import DevicePhase, OnFailure, Phase
from edgecal.errors import InputError
from tests.workflows.rollout.control import NAME, Control, journaled, policy, push_by_hand
from tests.workflows.rollout.test_drive_wishes import is_building

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgecal.workflows.rollout.tasks import Happening
    from tests.fleets import Fleet


def go_until(going: Iterator[Happening], claim: Callable[[Happening], bool]) -> Happening:
    return next(happening for happening in going if claim(happening))


def another(control: Control, url: str) -> Control:
    return Control(control.fleet, control.bundles, control.job, DatabaseJournal(url))


def test_two_drivers_at_once_are_refused(control: Control, tmp_path: Path) -> None:
    control.plan(waves="100%")
    second = another(control, f"sqlite:///{tmp_path / 'journal.sqlite'}")
    with control.driving() as going:
        go_until(going, lambda one: journaled(one) is Kind.PUSH_STARTED)
        before = second.kinds()
        with pytest.raises(InputError, match="another controller drives"):
            second.drive()
        assert second.kinds() == before
        assert list(going)
    assert second.drive().phase is Phase.FINISHED
    second.journal.close()


def test_a_driver_that_lost_its_lease_stops_and_writes_nothing_more(
    control: Control, fleet: Fleet, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    control.plan(waves="1,100%")
    control.journal.close()
    control.journal = DatabaseJournal(url, lease_s=0.3)
    second = another(control, url)
    with control.driving() as going:
        go_until(going, lambda one: journaled(one) is Kind.PUSH_STARTED)
        time.sleep(0.5)  # as a controller that was suspended
        rollout = second.drive()
        assert rollout.phase is Phase.FINISHED
        written = second.journal.read(NAME)
        with pytest.raises(InputError, match=r"drives it now|another controller drives"):
            list(going)
    assert second.journal.read(NAME) == written
    assert second.journal.verify(NAME) == ""
    for name in fleet.names:
        assert [one.rollout for one in fleet.activations(name)] == [NAME]
        assert fleet.builds(name) == 1
    second.journal.close()


def test_an_interrupted_driver_leaves_nothing_open_and_the_next_one_goes_on(
    control: Control, fleet: Fleet
) -> None:
    fleet.spoil("cam-01", "hang")
    control.plan()
    with control.driving() as going:
        go_until(going, is_building)
    assert control.kinds("cam-01") == ["push-started", "push-stopped"]
    assert [one.driver for one in control.journal.rollouts()] == [""]
    fleet.mend("cam-01", "hang")
    rollout = control.drive()
    assert rollout.phase is Phase.FINISHED
    assert rollout.devices["cam-01"].attempts == 1
    assert [fleet.builds(name) for name in fleet.names] == [1] * 4  # the build went on
    assert all(len(fleet.activations(name)) == 1 for name in fleet.names)


def test_what_was_changed_by_hand_meanwhile_is_left_alone(control: Control, fleet: Fleet) -> None:
    old, new = fleet.supplies.old, fleet.supplies.new
    for name in ("cam-01", "cam-02"):
        push_by_hand(fleet, old, name)
    release = fleet.active("cam-01")
    control.bundles = [new]
    fleet.spoil("cam-04", "build")
    control.plan(
        waves="100%",
        settings=policy(
            on_failure=OnFailure.ROLLBACK,
            passing=Condition(minimum=1, percent=100),
            failing=Gate(minimum=9, percent=100),
        ),
    )

    def watch(happening: Happening) -> None:
        if journaled(happening) is Kind.WAVE_REVERTED:
            push_by_hand(fleet, old, "cam-01")

    rollout = control.drive(watch)
    assert rollout.phase is Phase.FAILED
    phases = [one.phase for one in rollout.devices.values()]
    assert phases == [DevicePhase.ROLLED_BACK] * 3 + [DevicePhase.FAILED]
    actions = {name: [one.action for one in fleet.activations(name)] for name in fleet.names}
    assert actions == {
        "cam-01": ["activate"] * 3,
        "cam-02": ["activate", "activate", "rollback"],
        "cam-03": ["activate", "deactivate"],
        "cam-04": [],
    }
    assert [fleet.active(name) for name in fleet.names] == [release, release, None, None]
