"""What all steps of one push share beside their plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecal.core.target import Target, TargetFacts
    from edgecal.workflows.device import Device
    from edgecal.workflows.report import PushOptions, PushReport
    from edgecal.workflows.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One target that a push works on; the report is filled in on the way."""

    target: Target
    facts: TargetFacts
    device: Device
    options: PushOptions
    world: World
    report: PushReport
