"""What a rollout would do, found out by a dry run on every device: the plan to say yes or no to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import refused
from edgecal.core.rollout.plan import cut_waves
from edgecal.core.rollout.state import Plan
from edgecal.errors import IncompatibleError
from edgecal.workflows.push import push
from edgecal.workflows.rollout.work import push_options
from edgecal.workflows.waiting import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgecal.core.findings import Finding
    from edgecal.core.manifest import Digest
    from edgecal.core.rollout.job import Job
    from edgecal.core.rollout.plan import Bound
    from edgecal.core.rollout.state import Policy
    from edgecal.core.target import Target
    from edgecal.ports import BundleFiles
    from edgecal.workflows.report import PushOptions, PushReport
    from edgecal.workflows.world import World

    Look = Callable[[Target, PushOptions], PushReport]

_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A rollout that has not begun."""

    plan: Plan
    reports: Mapping[str, PushReport]
    """By target, in the inventory's order: `planned`, `refused`, or what kept it from answering."""


def draft(
    rollout: str,
    bundles: Sequence[BundleFiles],
    targets: Sequence[Target],
    job: Job,
    *,
    waves: Sequence[Bound],
    policy: Policy,
    sources: Mapping[Digest, tuple[Finding, ...]],
    world: World,
    look: Look | None = None,
    tell: Callable[[PushReport], object] = lambda _report: None,
) -> Draft:
    """Hold the bundles against every target, side by side, and cut the waves.

    Only targets that a rule refuses are left out: what does not answer now may do so in its turn.

    Parameters
    ----------
    sources
        What was found of each bundle's source network and data.
    look
        Has somebody else do the dry run on a target.
    tell
        Hears of each target as soon as it is known.

    Raises
    ------
    IncompatibleError
        If every target is refused.
    InputError
        If the waves do not reach all targets.
    """

    def dry_run(target: Target) -> PushReport:
        options = replace(push_options(job, target.name), dry_run=True, sources=sources)
        return look(target, options) if look else look_at(bundles, target, options, world)

    found = {}
    for report in side_by_side(targets, dry_run, at_once=_AT_ONCE):
        found[report.target] = report
        tell(report)
    reports = {one.name: found[one.name] for one in targets}
    out = {name: _rules(one) for name, one in reports.items() if one.state == "refused"}
    left = [name for name in reports if name not in out]
    if not left:
        raise _nobody_left(reports)
    return Draft(
        plan=Plan(
            rollout=rollout,
            bundles=tuple(one.manifest_digest for one in bundles),
            waves=cut_waves(waves, left),
            refused=out,
            policy=policy,
            job=job,
        ),
        reports=reports,
    )


def look_at(
    bundles: Sequence[BundleFiles], target: Target, options: PushOptions, world: World
) -> PushReport:
    """Find out what a push would do to one target."""
    looking = push(bundles, target, options, world)
    while True:
        try:
            next(looking)
        except StopIteration as end:
            report: PushReport = end.value
            return report


def _nobody_left(reports: Mapping[str, PushReport]) -> IncompatibleError:
    why = [one.error for one in reports.values() if one.error is not None]
    return IncompatibleError(
        f"all {len(reports)} targets are refused; the first for {why[0].what}",
        where=why[0].where,
        remedy=why[0].remedy,
    )


def _rules(report: PushReport) -> tuple[str, ...]:
    rules = dict.fromkeys(one.rule for one in report.findings if refused([one]))
    if report.error is not None and not rules:
        rules = {report.error.what.partition(":")[0]: None}
    return tuple(rules)
