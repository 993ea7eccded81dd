"""Drift: what changed on a target since the engines that are active there were built."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from edgecal.core.findings import Finding, Severity
from edgecal.core.hosts import QDQ_COMMAND, takes_caches
from edgecal.core.manifest import CACHE_FILE, MODEL_FILE, QDQ_FILE, parse_name
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgecal.core.target_state import ActiveRelease, BundleFacts, Fit, TargetState
    from edgecal.core.versions import TensorRTVersion

_BY_TENSORRT: Final = ("trtexec", "tensorrt")
"""The builders whose engines are of TensorRT."""


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


def built_from(active: ActiveRelease) -> str | None:
    """Name the bundle that a release was built from, if it could be one: it goes into commands."""
    name = _table(active.record or {}, "bundle").get("name")
    try:
        return parse_name(name, source="") if isinstance(name, str) else None
    except InputError:
        return None


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


def _same_release(left: TensorRTVersion, right: TensorRTVersion) -> bool:
    """Compare full versions, as far as both are known: banners before 10.8 lack the build."""
    return left.major_minor_patch == right.major_minor_patch and (
        None in {left.build, right.build} or left.build == right.build
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
    name = built_from(active) or active.model
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
    namesakes = [one for one in bundles if one.name == built_from(active)]
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


def _word(bundles: Sequence[BundleFacts], active: ActiveRelease) -> str:
    """Write that bundle as it would stand in a command."""
    name = built_from(active)
    known = next((one.word for one in bundles if one.name == name), None)
    return known or shlex.quote(f"{name or 'BUNDLE'}.edgecal")


def _as(active: ActiveRelease) -> str:
    return "" if built_from(active) == active.model else f" --as {active.model}"


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
