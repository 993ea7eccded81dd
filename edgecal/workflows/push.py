"""Ship, build, prove, verify, activate: one bundle on one target.

`push` is a generator: it says what it is about to do and goes on when its caller asks for the next
event, so a caller can journal before it acts. Nothing here knows which builder the target has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgecal.core.compat import check_pairing
from edgecal.core.findings import refused
from edgecal.errors import ConnectError, EdgecalError, IncompatibleError, NotNowError
from edgecal.workflows.check import look_at_cache, pair_up
from edgecal.workflows.device import Device
from edgecal.workflows.events import (
    PairingChecked,
    PushEvent,
    Step,
    StepDue,
    StepFailed,
    TargetProbed,
)
from edgecal.workflows.release import release_bundle
from edgecal.workflows.report import PushOptions, PushReport
from edgecal.workflows.site import Site
from edgecal.workflows.world import World, probe_over, reach

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from edgecal.core.findings import Finding
    from edgecal.core.target import BuilderFact, Target, TargetFacts
    from edgecal.ports import BundleFiles, Transport


def push(
    bundles: Sequence[BundleFiles], target: Target, options: PushOptions, world: World
) -> Generator[PushEvent, None, PushReport]:
    """Bring one bundle to one target; yields events, returns the report.

    Of several bundles the first that fits the target is taken.

    Every `EdgecalError` becomes a `StepFailed` event and stands in the report. Whatever happens,
    what was active before stays active until the very last step succeeds.
    """
    report = PushReport(target=target.name)
    options = replace(options, build=options.builds.get(target.name, options.build))
    transport: Transport | None = None
    try:
        yield StepDue(Step.CONNECT, target.host)
        world.cancel.check()
        transport = reach(target, world)
        facts = probe_over(transport, target, world)
        report.facts = facts
        yield TargetProbed(facts)
        fit = _find_fit(bundles, target, facts, options, world)
        report.findings = fit.findings
        report.name = options.name or fit.bundle.manifest.name
        yield PairingChecked(fit.findings, fit.builder)
        site = Site(
            target=target,
            facts=facts,
            device=Device(
                transport, world.scripts, facts.root, target.name, break_lock=options.break_lock
            ),
            options=options,
            world=world,
            report=report,
        )
        yield from release_bundle(fit.bundle, _accept(fit, target), site)
    except EdgecalError as error:
        report.error = error
        report.state = _failed_state(error, report)
        yield StepFailed(error)
    finally:
        if transport is not None:
            report.bytes_sent = transport.bytes_sent
            transport.close()
    return report


def _failed_state(error: EdgecalError, report: PushReport) -> str:
    if isinstance(error, ConnectError):
        return "unreachable" if report.facts is None else "failed"
    if isinstance(error, IncompatibleError):
        return "refused"
    if isinstance(error, NotNowError):
        return "built"
    return "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """One bundle held against the target, by every rule."""

    bundle: BundleFiles
    builder: BuilderFact | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What refuses it."""
        return tuple(one for one in self.findings if refused([one]))


def _find_fit(
    bundles: Sequence[BundleFiles],
    target: Target,
    facts: TargetFacts,
    options: PushOptions,
    world: World,
) -> _Fit:
    fits = [_fit(bundle, target, facts, options, world) for bundle in bundles]
    # where none fits, the reason of one that was made for this TensorRT tells more
    near = [fit for fit in fits if not any(one.rule == "tensorrt-version" for one in fit.errors)]
    return next((fit for fit in fits if not fit.errors), next(iter(near or fits)))


def _fit(
    bundle: BundleFiles, target: Target, facts: TargetFacts, options: PushOptions, world: World
) -> _Fit:
    pair = pair_up(
        bundle,
        look_at_cache(bundle),
        target,
        facts=facts,
        options=options.build,
        platforms=world.platforms,
        accept_restamped=options.accept_restamped,
    )
    sources = options.sources.get(bundle.manifest_digest, ())
    return _Fit(bundle=bundle, builder=pair.builder, findings=(*sources, *check_pairing(pair)))


def _accept(fit: _Fit, target: Target) -> BuilderFact:
    if fit.errors:
        worst = fit.errors[0]
        raise IncompatibleError(
            f"{worst.rule}: {worst.message}",
            where=target.name,
            remedy=worst.remedy,
            findings=fit.findings,
        )
    if fit.builder is None:
        raise AssertionError("the rule builder-missing let a target without a builder pass")
    return fit.builder
