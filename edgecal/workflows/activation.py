"""The last step of a push: one rename, when the application lets it, on trial where it can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgecal.errors import HealthError, NotNowError
from edgecal.workflows.answers import Trial, TrialState
from edgecal.workflows.events import (
    ActivationWaits,
    EngineActivated,
    EngineConfirmed,
    Step,
    StepDue,
    TrialRuns,
)
from edgecal.workflows.world import World, utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgecal.core.manifest import Digest
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.site import Site

_POLL_S: Final = 1.0
_WAIT_S: Final = 2
_OPEN: Final = frozenset({"pending", "soaking"})
UNCONFIRMED: Final = frozenset({*_OPEN, "passed", "lost"})
"""States of a trial whose end nobody has seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """What is to become active in place of what."""

    name: str
    release: str
    active: str | None
    """What is active now."""
    back: str | None
    """What to go back to if the release turns out to be bad."""
    engine: str
    digest: Digest
    bundle: Digest


def activate(what: Activation, site: Site) -> Iterator[PushEvent]:
    """Make a release active, and stay until its health check has ended.

    Raises
    ------
    NotNowError
        If an application asked that nothing be activated, for longer than it may.
    HealthError
        If the health check failed; the target has gone back by itself.
    """
    target, world = site.target, site.world
    yield StepDue(Step.ACTIVATE, what.release)
    world.cancel.check()
    trial = None
    if target.health:
        trial = Trial(
            health=target.health,
            soak_s=target.soak_s,
            back=what.back,
            record=_record("rollback" if what.back else "deactivate", what.back or "", what, world),
        )
    record = {"action": "activate", "release": what.release, "from": what.active}
    record |= {"bundle": what.bundle, "by": world.owner, "time": utc_text(world.now())}
    if site.options.rollout:
        record["rollout"] = site.options.rollout
    waited_s = 0.0
    while True:
        try:
            site.device.activate(
                what.name,
                what.release,
                expected=what.active,
                engine=what.engine,
                digest=what.digest,
                record=record,
                trial=trial,
            )
        except NotNowError:
            if waited_s >= site.options.activate_within_s:
                raise
            yield ActivationWaits(waited_s)
            world.sleep(_POLL_S)
            world.cancel.check()
            waited_s += _POLL_S
        else:
            break
    if trial is not None:
        yield from _stay(what, site)
    site.report.state = "active"
    site.report.rollout = site.options.rollout or None
    yield EngineActivated(what.release, changed=True)


def _stay(what: Activation, site: Site) -> Iterator[PushEvent]:
    """Wait for the health check's end, and confirm what passed."""
    device, report = site.device, site.report
    waited_s = 0
    while (seen := device.trial(what.name, what.release, seconds=_WAIT_S)).state in _OPEN:
        report.health = seen.state
        yield TrialRuns(waited_s, site.target.soak_s)
        waited_s += _WAIT_S
        site.world.cancel.check()
    report.health = seen.state
    if seen.state != "passed":
        raise _unhealthy(seen, what, site.target.name)
    device.confirm(what.name, what.release, _record("confirm", what.release, what, site.world))
    report.health = "confirmed"
    yield EngineConfirmed(what.release)


def _unhealthy(seen: TrialState, what: Activation, where: str) -> HealthError:
    if seen.state == "stuck":
        return HealthError(
            f"release {what.release} did not pass its health check and stays active: {seen.reason}",
            where=where,
            remedy="push another bundle, or one that was good",
        )
    if seen.state in {"lost", "none"}:
        return HealthError(
            f"nobody knows whether release {what.release} passed its health check: the target "
            "rebooted, its check was killed, or something else was activated",
            where=where,
            remedy="look at 'edgecal status'; the next push checks it again",
        )
    now = f"release {what.back} is active again" if what.back else "nothing is active now"
    return HealthError(
        f"release {what.release} did not pass its health check ({seen.reason}); {now}",
        where=where,
        remedy=f"read models/{what.name}/trial.log there; try the health command by hand",
    )


def _record(action: str, release: str, what: Activation, world: World) -> Mapping[str, Any]:
    return {
        "action": action,
        "release": release,
        "from": what.release,
        "by": world.owner,
        "time": utc_text(world.now()),
    }
