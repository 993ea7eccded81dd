"""A fleet against its bundles: who fits, who drifted, who is unlike the rest of its kind.

Values in, findings out: what each target said, what its active releases were built from, and what
rules say of each pairing come as arguments.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecal.core.access import check_access
from edgecal.core.drift import built_from, drift
from edgecal.core.findings import Finding, Severity, refused
from edgecal.core.hosts import Calibrators, calibrators_for
from edgecal.core.outliers import outliers
from edgecal.core.platforms import jetpack_choices
from edgecal.core.rules.visit import Visit
from edgecal.core.versions import parse_tensorrt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgecal.core.platforms import Platforms
    from edgecal.core.target_state import BundleFacts, Fit, TargetState
    from edgecal.core.versions import TensorRTVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Targets of one TensorRT major.minor: one bundle serves them all."""

    tensorrt: str | None
    """`None`: no TensorRT was found."""
    versions: tuple[str, ...]
    jetpack: str | None
    targets: tuple[str, ...]
    bundles: tuple[tuple[BundleFacts, tuple[str, ...], tuple[str, ...]], ...]
    """Each with the targets that it fits and those that refuse it."""
    calibrators: Calibrators | None
    without_int8: tuple[str, ...] = ()
    """Targets whose modules have no INT8 at all, by the platform tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an audit found."""

    states: tuple[TargetState, ...]
    findings: Mapping[str, tuple[Finding, ...]]
    """By target's name."""
    groups: tuple[Group, ...]

    def exit_codes(self) -> frozenset[int]:
        """Give every exit code that some target calls for."""
        codes = {state.error.exit_code for state in self.states if state.error is not None}
        if any(refused(found) for found in self.findings.values()):
            codes.add(3)
        return frozenset(codes)

    def summary(self) -> dict[str, int]:
        """Count targets by how they stand."""
        found = self.findings
        return {
            "targets": len(self.states),
            "unreachable": sum(one.reachable is False for one in self.states),
            "unknown": sum(one.last.facts is None for one in self.states),
            "groups": len(self.groups),
            "with_errors": sum(refused(one) for one in found.values()),
            "drifted": sum(
                any(one.rule.startswith("drift-") for one in several) for several in found.values()
            ),
            "outliers": sum(
                any(one.rule == "outlier" for one in several) for several in found.values()
            ),
        }


def audit(
    states: Sequence[TargetState],
    fits: Mapping[str, Sequence[Fit]],
    platforms: Platforms,
) -> AuditReport:
    """Judge a fleet.

    Parameters
    ----------
    fits
        By target's name: every given bundle held against it; empty where its facts are unknown.
    """
    strange = outliers(states, platforms)
    findings = {
        state.name: tuple(
            # rules about the target itself say the same for every network
            dict.fromkeys(
                (
                    *_known(state),
                    *fit_findings(state, fits.get(state.name, ())),
                    *drift(state, fits.get(state.name, ())),
                    *strange.get(state.name, ()),
                )
            )
        )
        for state in states
    }
    return AuditReport(
        states=tuple(states), findings=findings, groups=tuple(_groups(states, fits, platforms))
    )


def fit_findings(state: TargetState, fits: Sequence[Fit]) -> Iterator[Finding]:
    """Say which rules speak against the bundles: of several of one network, of the best one.

    A network whose bundle fits but that is not active there is a note.
    """
    networks: dict[str, list[Fit]] = defaultdict(list)
    for fit in fits:
        networks[fit.bundle.network].append(fit)
    for several in networks.values():
        best = min(several, key=lambda fit: _distance(fit, state.tensorrt))
        yield from best.findings
        names = {fit.bundle.name for fit in several}
        if (
            best.fits
            and state.last.live
            and state.error is None
            and not any(built_from(one) in names for one in state.active)
        ):
            yield Finding(
                rule="not-active",
                severity=Severity.NOTE,
                subject=state.name,
                message=f"bundle {best.bundle.name} fits, and nothing built from it is active",
                remedy=f"edgecal push {best.bundle.word} --target {shlex.quote(state.name)}",
            )


def _distance(fit: Fit, have: TensorRTVersion | None) -> tuple[bool, bool, int]:
    """Order the bundles of one network: those that fit first, then by what stands against them."""
    other = have is None or fit.bundle.tensorrt.major_minor != have.major_minor
    return not fit.fits, other, len(fit.findings)


def _known(state: TargetState) -> Iterator[Finding]:
    """Say what a target's own facts tell, or that there are none."""
    facts = state.last.facts
    if facts is not None:
        yield from check_access(Visit(target=state.last.target, facts=facts, at=state.last.seen))
    if facts is None and state.error is None:
        yield Finding(
            rule="facts-unknown",
            severity=Severity.WARNING,
            subject=state.name,
            message="nothing is known of this target: it never answered a probe from here",
            remedy=f"edgecal probe --target {shlex.quote(state.name)}",
        )


def _groups(
    states: Sequence[TargetState], fits: Mapping[str, Sequence[Fit]], platforms: Platforms
) -> Iterator[Group]:
    members: dict[str | None, list[TargetState]] = defaultdict(list)
    for state in states:
        if state.last.facts is not None and state.reachable is not False:
            version = state.tensorrt
            members[version.major_minor if version else None].append(state)
    jetpacks = {version: names for names, version in jetpack_choices(platforms)}
    for text in sorted(members, key=lambda one: parse_tensorrt(one or "0.0")):
        several = members[text]
        versions = sorted({one.tensorrt for one in several if one.tensorrt is not None})
        yield Group(
            tensorrt=text,
            versions=tuple(str(one) for one in versions),
            jetpack=jetpacks.get(text or ""),
            targets=tuple(one.name for one in several),
            bundles=tuple(_matches(several, fits)),
            calibrators=calibrators_for(platforms, versions[-1]) if versions else None,
            without_int8=tuple(one.name for one in several if not _has_int8(one, platforms)),
        )


def _has_int8(state: TargetState, platforms: Platforms) -> bool:
    """Look the module up; an unknown one counts as having it."""
    facts = state.last.facts
    module = platforms.module(facts.module) if facts and facts.module else None
    return module is None or module.int8


def _matches(
    states: Iterable[TargetState], fits: Mapping[str, Sequence[Fit]]
) -> Iterator[tuple[BundleFacts, tuple[str, ...], tuple[str, ...]]]:
    named: dict[str, BundleFacts] = {}
    fitting: dict[str, list[str]] = defaultdict(list)
    refusing: dict[str, list[str]] = defaultdict(list)
    for state in states:
        for fit in fits.get(state.name, ()):
            named[fit.bundle.path] = fit.bundle
            (fitting if fit.fits else refusing)[fit.bundle.path].append(state.name)
    for path, bundle in named.items():
        yield bundle, tuple(fitting[path]), tuple(refusing[path])
