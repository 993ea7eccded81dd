"""Whole rollouts over random fleets: what must hold at every entry of the journal."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.rollout.decide import decide
from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.machine import DEVICE_TRANSITIONS, TRANSITIONS, advance, replay
from edgecal.core.rollout.plan import cut_waves, parse_waves
from edgecal.core.rollout.state import DevicePhase, OnFailure, Phase, Plan, Policy, Retries
from edgecal.errors import InputError
from tests.core.rollout.simulation import (
    Controller,
    ControllerDiedError,
    World,
    plan_of,
    planned,
    policies,
    worlds,
)

if TYPE_CHECKING:
    from edgecal.core.rollout.state import Rollout

BOUNDS = ["1,10%,100%", "100%", "2,50%,100%", "1,2,3,100%", "30%,60%,100%"]


@st.composite
def fleets(draw: st.DrawFn, *, steady: bool = False) -> tuple[Plan, World]:
    names = [f"d{number}" for number in range(draw(st.integers(1, 14)))]
    waves = cut_waves(parse_waves(draw(st.sampled_from(BOUNDS))), names)
    plan = plan_of(waves, draw(policies()))
    return plan, World(draw(worlds(names, steady=steady)))


def count(rollout: Rollout, wave: int, *phases: DevicePhase) -> int:
    """Count the slow way: by the devices themselves."""
    return sum(one.wave == wave and one.phase in phases for one in rollout.devices.values())


SUCCESS = (DevicePhase.ACTIVE, DevicePhase.KEPT)


def check(rollout: Rollout) -> None:
    """Hold everything that is true of a rollout that may be stopped by its gates."""
    policy = rollout.plan.policy
    for wave in range(len(rollout.plan.waves)):
        for phase in DevicePhase:
            assert rollout.count(wave, phase) == count(rollout, wave, phase)
        if wave > rollout.wave:
            assert count(rollout, wave, DevicePhase.PENDING) == len(rollout.plan.waves[wave])
    assert len(rollout.busy()) <= policy.in_flight
    if policy.on_failure is OnFailure.CONTINUE:
        return
    for wave in range(rollout.wave + 1):
        failed = count(rollout, wave, DevicePhase.FAILED)
        missing = count(rollout, wave, DevicePhase.UNREACHABLE)
        reached = failed + count(rollout, wave, *SUCCESS)
        if rollout.phase in {Phase.RUNNING, Phase.HELD}:
            # one fewer would not have tripped it: nobody went beyond the gate
            assert failed == 0 or not policy.failing.trips(failed - 1, reached - 1)
            gate = policy.missing
            ended = reached + missing
            assert gate is None or not missing or not gate.trips(missing - 1, ended - 1)


def check_started(before: Rollout, event: Event) -> None:
    """Hold what must be true when a wave or a push starts."""
    policy = before.plan.policy
    if event.kind is Kind.PUSH_STARTED:
        assert before.phase in {Phase.RUNNING, Phase.HELD}
        if policy.on_failure is not OnFailure.CONTINUE:
            wave = before.devices[event.target].wave
            failed = count(before, wave, DevicePhase.FAILED)
            reached = failed + count(before, wave, *SUCCESS)
            under_way = count(before, wave, DevicePhase.PUSHING)
            assert not policy.failing.trips(failed + under_way, reached + under_way)
    elif event.kind is Kind.WAVE_STARTED and event.wave:
        wave = event.wave - 1
        counted = [one for one in DevicePhase if one is not DevicePhase.REFUSED]
        holds = policy.passing.holds(count(before, wave, *SUCCESS), count(before, wave, *counted))
        assert holds or policy.on_failure is OnFailure.CONTINUE
        assert before.passed_ms is not None
        assert not count(before, wave, DevicePhase.PENDING, DevicePhase.PUSHING)
        assert before.promoted or event.at_ms >= before.passed_ms + policy.soak_ms
        assert before.promoted or wave not in policy.pause_after


@given(fleets())
def test_gates_and_conditions_hold_at_every_entry_of_every_rollout(
    fleet: tuple[Plan, World],
) -> None:
    plan, world = fleet
    controller = Controller(planned(plan), world)
    seen = [controller.rollout]

    def watch(one: Controller) -> None:
        check_started(seen[-1], one.journal[-1])
        check(one.rollout)
        seen.append(one.rollout)

    controller.watch = watch
    end = controller.run()
    assert end.phase in {Phase.FINISHED, Phase.FAILED}
    for name, device in end.devices.items():
        assert world.runs_it(name) == (device.phase is DevicePhase.ACTIVE)
        assert world.activated.get(name, 0) <= 1
    if end.phase is Phase.FINISHED:
        done = {DevicePhase.PENDING, DevicePhase.PUSHING, DevicePhase.WAITING}
        assert not any(device.phase in done for device in end.devices.values())
    if plan.policy.on_failure is OnFailure.CONTINUE:
        assert end.phase is Phase.FINISHED
    if plan.policy.on_failure is OnFailure.ROLLBACK and end.failed_wave is not None:
        assert not count(end, end.failed_wave, DevicePhase.ACTIVE)
        others = set(range(len(plan.waves))) - {end.failed_wave}
        assert not any(count(end, wave, DevicePhase.ROLLED_BACK) for wave in others)


def die_and_follow(plan: Plan, world: World, position: int) -> None:
    """Kill the controller at one entry; its follower must end where nobody dies."""
    whole = Controller(planned(plan), copy.deepcopy(world))
    end = whole.run()
    truth = copy.deepcopy(world)
    journal = planned(plan)
    first = Controller(journal, truth, dies_at=1 + position % len(whole.journal))
    with contextlib.suppress(ControllerDiedError):
        first.run()
    second = Controller(journal, truth, now_ms=first.now_ms)
    again = second.run()
    assert max(truth.activated.values(), default=0) <= 1, "nobody is pushed twice"
    assert (again.phase, again.failed_wave) == (end.phase, end.failed_wave)
    assert not again.busy()
    # where a gate stops it, who was still to come rests on the order, and on passing faults
    steady = all(len(script) == 1 for script in world.scripts.values())
    same = again.phase is Phase.FINISHED or (plan.policy.in_flight == 1 and steady)
    for name, device in again.devices.items():
        assert truth.runs_it(name) == (device.phase is DevicePhase.ACTIVE)
        assert not same or device.phase is end.devices[name].phase, "nobody is skipped"


@given(fleets(steady=True), st.integers(0, 300))
def test_a_controller_that_dies_at_any_entry_is_followed_by_one_that_ends_the_same(
    fleet: tuple[Plan, World], position: int
) -> None:
    die_and_follow(*fleet, position)


@pytest.mark.parametrize("on_failure", OnFailure)
@pytest.mark.parametrize("in_flight", [1, 4])
def test_twelve_devices_survive_a_controller_that_dies_at_every_single_entry(
    on_failure: OnFailure, in_flight: int
) -> None:
    names = [f"d{number}" for number in range(12)]
    bad = {"d1": ("connect", "connect", ""), "d4": ("transfer", ""), "d5": ("kept",)}
    bad |= {"d7": ("build",), "d9": ("health",), "d10": ("incompatible",)}
    plan = plan_of(
        cut_waves(parse_waves("1,10%,100%"), names),
        Policy(on_failure=on_failure, in_flight=in_flight, soak_ms=1_000),
    )
    whole = planned(plan)
    Controller(whole, World(bad)).run()
    for position in range(len(whole) - 1):
        die_and_follow(plan, World(bad), position)


@given(fleets(), st.integers(0, 200))
def test_halt_wins_at_every_entry_and_starts_nothing(
    fleet: tuple[Plan, World], position: int
) -> None:
    plan, world = fleet
    controller = Controller(planned(plan), world, dies_at=position + 1)
    with contextlib.suppress(ControllerDiedError):
        controller.run()
    controller.dies_at = -1
    controller.tell(Kind.HALTED)
    at = len(controller.journal)
    end = controller.run(promotes=False)
    assert end.phase is Phase.HALTED
    starts = {Kind.PUSH_STARTED, Kind.ROLLBACK_STARTED, Kind.WAVE_STARTED}
    assert not [one for one in controller.journal[at:] if one.kind in starts]
    assert not end.busy(), "what was under way is still heard of"


@given(fleets(), st.integers(0, 200))
def test_a_paused_rollout_starts_nothing_until_it_is_resumed(
    fleet: tuple[Plan, World], position: int
) -> None:
    plan, world = fleet
    controller = Controller(planned(plan), world, dies_at=position + 1)
    with contextlib.suppress(ControllerDiedError):
        controller.run()
    controller.dies_at = -1
    if controller.rollout.phase in {Phase.FINISHED, Phase.FAILED}:
        with pytest.raises(InputError, match="'paused' cannot follow"):
            controller.tell(Kind.PAUSED)
        return
    controller.tell(Kind.PAUSED)
    at = len(controller.journal)
    paused = controller.run(promotes=False)
    assert paused.phase in {Phase.PAUSED, Phase.PAUSED_ROLLING_BACK}
    starts = {Kind.PUSH_STARTED, Kind.ROLLBACK_STARTED, Kind.WAVE_STARTED}
    assert not [one for one in controller.journal[at:] if one.kind in starts]
    controller.tell(Kind.RESUMED)
    assert controller.run().phase in {Phase.FINISHED, Phase.FAILED}


@pytest.mark.parametrize("phase", Phase)
def test_halt_leads_from_every_phase_to_halted_and_nothing_starts_there(phase: Phase) -> None:
    assert TRANSITIONS[phase, Kind.HALTED] is Phase.HALTED
    starting = {Kind.PUSH_STARTED, Kind.ROLLBACK_STARTED, Kind.RESUMED, Kind.RETRIED, Kind.PROMOTED}
    for kind in starting:
        assert (Phase.HALTED, kind) not in TRANSITIONS


def test_only_running_phases_start_work() -> None:
    starts = {Kind.PUSH_STARTED, Kind.ROLLBACK_STARTED}
    allowed = {phase for phase, kind in TRANSITIONS if kind in starts}
    assert allowed == {Phase.RUNNING, Phase.HELD, Phase.ROLLING_BACK}


@given(fleets(), st.sampled_from(Kind), st.sampled_from(["d0", "stranger", ""]))
def test_what_the_tables_lack_is_an_error_that_names_the_rollout(
    fleet: tuple[Plan, World], kind: Kind, target: str
) -> None:
    controller = Controller(planned(fleet[0]), fleet[1])
    end = controller.run()
    event = Event(kind=kind, at_ms=5, target=target, wave=0)
    device = end.devices.get(target)
    devices_own = {one for _phase, one in DEVICE_TRANSITIONS}
    legal = (end.phase, kind) in TRANSITIONS and (
        kind not in devices_own
        or (device is not None and (device.phase, kind) in DEVICE_TRANSITIONS)
    )
    if legal:
        advance(end, event)
    else:
        with pytest.raises(InputError) as caught:
            advance(end, event)
        assert caught.value.where == "rollout r1"


def test_a_later_wave_cannot_start_before_its_predecessor_has_passed() -> None:
    rollout = replay(planned(plan_of([["a"], ["b"]])), source="x")
    rollout = advance(rollout, Event(kind=Kind.WAVE_STARTED, at_ms=1, wave=0))
    with pytest.raises(InputError, match="has not passed"):
        advance(rollout, Event(kind=Kind.WAVE_STARTED, at_ms=2, wave=1))
    with pytest.raises(InputError, match="cannot follow"):
        advance(rollout, Event(kind=Kind.PUSH_STARTED, at_ms=2, target="b"))


@pytest.mark.parametrize("events", [[], [Event(kind=Kind.PAUSED, at_ms=1)]])
def test_a_journal_without_a_plan_is_none(events: list[Event]) -> None:
    with pytest.raises(InputError, match="begins with a plan"):
        replay(events, source="rollout r9")


def test_a_failed_canary_stops_everything_and_a_retry_goes_on() -> None:
    world = World({"a": ("build", "")})
    controller = Controller(planned(plan_of([["a"], ["b", "c"]])), world)
    end = controller.run()
    assert end.phase is Phase.FAILED
    assert set(world.pushes) == {"a"}
    assert controller.journal[-1].why == "0 of 1 succeeded"
    controller.tell(Kind.DEVICE_REQUEUED, "a")
    controller.tell(Kind.RETRIED)
    assert controller.run().phase is Phase.FINISHED
    assert world.activated == {"a": 1, "b": 1, "c": 1}, "and b and c had been spared"


def test_offline_devices_are_left_behind_and_come_later_or_at_the_deadline_not_at_all() -> None:
    policy = Policy(
        passing=Condition(minimum=1, percent=50), retries=Retries(deadline_ms=10_000_000)
    )
    world = World({"b": ("connect", "connect", "connect", ""), "c": ("connect",)})
    controller = Controller(planned(plan_of([["a", "b"], ["c", "d"]], policy)), world)
    end = controller.run()
    assert {name: one.phase.value for name, one in end.devices.items()} == {
        "a": "active",
        "b": "active",
        "c": "unreachable",
        "d": "active",
    }
    last = next(one for one in controller.journal if one.kind is Kind.PUSH_UNREACHED)
    assert last.at_ms == end.devices["c"].first_ms + 10_000_000, "a last try at the deadline"


def test_what_cannot_pass_is_not_tried_again_and_what_can_is_so_many_times() -> None:
    world = World({"a": ("build",), "b": ("transfer",), "c": ("host-key",), "d": ("transfer", "")})
    policy = Policy(on_failure=OnFailure.CONTINUE, retries=Retries(tries=3))
    end = Controller(planned(plan_of([["a", "b", "c", "d"]], policy)), world).run()
    assert world.pushes == {"a": 1, "b": 3, "c": 1, "d": 2}
    assert [one.phase.value for one in end.devices.values()] == [
        "failed",
        "failed",
        "unreachable",
        "active",
    ]


def test_a_rollback_takes_back_this_wave_only_and_leaves_what_was_there_before() -> None:
    policy = Policy(on_failure=OnFailure.ROLLBACK, failing=Gate(minimum=1, percent=0), in_flight=1)
    world = World({"c": ("kept",), "d": ("",), "e": ("health",)})
    controller = Controller(planned(plan_of([["a", "b"], ["c", "d", "e", "f"]], policy)), world)
    end = controller.run()
    assert [one.phase.value for one in end.devices.values()] == [
        "active",
        "active",
        "kept",
        "rolled-back",
        "failed",
        "pending",
    ]
    assert world.rolled_back == {"d": 1}


def test_devices_under_way_in_another_controllers_journal_are_asked_about_first() -> None:
    rollout = replay(planned(plan_of([["a", "b"]])), source="x")
    rollout = advance(rollout, Event(kind=Kind.WAVE_STARTED, at_ms=1, wave=0))
    rollout = advance(rollout, Event(kind=Kind.PUSH_STARTED, at_ms=1, target="a"))
    assert decide(rollout, now_ms=2, at_hand=()).ask == ("a",)
    assert decide(rollout, now_ms=2, at_hand=("a",)).ask == ()
    paused = advance(rollout, Event(kind=Kind.PAUSED, at_ms=2))
    assert decide(paused, now_ms=2, at_hand=()).ask == ("a",), "reading is no start"


def test_five_thousand_devices_go_through_the_machine() -> None:
    names = [f"d{number}" for number in range(5_000)]
    bad: dict[str, tuple[str, ...]] = {}
    bad.update(dict.fromkeys(names[7::50], ("build",)))
    bad.update(dict.fromkeys(names[3::40], ("connect", "transfer", "")))
    policy = Policy(failing=Gate(minimum=5, percent=30))
    plan = plan_of(cut_waves(parse_waves("1,10%,100%"), names), policy)
    controller = Controller(planned(plan), World(bad))
    end = controller.run()
    assert end.phase is Phase.FINISHED
    assert len(end.in_phase(DevicePhase.FAILED)) == 100
    assert replay(controller.journal, source="x") == end
