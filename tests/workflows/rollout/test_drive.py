"""The driver over devices that are there: a fleet of folders, the real agent, a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.core.rollout.state import DevicePhase, OnFailure, Phase
from tests.workflows.rollout.control import NAME, Control, policy, push_by_hand

if TYPE_CHECKING:
    from tests.fleets import Fleet


def test_a_rollout_goes_wave_by_wave_to_its_end(control: Control, fleet: Fleet) -> None:
    drafted = control.plan()
    assert drafted.plan.waves == (("cam-01",), ("cam-02",), ("cam-03", "cam-04"))
    assert all(one.to_build and one.bytes_to_send for one in drafted.reports.values())
    rollout = control.drive()
    assert rollout.phase is Phase.FINISHED
    for name in fleet.names:
        (activation,) = fleet.activations(name)
        assert (activation.action, activation.rollout) == ("activate", NAME)
        assert rollout.devices[name].release == activation.release == fleet.active(name)
        assert fleet.builds(name) == 1
    assert control.kinds() == [
        "planned",
        *("wave-started", "wave-passed") * 3,
        "finished",
    ]
    assert control.journal.verify(NAME) == ""


def test_a_device_that_has_it_is_kept_and_never_rolled_back(control: Control, fleet: Fleet) -> None:
    push_by_hand(fleet, fleet.supplies.old, "cam-01")
    before = fleet.activations("cam-01")
    assert len(before) == 1
    for name in ("cam-03", "cam-04"):
        fleet.spoil(name, "build")
    control.plan(waves="100%", settings=policy(on_failure=OnFailure.ROLLBACK))
    rollout = control.drive()
    assert rollout.phase is Phase.FAILED
    assert rollout.devices["cam-01"].phase is DevicePhase.KEPT
    assert rollout.devices["cam-02"].phase is DevicePhase.ROLLED_BACK
    assert fleet.activations("cam-01") == before
    assert fleet.active("cam-02") is None
    assert [one.action for one in fleet.activations("cam-02")] == ["activate", "deactivate"]
