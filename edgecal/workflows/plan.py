"""What a release is made of and how, settled on the host before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.core.build import BuildRequest, release_id, span_of
from edgecal.core.cache import parse_cache, restamp_cache, serialize_cache
from edgecal.core.deepstream import TABLE_FILE
from edgecal.core.findings import Finding, Severity
from edgecal.core.manifest import CACHE_FILE, CACHE_FORM, MODEL_FILE, QDQ_FILE, QDQ_FORM
from edgecal.core.profiles import check_profile
from edgecal.core.versions import version_of_code
from edgecal.errors import BundleError, IncompatibleError
from edgecal.workflows.check import read_fp16_layers
from edgecal.workflows.job_files import deepstream_files, list_job_files, read_golden, run_files
from edgecal.workflows.upload import file_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.build import BuildOptions, ShapeRange
    from edgecal.core.golden import GoldenRun
    from edgecal.core.target import BuilderFact, TargetFacts
    from edgecal.ports import Builder, BundleFiles, RunFiles
    from edgecal.workflows.check import TargetCheck
    from edgecal.workflows.upload import DeviceFile


_FIRST_WITH_INT64: Final = 10
"""TensorRT's major version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One release of one model on one target, as far as the host decides it."""

    name: str
    """The model's, on the target."""
    bundle: BundleFiles
    facts: TargetFacts
    kind: Builder
    request: BuildRequest
    argv: tuple[str, ...]
    cache: bytes | None
    """What is built from; `None` where no cache is used."""
    golden: tuple[GoldenRun, ...]
    runs: tuple[RunFiles, ...]
    """Where the inputs of the golden runs lie."""
    files: Mapping[str, DeviceFile]
    """By their names in the job's folder."""

    @property
    def builder(self) -> BuilderFact:
        """Say which of the target's builders it is."""
        return self.request.builder

    @property
    def options(self) -> BuildOptions:
        """Say how it is to be built."""
        return self.request.options

    def release_id(self, *, again: str | None = None) -> str:
        """Name the release; `again` is the moment of a rebuild of what is active."""
        return release_id(
            manifest=self.bundle.manifest_digest,
            builder=self.builder,
            facts=self.facts,
            options=self.options,
            again=again,
        )

    def reheaded(self) -> Plan | None:
        """Give the plan to build from a copy of the cache whose header says the exact TensorRT.

        `None` where it says so already, or is of another major.minor: a header for that is the
        user's to force.
        """
        version = self.builder.tensorrt
        if self.cache is None or version is None:
            return None
        cache = parse_cache(self.cache)
        said = version_of_code(cache.header.code)
        if said.major_minor != version.major_minor:
            return None
        data = serialize_cache(restamp_cache(cache, version))
        if data == self.cache:
            return None
        copies = {name: file_of(data) for name in (CACHE_FILE, TABLE_FILE) if name in self.files}
        return replace(self, cache=data, files={**self.files, **copies})


def make_plan(
    bundle: BundleFiles,
    builder: BuilderFact,
    kind: Builder,
    *,
    facts: TargetFacts,
    options: BuildOptions,
    name: str,
) -> Plan:
    """Settle everything; what this builder cannot do is refused here, before anything is sent.

    Raises
    ------
    IncompatibleError, InputError
        If it cannot be built like this.
    """
    golden = read_golden(bundle)
    form = bundle.manifest.form if options.int8 else None
    cache = _cache_for(builder, bundle) if form == CACHE_FORM else None
    inputs = {one.name: one.shape for one in bundle.manifest.model.inputs}
    shapes = _spans(golden, bundle.manifest.name)
    check_profile(
        options.profile,
        inputs,
        shapes,
        dla=options.dla_core is not None,
        where=bundle.manifest.name,
    )
    request = BuildRequest(
        builder=builder,
        options=options,
        shapes=shapes,
        dynamic=frozenset(name for name, shape in inputs.items() if -1 in shape),
        outputs=tuple(one.name for one in bundle.manifest.model.outputs),
        model_file=QDQ_FILE if form == QDQ_FORM else MODEL_FILE,
        cache_file=CACHE_FILE if cache is not None else None,
        fp16_layers=read_fp16_layers(bundle),
        timing_cache=_timing_cache(builder, facts, name),
    )
    runs = run_files(
        golden, int64=builder.tensorrt is None or builder.tensorrt.major >= _FIRST_WITH_INT64
    )
    support = dict(kind.support_files())
    if options.layout == "deepstream":
        current = f"{facts.root}/models/{name}/current"
        support.update(deepstream_files(cache, current=current, where=bundle.manifest.name))
    return Plan(
        name=name,
        bundle=bundle,
        facts=facts,
        kind=kind,
        request=request,
        argv=kind.build_argv(request),
        cache=cache,
        golden=golden,
        runs=runs,
        files=list_job_files(bundle, golden, runs, cache=cache, support=support),
    )


def judge_plan(
    bundle: BundleFiles,
    checked: TargetCheck,
    options: BuildOptions,
    builders: Mapping[str, Builder],
) -> TargetCheck:
    """Add to what the rules say what the builder at hand would refuse, such as layers in FP16."""
    if checked.exit_code or checked.builder is None or checked.facts is None:
        return checked
    try:
        make_plan(
            bundle,
            checked.builder,
            builders[checked.builder.name],
            facts=checked.facts,
            options=options,
            name=bundle.manifest.name,
        )
    except IncompatibleError as error:
        finding = Finding(
            rule="builder-unsupported",
            severity=Severity.ERROR,
            subject=checked.target,
            message=error.what,
            remedy=error.remedy,
        )
        return replace(checked, findings=(*checked.findings, finding))
    return checked


def _spans(golden: Sequence[GoldenRun], where: str) -> dict[str, ShapeRange]:
    spans = {}
    for name in golden[0].inputs:
        shapes = [run.inputs[name].shape for run in golden]
        if len({len(shape) for shape in shapes}) > 1:
            raise BundleError(
                f"golden runs differ in the number of dimensions at input {name!r}",
                where=where,
                remedy="the bundle is damaged; copy it again or calibrate again",
            )
        spans[name] = span_of(shapes)
    return spans


def _cache_for(builder: BuilderFact, bundle: BundleFiles) -> bytes:
    """Head the cache for the target's exact TensorRT, unless TensorRT itself wrote it."""
    with bundle.open(CACHE_FILE) as stream:
        data = stream.read()
    if bundle.manifest.written_by_tensorrt or builder.tensorrt is None:
        return data
    return serialize_cache(restamp_cache(parse_cache(data), builder.tensorrt))


def _timing_cache(builder: BuilderFact, facts: TargetFacts, name: str) -> str | None:
    """Name the file that remembers how fast kernels were: one a model, so none is shared."""
    if builder.tensorrt is None:
        return None
    module = facts.module or facts.model or facts.arch or "unknown"
    place = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{builder.tensorrt}-{module}")
    return f"{facts.root}/timing/{place}/{name}.cache"
