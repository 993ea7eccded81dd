"""What people wish while a rollout is driven, and what becomes of the devices at work by then."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgecal.core.rollout.events import Kind
from edgecal.core.rollout.state import DevicePhase, Phase
from edgecal.errors import InputError
from edgecal.workflows.events import Step, StepDue
from edgecal.workflows.rollout.tasks import Journaled, Progress
from edgecal.workflows.rollout.wishes import FAILED, retry, wish
from tests.workflows.rollout.control import NAME, Control, journaled, now_ms, policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.workflows.rollout.tasks import Happening
    from tests.fleets import Fleet

_HALT_S = 2 + 0.5
"""Until a command on a device that waits for a build is over, and the driver has looked."""
_SLACK_S = 4
"""For a machine with other things to do."""


def wishing(control: Control, kind: Kind) -> Callable[[], object]:
    return lambda: wish(control.journal, NAME, kind, who="test", now_ms=now_ms())


def is_building(happening: Happening) -> bool:
    if not isinstance(happening, Progress) or not isinstance(happening.news, StepDue):
        return False
    return happening.news.step is Step.BUILD


def test_a_retry_of_nothing_and_a_wish_that_comes_too_late_are_refused(control: Control) -> None:
    control.plan(waves="100%")
    with pytest.raises(InputError, match="no device is there"):
        retry(control.journal, NAME, FAILED, who="test", now_ms=now_ms())
    wishing(control, Kind.HALTED)()
    for kind in (Kind.PAUSED, Kind.RESUMED, Kind.PROMOTED):
        with pytest.raises(InputError, match="is halted"):
            wishing(control, kind)()
    assert control.drive().phase is Phase.HALTED
    assert control.kinds() == ["planned", "halted"]


def test_a_halt_stops_builds_and_starts_nothing(control: Control, fleet: Fleet) -> None:
    for name in fleet.names:
        fleet.spoil(name, "hang")
    control.plan(waves="100%")
    building: set[str] = set()
    halted_s: list[float] = []

    def watch(happening: Happening) -> None:
        if is_building(happening):
            assert isinstance(happening, Progress)
            building.add(happening.target)
            if len(building) == 2:
                wishing(control, Kind.HALTED)()
                halted_s.append(time.monotonic())

    rollout = control.drive(watch)
    assert time.monotonic() - halted_s[0] < _HALT_S + _SLACK_S
    assert rollout.phase is Phase.HALTED
    events = control.journal.read(NAME)
    at = [one.kind for one in events].index(Kind.HALTED)
    assert {one.kind for one in events[at + 1 :]} == {Kind.PUSH_STOPPED}
    assert {one.target for one in events[at + 1 :]} >= building
    for name in fleet.names:
        fleet.mend(name, "hang")
        assert rollout.devices[name].phase is DevicePhase.PENDING
        assert fleet.active(name) is None
        assert fleet.activations(name) == []


def test_a_paused_rollout_ends_what_runs_and_starts_nothing(control: Control, fleet: Fleet) -> None:
    for name in fleet.names:
        fleet.slow(name, 0.3)
    control.plan(waves="100%")
    timers: list[threading.Timer] = []

    def watch(happening: Happening) -> None:
        if journaled(happening) is Kind.PUSH_STARTED and "paused" not in control.kinds():
            wishing(control, Kind.PAUSED)()
        if journaled(happening) is Kind.PUSH_ACTIVATED:
            assert isinstance(happening, Journaled)
            if happening.rollout.phase is Phase.PAUSED and not happening.rollout.busy():
                timers.append(threading.Timer(1.0, wishing(control, Kind.RESUMED)))
                timers[0].start()

    assert control.drive(watch).phase is Phase.FINISHED
    timers[0].join()
    kinds = [one.kind for one in control.journal.read(NAME)]
    paused, resumed = kinds.index(Kind.PAUSED), kinds.index(Kind.RESUMED)
    started = kinds[:paused].count(Kind.PUSH_STARTED)
    assert started < len(fleet.names)
    assert kinds[paused + 1 : resumed] == [Kind.PUSH_ACTIVATED] * started
    assert all(len(fleet.activations(name)) == 1 for name in fleet.names)


def test_a_held_rollout_waits_until_somebody_promotes_it(control: Control) -> None:
    control.plan(waves="1,100%", settings=policy(pause_after=frozenset({0})))

    def watch(happening: Happening) -> None:
        if journaled(happening) is Kind.WAVE_HELD:
            threading.Timer(0.7, wishing(control, Kind.PROMOTED)).start()

    assert control.drive(watch).phase is Phase.FINISHED
    events = control.journal.read(NAME)
    kinds = [one.kind for one in events]
    held = kinds.index(Kind.WAVE_HELD)
    assert kinds[held : held + 3] == [Kind.WAVE_HELD, Kind.PROMOTED, Kind.WAVE_STARTED]
    assert events[held + 1].at_ms - events[held].at_ms >= 600


def test_promoting_cuts_the_soak_time_short(control: Control) -> None:
    control.plan(waves="1,100%", settings=policy(soak_ms=3_600_000))

    def watch(happening: Happening) -> None:
        if journaled(happening) is Kind.WAVE_PASSED and "promoted" not in control.kinds():
            wishing(control, Kind.PROMOTED)()

    assert control.drive(watch).phase is Phase.FINISHED
    assert control.kinds()[2:5] == ["wave-passed", "promoted", "wave-started"]


def test_a_retry_repeats_nothing_that_succeeded(control: Control, fleet: Fleet) -> None:
    for name in ("cam-02", "cam-03"):
        fleet.spoil(name, "build")
    control.plan(waves="100%")
    rollout = control.drive()
    assert rollout.phase is Phase.FAILED
    assert rollout.devices["cam-02"].phase is rollout.devices["cam-03"].phase is DevicePhase.FAILED

    fleet.mend("cam-02", "build")
    fleet.mend("cam-03", "build")
    _, names = retry(control.journal, NAME, FAILED, who="test", now_ms=now_ms())
    assert names == ("cam-02", "cam-03")
    assert control.drive().phase is Phase.FINISHED
    for name in fleet.names:
        assert len(fleet.activations(name)) == 1
        assert control.kinds(name).count("push-started") == (2 if name in names else 1)
