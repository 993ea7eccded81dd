"""A connection that is cut in the one command that counts: the driver asks, and repeats nothing."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.core.rollout.events import Kind
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.state import DevicePhase, Fault, OnFailure, Phase
from edgecal.workflows.rollout.tasks import Action, DeviceTask, Outcome, Result
from edgecal.workflows.rollout.wishes import UNREACHED, retry, wish
from tests.integration.test_agent_script import lock_record
from tests.workflows.rollout.control import NAME, QUICK, Control, now_ms, policy
from tests.workflows.rollout.cutting import Cut, Cutter

if TYPE_CHECKING:
    from edgecal.core.rollout.state import Rollout
    from tests.fleets import Fleet


def drive_with(control: Control, *cuts: Cut) -> Rollout:
    """Drive a rollout with connections that are cut; each cut must have happened."""
    control.connect = Cutter(control.fleet.connect, list(cuts))
    rollout = control.drive()
    assert all(cut.happened for cut in cuts)
    assert control.journal.verify(NAME) == ""
    return rollout


def ours(fleet: Fleet, name: str) -> list[str]:
    """Name what this rollout activated on a device."""
    return [one.release for one in fleet.activations(name) if one.rollout == NAME]


def test_an_activation_whose_answer_was_lost_is_asked_for_and_not_repeated(
    control: Control, fleet: Fleet
) -> None:
    control.plan(waves="100%")
    rollout = drive_with(control, Cut("cam-02", "activate", after=True))
    assert rollout.phase is Phase.FINISHED
    assert control.kinds("cam-02") == ["push-started", "push-activated"]
    assert ours(fleet, "cam-02") == [rollout.devices["cam-02"].release] == [fleet.active("cam-02")]


def test_an_activation_that_never_arrived_is_asked_for_and_pushed_again(
    control: Control, fleet: Fleet
) -> None:
    control.plan(waves="100%")
    rollout = drive_with(control, Cut("cam-02", "activate"))
    assert rollout.phase is Phase.FINISHED
    assert control.kinds("cam-02") == [
        *("push-started", "push-deferred"),
        *("push-started", "push-activated"),
    ]
    assert ours(fleet, "cam-02") == [fleet.active("cam-02")]
    assert fleet.builds("cam-02") == 1


def test_an_activation_that_arrives_after_the_question_is_not_repeated(
    control: Control, fleet: Fleet
) -> None:
    control.plan(
        waves="100%", settings=policy(retries=replace(QUICK, first_ms=2_000, longest_ms=2_000))
    )
    rollout = drive_with(control, Cut("cam-02", "activate", late_s=1.0))
    assert rollout.phase is Phase.FINISHED
    assert control.kinds("cam-02")[-2:] == ["push-started", "push-activated"]
    assert ours(fleet, "cam-02") == [fleet.active("cam-02")]


def test_nobody_believes_a_device_that_is_about_to_change(control: Control, fleet: Fleet) -> None:
    control.plan(waves="100%", settings=policy(retries=replace(QUICK, tries=20)))
    with subprocess.Popen(["sleep", "60"]) as holder:

        def hold() -> None:
            record = lock_record(pid=holder.pid).replace("build", "activate")
            (fleet.devices["cam-02"].model / "switch.lock").write_text(record)
            threading.Timer(1.0, holder.kill).start()

        rollout = drive_with(control, Cut("cam-02", "activate", then=hold))
    pushed, deferred = [
        one.at_ms
        for one in control.journal.read(NAME)
        if one.target == "cam-02" and one.kind in {Kind.PUSH_STARTED, Kind.PUSH_DEFERRED}
    ][:2]
    assert deferred - pushed > 1000
    assert rollout.devices["cam-02"].phase is DevicePhase.ACTIVE
    assert len(ours(fleet, "cam-02")) == 1


def test_a_question_that_is_cut_off_is_asked_again(control: Control, fleet: Fleet) -> None:
    control.plan(waves="100%")
    rollout = drive_with(
        control, Cut("cam-02", "activate", after=True), Cut("cam-02", "models", after=True)
    )
    assert rollout.phase is Phase.FINISHED
    assert control.kinds("cam-02") == ["push-started", "push-activated"]
    assert len(ours(fleet, "cam-02")) == 1


def test_a_device_that_is_gone_while_in_doubt_is_unreachable_and_found_active_by_a_retry(
    control: Control, fleet: Fleet
) -> None:
    control.plan(waves="100%", settings=policy(retries=replace(QUICK, deadline_ms=1_500)))
    cut = Cut("cam-02", "activate", after=True, then=lambda: fleet.stop("cam-02"))
    rollout = drive_with(control, cut)
    assert rollout.phase is Phase.FINISHED
    assert control.kinds("cam-02") == ["push-started", "push-unreached"]
    assert rollout.devices["cam-02"].phase is DevicePhase.UNREACHABLE

    fleet.start("cam-02")
    _, again = retry(control.journal, NAME, UNREACHED, who="test", now_ms=now_ms())
    assert again == ("cam-02",)
    rollout = control.drive()
    assert rollout.devices["cam-02"].phase is DevicePhase.ACTIVE
    assert control.kinds("cam-02")[2:] == ["device-requeued", "push-started", "push-activated"]
    assert ours(fleet, "cam-02") == [rollout.devices["cam-02"].release]


class HaltingHands:
    """Has one device whose activation's answer is lost; a halt cuts the question off, too."""

    def __init__(self, control: Control, *, begins: bool) -> None:
        self._control = control
        self._begins = begins
        self._question: Future[Outcome] = Future()
        self.asked = 0

    def begin(self, task: DeviceTask) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        lost = Fault(code="connect", what="the connection was cut")
        if task.action is Action.PUSH:
            future.set_result(Outcome(result=Result.UNCLEAR, fault=lost))
            return future
        self.asked += 1
        if self.asked > 1:
            future.set_result(Outcome(result=Result.ACTIVE, release="0123456789abcdef"))
            return future
        wish(self._control.journal, NAME, Kind.HALTED, who="test", now_ms=now_ms())
        self._question = future
        return future

    def stop(self) -> None:
        if self._question.done():
            return
        if self._begins:
            stopped = Fault(code="cancelled", what="stopped on request")
            self._question.set_result(Outcome(result=Result.UNCLEAR, fault=stopped))
        else:
            self._question.cancel()


@pytest.mark.parametrize("begins", [True, False], ids=["begun", "never begun"])
def test_a_question_that_a_halt_cut_off_is_asked_again(control: Control, *, begins: bool) -> None:
    control.plan(waves="1,100%")
    hands = HaltingHands(control, begins=begins)
    with control.driving(hands) as going:
        assert list(going)
    assert hands.asked == 2
    assert control.kinds("cam-01") == ["push-started", "push-activated"]
    assert control.kinds()[-1] == "halted"


def fail_and_roll_back(control: Control, fleet: Fleet, *cuts: Cut) -> Rollout:
    """Have two of four devices fail, and the other two be taken back."""
    for name in ("cam-03", "cam-04"):
        fleet.spoil(name, "build")
    control.plan(
        waves="100%",
        settings=policy(
            on_failure=OnFailure.ROLLBACK,
            passing=Condition(minimum=1, percent=100),
            failing=Gate(minimum=9, percent=100),
        ),
    )
    rollout = drive_with(control, *cuts)
    assert rollout.phase is Phase.FAILED
    for name in ("cam-01", "cam-02"):
        assert rollout.devices[name].phase is DevicePhase.ROLLED_BACK
        assert fleet.active(name) is None
        assert [one.action for one in fleet.activations(name)] == ["activate", "deactivate"]
    return rollout


def test_a_rollback_whose_answer_was_lost_is_asked_for_and_not_repeated(
    control: Control, fleet: Fleet
) -> None:
    fail_and_roll_back(control, fleet, Cut("cam-01", "deactivate", after=True))
    assert control.kinds("cam-01")[2:] == ["rollback-started", "rollback-done"]


def test_a_rollback_that_never_arrived_is_tried_again(control: Control, fleet: Fleet) -> None:
    fail_and_roll_back(control, fleet, Cut("cam-01", "deactivate"))
    assert control.kinds("cam-01")[2:] == [
        *("rollback-started", "rollback-deferred"),
        *("rollback-started", "rollback-done"),
    ]
