"""A fleet against its bundles: who fits, who drifted, who is unlike the rest of its kind.

Values in, findings out: what each target said, what its active releases were built from, and what
rules say of each pairing come as arguments.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgecal.core.access import Visit, check_access
from edgecal.core.findings import Finding, Severity, refused
from edgecal.core.hosts import QDQ_COMMAND, Calibrators, calibrators_for, takes_caches
from edgecal.core.manifest import CACHE_FILE, MODEL_FILE, QDQ_FILE, parse_name
from edgecal.core.platforms import jetpack_choices
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import ConnectError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from edgecal.core.manifest import Digest
    from edgecal.core.platforms import Platforms
    from edgecal.core.target import Target, TargetFacts
    from edgecal.errors import EdgecalError

_BY_TENSORRT: Final = ("trtexec", "tensorrt")
"""The builders whose engines are of TensorRT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastFacts:
    """What is known of a target: just asked, remembered, or nothing."""

    target: Target
    facts: TargetFacts | None = None
    seen: datetime | None = None
    live: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """What an audit compares of a bundle."""

    name: str
    path: str
    tensorrt: TensorRTVersion
    manifest: Digest
    network: Digest
    """The same for all bundles of one network."""
    files: Mapping[str, Digest]

    @property
    def word(self) -> str:
        """The bundle in a command line."""
        return shlex.quote(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRelease:
    """What is active on a target under one model's name."""

    model: str
    release: str
    record: Mapping[str, Any] | None
    """Its build.json; `None` where it is gone or unreadable."""
    found: Mapping[str, Digest | None]
    """Digests of the files it names as they are now; `None` for one that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One bundle held against one target, by every rule."""

    bundle: BundleFacts
    findings: tuple[Finding, ...]

    @property
    def fits(self) -> bool:
        """Tell whether nothing refuses the pair."""
        return not refused(self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """Everything an audit learnt of one target."""

    last: LastFacts
    active: tuple[ActiveRelease, ...] = ()
    error: EdgecalError | None = None
    """Why it could not be asked, or not all of it."""
    asked: bool = True

    @property
    def reachable(self) -> bool | None:
        """Tell whether it answered; `None` where nobody asked."""
        return not isinstance(self.error, ConnectError) if self.asked else None

    @property
    def name(self) -> str:
        """The target's name."""
        return self.last.target.name

    @property
    def tensorrt(self) -> TensorRTVersion | None:
        """The TensorRT that it has, as far as known."""
        return self.last.facts.tensorrt if self.last.facts else None


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


def recorded_files(record: Mapping[str, Any]) -> dict[str, str]:
    """Give the digests that a release's record holds, by file, the engine first.

    What is no path inside the release is left out: the record lies on the device.
    """
    engine = _table(record, "engine")
    named = {str(engine.get("file")): engine.get("digest"), **_table(record, "files")}
    return {
        path: digest
        for path, digest in named.items()
        if isinstance(digest, str)
        and path
        and not any(part in {"", ".", ".."} for part in path.split("/"))
    }


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
            and not any(_bundle_name(one) in names for one in state.active)
        ):
            yield Finding(
                rule="not-active",
                severity=Severity.NOTE,
                subject=state.name,
                message=f"bundle {best.bundle.name} fits, and nothing built from it is active",
                remedy=f"edgecal push {best.bundle.word} --target {shlex.quote(state.name)}",
            )


def drift(state: TargetState, fits: Sequence[Fit]) -> Iterator[Finding]:
    """Find what changed on a target since its active engines were built."""
    bundles = [fit.bundle for fit in fits]
    fitting = [fit.bundle for fit in fits if fit.fits]
    for active in state.active:
        if active.record is None:
            yield _drift_record(state, active, fitting)
            continue
        yield from _drift_tensorrt(state, active, active.record, fitting)
        yield from _drift_files(state, active, active.record, bundles)
        yield from _drift_cache(state, active, active.record, bundles)


def _drift_record(
    state: TargetState, active: ActiveRelease, fitting: Sequence[BundleFacts]
) -> Finding:
    namesakes = [one for one in fitting if one.name == active.model]
    bundle = next(iter(namesakes or fitting[:1])).word if fitting else "BUNDLE"
    return Finding(
        rule="drift-record",
        severity=Severity.ERROR,
        subject=state.name,
        message=f"{active.model}: release {active.release} is active, and what it was built from "
        "cannot be read: its folder or its build.json is gone or damaged",
        remedy=f"edgecal push {bundle} --target {shlex.quote(state.name)} "
        f"--as {active.model} --rebuild",
    )


def _drift_tensorrt(
    state: TargetState,
    active: ActiveRelease,
    record: Mapping[str, Any],
    fitting: Sequence[BundleFacts],
) -> Iterator[Finding]:
    """Find engines of another version: one runs where the full version is the same.

    Source: the support matrix of TensorRT's documentation.
    """
    builder = _table(record, "builder")
    built = _version(builder.get("tensorrt"))
    facts = state.last.facts
    if builder.get("name") not in _BY_TENSORRT or built is None or facts is None:
        return
    alike = [one for one in facts.builders if one.name == builder.get("name")]
    at_path = [one.tensorrt for one in alike if one.path == builder.get("path")]
    others = [one.tensorrt for one in alike]
    installed = [one for one in at_path or [*others, facts.tensorrt] if one is not None]
    if any(_same_release(built, one) for one in installed):
        return
    now = installed[0] if installed else None
    yield Finding(
        rule="drift-tensorrt",
        severity=Severity.ERROR,
        subject=state.name,
        message=f"{active.model}: the active engine was built by TensorRT {built}, installed is "
        f"{now or 'none that answers'}; an engine runs on the version that built it",
        remedy=_build_again(state, active, record, now, fitting),
    )


def _build_again(
    state: TargetState,
    active: ActiveRelease,
    record: Mapping[str, Any],
    now: TensorRTVersion | None,
    fitting: Sequence[BundleFacts],
) -> str:
    target = shlex.quote(state.name)
    if now is None:
        return "install TensorRT from JetPack again (package nvidia-tensorrt), then push again"
    name = _bundle_name(active) or active.model
    network = _table(record, "files").get(MODEL_FILE)
    for bundle in sorted(fitting, key=lambda one: one.name != name):
        if bundle.name == name or bundle.files.get(MODEL_FILE) == network:
            as_name = "" if bundle.name == active.model else f" --as {active.model}"
            return f"edgecal push {bundle.word} --target {target}{as_name}"
    if not takes_caches(now):
        return (
            f"TensorRT {now.major_minor} takes no cache: go back to TensorRT 10, or give it a "
            f"network with Q/DQ nodes: {QDQ_COMMAND}"
        )
    built_for = _version(_table(record, "bundle").get("tensorrt"))
    if built_for is not None and built_for.major_minor == now.major_minor:
        as_name = "" if name == active.model else f" --as {active.model}"
        return f"edgecal push {name}.edgecal --target {target}{as_name}"
    old = f"-{built_for.major_minor}" if built_for else ""
    made = f"{name.removesuffix(old)}-{now.major_minor}.edgecal"
    return (
        f"edgecal calibrate MODEL.onnx --data DATA --tensorrt {now.major_minor} -o {made}, then "
        f"edgecal push {made} --target {target} --as {active.model}"
    )


def _drift_files(
    state: TargetState,
    active: ActiveRelease,
    record: Mapping[str, Any],
    bundles: Sequence[BundleFacts],
) -> Iterator[Finding]:
    recorded = recorded_files(record)
    gone = [path for path in recorded if active.found.get(path) is None]
    changed = [
        path for path, digest in recorded.items() if active.found.get(path) not in {None, digest}
    ]
    for words, paths in (("is gone", gone), ("is not what was verified", changed)):
        if not paths:
            continue
        more = f", and {len(paths) - 1} more like it" if paths[1:] else ""
        was, now = recorded[paths[0]], active.found.get(paths[0])
        digests = f" ({was[:19]}… then, {now[:19]}… now)" if now else ""
        again = _word(bundles, active)
        yield Finding(
            rule="drift-files",
            severity=Severity.ERROR,
            subject=state.name,
            message=f"{active.model}: {paths[0]} of the active release {active.release} {words}"
            f"{digests}{more}",
            remedy=f"edgecal push {again} --target {shlex.quote(state.name)}"
            f"{_as(active)} --rebuild"
            + (
                ""
                if paths[0] == _engine_file(record)
                else "; a damaged file is removed there, and a second push sends it anew"
            ),
        )


def _drift_cache(
    state: TargetState,
    active: ActiveRelease,
    record: Mapping[str, Any],
    bundles: Sequence[BundleFacts],
) -> Iterator[Finding]:
    """Compare with the given bundle of the same name; others say nothing of this engine."""
    namesakes = [one for one in bundles if one.name == _bundle_name(active)]
    built = _table(record, "bundle")
    if not namesakes or any(one.manifest == built.get("manifest") for one in namesakes):
        return
    bundle = namesakes[0]
    cache = _table(record, "cache").get("bundled")
    network = _table(record, "files").get(MODEL_FILE)
    other = [
        word
        for word, was, now in (
            ("cache" if CACHE_FILE in bundle.files else "Q/DQ network", cache, _scales(bundle)),
            ("network", network, bundle.files.get(MODEL_FILE)),
        )
        if was != now
    ]
    remedy = f"edgecal push {bundle.word} --target {shlex.quote(state.name)}{_as(active)}"
    made = f"of {built['created']}" if isinstance(built.get("created"), str) else "of before"
    if other:
        yield Finding(
            rule="drift-cache",
            severity=Severity.ERROR,
            subject=state.name,
            message=f"{active.model}: the active engine was built from another "
            f"{' and '.join(other)} than bundle {bundle.name} holds now: {str(cache)[:19]}… "
            f"{made}, {_scales(bundle)[:19]}… in {bundle.path}",
            remedy=remedy,
        )
    else:
        yield Finding(
            rule="drift-cache",
            severity=Severity.NOTE,
            subject=state.name,
            message=f"{active.model}: the bundle was made again since, with the same network and "
            "cache",
            remedy=f"nothing to do; to record it: {remedy}",
        )


def _scales(bundle: BundleFacts) -> str:
    """Give the digest of what carries the scales."""
    return bundle.files.get(CACHE_FILE, bundle.files.get(QDQ_FILE, ""))


def outliers(states: Sequence[TargetState], platforms: Platforms) -> dict[str, tuple[Finding, ...]]:
    """Find targets whose TensorRT is another than that of most of their kind.

    A kind is a family of modules, such as `agx-xavier`. More than half of it must agree.
    """
    kinds: dict[str, list[TargetState]] = defaultdict(list)
    for state in states:
        facts = state.last.facts
        module = platforms.module(facts.module) if facts and facts.module else None
        if module is not None and state.tensorrt is not None:
            kinds[module.family].append(state)
    found: dict[str, tuple[Finding, ...]] = {}
    for family, several in kinds.items():
        counts = Counter(one.tensorrt.major_minor for one in several if one.tensorrt)
        common, count = counts.most_common(1)[0]
        if count * 2 <= len(several) or count < 2:
            continue
        for state in several:
            if state.tensorrt is not None and state.tensorrt.major_minor != common:
                message = (
                    f"TensorRT {state.tensorrt}; the rest of the {family} modules has {common} "
                    f"({count} targets)"
                )
                finding = Finding(
                    rule="outlier",
                    severity=Severity.WARNING,
                    subject=state.name,
                    message=message,
                    remedy=_bring_in_line(state, state.tensorrt, common, platforms),
                )
                found[state.name] = (finding,)
    return found


def _bring_in_line(
    state: TargetState, have: TensorRTVersion, common: str, platforms: Platforms
) -> str:
    another = (
        f"edgecal calibrate MODEL.onnx --data DATA --tensorrt {have.major_minor} "
        f"-o NAME-{have.major_minor}.edgecal"
        if takes_caches(have)
        else QDQ_COMMAND
    )
    newest = next(
        (
            release
            for release in reversed(platforms.releases)
            if release.tensorrt_major_minor == common and not release.is_preview
        ),
        None,
    )
    own = state.last.facts.l4t if state.last.facts else None
    release = platforms.release_for_l4t(own) if own else None
    if release is not None and release.tensorrt_major_minor == common:
        first = (
            f"its JetPack {release.jetpack} brings TensorRT {common}: install that again "
            "(package nvidia-tensorrt)"
        )
    elif newest is None:
        first = f"bring it to TensorRT {common}"
    elif have < parse_tensorrt(common):
        first = f"upgrade it to JetPack {newest.jetpack}"
    else:
        first = f"flash it with JetPack {newest.jetpack}"
    return f"{first}; or calibrate another bundle: {another}"


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


def _distance(fit: Fit, have: TensorRTVersion | None) -> tuple[bool, bool, int]:
    """Order the bundles of one network: those that fit first, then by what stands against them."""
    other = have is None or fit.bundle.tensorrt.major_minor != have.major_minor
    return not fit.fits, other, len(fit.findings)


def _same_release(left: TensorRTVersion, right: TensorRTVersion) -> bool:
    """Compare full versions, as far as both are known: banners before 10.8 lack the build."""
    fields = (left.major, left.minor, left.patch) == (right.major, right.minor, right.patch)
    return fields and (None in {left.build, right.build} or left.build == right.build)


def _bundle_name(active: ActiveRelease) -> str | None:
    """Read the bundle's name, which goes into commands: only what could be one counts."""
    name = _table(active.record or {}, "bundle").get("name")
    try:
        return parse_name(name, source="") if isinstance(name, str) else None
    except InputError:
        return None


def _word(bundles: Sequence[BundleFacts], active: ActiveRelease) -> str:
    """Name the bundle that a release was built from, as it would stand in a command."""
    name = _bundle_name(active)
    known = next((one.word for one in bundles if one.name == name), None)
    return known or shlex.quote(f"{name or 'BUNDLE'}.edgecal")


def _as(active: ActiveRelease) -> str:
    return "" if _bundle_name(active) == active.model else f" --as {active.model}"


def _engine_file(record: Mapping[str, Any]) -> object:
    return _table(record, "engine").get("file")


def _table(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _version(text: object) -> TensorRTVersion | None:
    try:
        return parse_tensorrt(text) if isinstance(text, str) else None
    except InputError:
        return None
