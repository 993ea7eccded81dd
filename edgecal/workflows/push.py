"""Ship, build, prove, verify, activate: one bundle on one target.

`push` is a generator: it says what it is about to do and goes on when its caller asks for the next
event, so a caller can journal before it acts. Nothing here knows which builder the target has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecal.core.compat import Pairing, check_pairing, choose_builder
from edgecal.core.findings import refused
from edgecal.core.manifest import MODEL_FILE
from edgecal.errors import ConnectError, EdgecalError, IncompatibleError
from edgecal.workflows.events import (
    PairingChecked,
    PushEvent,
    Step,
    StepDue,
    StepFailed,
    TargetProbed,
)
from edgecal.workflows.release import ReleaseMaker
from edgecal.workflows.report import PushOptions, PushReport
from edgecal.workflows.world import World, probe_over

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
    transport: Transport | None = None
    try:
        yield StepDue(Step.CONNECT, target.host)
        world.cancel.check()
        with world.limits.connections:
            transport = world.connect(target)
        facts = probe_over(transport, target, world)
        report.facts = facts
        yield TargetProbed(facts)
        fit = _find_fit(bundles, target, facts, options, world)
        report.findings = fit.findings
        report.name = options.name or fit.bundle.manifest.name
        yield PairingChecked(fit.findings, fit.builder)
        yield from ReleaseMaker(
            bundle=fit.bundle,
            builder=_accept(fit, target),
            facts=facts,
            target=target,
            options=options,
            world=world,
            transport=transport,
            report=report,
        ).steps()
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
    return "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """One bundle held against the target, by every rule."""

    bundle: BundleFiles
    builder: BuilderFact | None
    findings: tuple[Finding, ...]


def _find_fit(
    bundles: Sequence[BundleFiles],
    target: Target,
    facts: TargetFacts,
    options: PushOptions,
    world: World,
) -> _Fit:
    fits = [_fit(bundle, target, facts, options, world) for bundle in bundles]
    return next((fit for fit in fits if not refused(fit.findings)), fits[0])


def _fit(
    bundle: BundleFiles, target: Target, facts: TargetFacts, options: PushOptions, world: World
) -> _Fit:
    manifest = bundle.manifest
    builder = choose_builder(facts, asked=target.builder, tensorrt=manifest.tensorrt)
    size = sum(one.size for one in bundle.shipped().values())
    pairing = Pairing(
        bundle=manifest.name,
        bundle_tensorrt=manifest.tensorrt,
        target=target,
        facts=facts,
        module=world.platforms.module(facts.module) if facts.module else None,
        builder=builder,
        options=options.build,
        # a second time the model's size: an engine is seldom larger
        needed_bytes=size + manifest.files[MODEL_FILE].size,
        # a header of edgecal's own says no more than the manifest does
        restamped_from=manifest.restamped_from if manifest.written_by_tensorrt else None,
        accept_restamped=options.accept_restamped,
    )
    return _Fit(bundle=bundle, builder=builder, findings=check_pairing(pairing))


def _accept(fit: _Fit, target: Target) -> BuilderFact:
    worst = next((one for one in fit.findings if refused([one])), None)
    if worst is not None:
        raise IncompatibleError(
            f"{worst.rule}: {worst.message}",
            where=target.name,
            remedy=worst.remedy,
            findings=fit.findings,
        )
    if fit.builder is None:
        raise AssertionError("the rule builder-missing let a target without a builder pass")
    return fit.builder
