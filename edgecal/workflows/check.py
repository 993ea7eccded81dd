"""A bundle held against targets by every rule, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgecal.core.cache import parse_cache
from edgecal.core.compat import (
    CacheFacts,
    Pairing,
    check_cache,
    check_pairing,
    choose_builder,
    suspicious_scales,
)
from edgecal.core.document import LegacyHeader, read_document
from edgecal.core.findings import refused
from edgecal.core.graph import FLOAT_TYPES
from edgecal.core.manifest import CACHE_FILE, MODEL_FILE, SIGNATURE_FILE
from edgecal.core.precision import PRECISION_FILE, parse_precision
from edgecal.core.rules.caches import judge_coverage
from edgecal.errors import EdgecalError
from edgecal.workflows.targets import probe_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.build import BuildOptions
    from edgecal.core.findings import Finding
    from edgecal.core.manifest import CoverageRecord, Manifest
    from edgecal.core.platforms import Platforms
    from edgecal.core.target import BuilderFact, Target, TargetFacts
    from edgecal.ports import BundleFiles
    from edgecal.workflows.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCheck:
    """What the rules say of a bundle on one target."""

    target: str
    builder: BuilderFact | None = None
    facts: TargetFacts | None = None
    findings: tuple[Finding, ...] = ()
    error: EdgecalError | None = None
    """Why the target could not be asked."""

    @property
    def exit_code(self) -> int:
        """Give the exit code that this one target calls for."""
        if self.error is not None:
            return self.error.exit_code
        return 3 if refused(self.findings) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """A bundle by itself, and on each target."""

    bundle: str
    about_bundle: tuple[Finding, ...]
    """Of its sources and its cache, whichever the target."""
    targets: tuple[TargetCheck, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, each once."""
        found = [*self.about_bundle, *(one for check in self.targets for one in check.findings)]
        return tuple(dict.fromkeys(found))

    @property
    def exit_codes(self) -> tuple[int, ...]:
        """Give the exit codes that bundle and targets call for."""
        return (3 if refused(self.about_bundle) else 0, *(one.exit_code for one in self.targets))


def look_at_cache(bundle: BundleFiles, *, path: str | None = None) -> CacheFacts:
    """Read a bundle's cache for the rules; once, whatever the number of targets.

    Of form `qdq` it has none, and the manifest tells all that the rules look at.

    Raises
    ------
    CacheFormatError
        If no TensorRT could have written it, and no push could send it.
    """
    manifest = bundle.manifest
    if manifest.explicit is not None:
        return CacheFacts(
            bundle=manifest.name,
            tensorrt=manifest.tensorrt,
            header=None,
            header_text="",
            path=path,
            inputs=_float_inputs(manifest),
            dynamic_inputs=_dynamic_inputs(manifest),
            explicit=manifest.explicit,
        )
    source = f"{path or manifest.name}/{CACHE_FILE}"
    with bundle.open(CACHE_FILE) as stream:
        data = stream.read()
    document = read_document(data, source=source)
    if not isinstance(document.header, LegacyHeader):
        parse_cache(data, source=source)
    entries = {entry.tensor for entry in document.entries}
    return CacheFacts(
        bundle=manifest.name,
        tensorrt=manifest.tensorrt,
        header=document.header,
        header_text=document.header_text,
        written_by_tensorrt=manifest.written_by_tensorrt,
        path=path,
        scales=suspicious_scales(document),
        coverage=_still_missing(manifest, entries),
        inputs=_float_inputs(manifest),
        dynamic_inputs=_dynamic_inputs(manifest),
    )


def _float_inputs(manifest: Manifest) -> tuple[str, ...]:
    return tuple(one.name for one in manifest.model.inputs if one.dtype in FLOAT_TYPES)


def _dynamic_inputs(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    return {one.name: one.shape for one in manifest.model.inputs if -1 in one.shape}


def pair_up(
    bundle: BundleFiles,
    cache: CacheFacts,
    target: Target,
    *,
    facts: TargetFacts,
    options: BuildOptions,
    platforms: Platforms,
    accept_restamped: bool = False,
) -> Pairing:
    """Put together what the rules look at."""
    manifest = bundle.manifest
    shipped = bundle.shipped()
    network = shipped[MODEL_FILE].size
    release = platforms.release_for_l4t(facts.l4t) if facts.l4t else None
    if release is None and facts.jetpack is not None:
        release = platforms.release_for_jetpack(facts.jetpack)
    return Pairing(
        bundle=manifest.name,
        bundle_tensorrt=manifest.tensorrt,
        target=target,
        facts=facts,
        module=platforms.module(facts.module) if facts.module else None,
        builder=choose_builder(
            facts,
            asked=target.builder,
            tensorrt=manifest.tensorrt,
            algorithm=cache.algorithm if options.int8 else None,
            fp16_layers=read_fp16_layers(bundle) if options.int8 else (),
            minimum=manifest.explicit.minimum_tensorrt
            if manifest.explicit is not None and options.int8
            else None,
        ),
        options=options,
        # a second time the model's size: an engine is seldom larger
        needed_bytes=sum(one.size for one in shipped.values()) + network,
        # a header of edgecal's own says no more than the manifest does
        restamped_from=manifest.restamped_from if manifest.written_by_tensorrt else None,
        accept_restamped=accept_restamped,
        cache=cache,
        release=release,
        model_bytes=network
        + sum(shipped[name].size for name in manifest.model.external_data if name in shipped),
        platforms=platforms,
        signed=SIGNATURE_FILE in shipped,
        signed_for=manifest.targets,
    )


def read_fp16_layers(bundle: BundleFiles) -> tuple[str, ...]:
    """Name the layers that a bundle wants kept out of INT8."""
    if PRECISION_FILE not in bundle.shipped():
        return ()
    with bundle.open(PRECISION_FILE) as stream:
        source = f"{bundle.manifest.name}/{PRECISION_FILE}"
        return parse_precision(stream.read(), source=source).fp16_layers


def check_bundle(
    cache: CacheFacts,
    sources: Sequence[Finding],
    options: BuildOptions,
    targets: Sequence[TargetCheck] = (),
) -> CheckReport:
    """Judge a bundle by itself, beside what was found on targets.

    Without a target the cache's coverage is judged for the build that was asked for; with targets
    it is judged on each of them.
    """
    found = [*sources, *(check_cache(cache) if options.int8 else ())]
    if not targets and options.int8:
        found += judge_coverage(cache, options, cache.bundle)
    return CheckReport(bundle=cache.bundle, about_bundle=tuple(found), targets=tuple(targets))


def check_on(
    bundle: BundleFiles,
    cache: CacheFacts,
    target: Target,
    *,
    facts: TargetFacts,
    options: BuildOptions,
    platforms: Platforms,
) -> TargetCheck:
    """Judge a bundle on a target of which these facts are known."""
    pair = pair_up(bundle, cache, target, facts=facts, options=options, platforms=platforms)
    return TargetCheck(
        target=target.name, builder=pair.builder, facts=facts, findings=check_pairing(pair)
    )


def check_live(
    bundle: BundleFiles, cache: CacheFacts, target: Target, options: BuildOptions, world: World
) -> TargetCheck:
    """Ask a target what it is, and judge the bundle on it; not being reached is an answer too."""
    try:
        facts = probe_target(target, world)
    except EdgecalError as error:
        return TargetCheck(target=target.name, error=error)
    return check_on(bundle, cache, target, facts=facts, options=options, platforms=world.platforms)


def _still_missing(manifest: Manifest, entries: set[str]) -> CoverageRecord:
    """Count what has no entry; an edited cache may have filled what calibration left out."""
    record = manifest.coverage
    missing = tuple(name for name in record.missing if name not in entries)
    return replace(record, missing=missing, covered=record.activations - len(missing))
