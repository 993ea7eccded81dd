"""The work of `edgecal calibrate`: a pass over data by either backend, or a bundle's statistics."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from edgecal.cli.data import DataRequest, open_data
from edgecal.cli.preview import findings_of_pass, shares_line
from edgecal.cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.onnx_model import OnnxModel
    from edgecal.cli.backends import NativeRequest
    from edgecal.cli.cluster import ClusterRequest
    from edgecal.cli.story import Story
    from edgecal.core.findings import Finding
    from edgecal.core.overrides import Overrides
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Dataset
    from edgecal.workflows.calibrate import Calibration
    from edgecal.workflows.collect import CalibrateOptions, Statistics
    from edgecal.workflows.resume import Keeper
    from edgecal.workflows.sharding import Shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """The bundle beside which an unfinished pass is kept, and whether to go on with one."""

    out: Path
    resume: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What was calibrated, and out of what."""

    network: OnnxModel
    data: str
    source: Dataset
    statistics: Statistics
    calibrations: tuple[Calibration, ...]
    findings: list[Finding]
    keeper: Keeper | None = None


def pass_over_data(  # noqa: PLR0917 - called once, in the words of the command line
    network: OnnxModel,
    request: DataRequest,
    versions: Sequence[TensorRTVersion],
    options: CalibrateOptions,
    overrides: Sequence[Overrides],
    keep: Keep,
    native: NativeRequest | None,
    over: ClusterRequest | None,
    story: Story,
) -> Work:
    """Go through the data."""
    from edgecal.cli.wiring import networks
    from edgecal.workflows import calibrate as workflow
    from edgecal.workflows.native import calibrate_natively

    source, findings = open_data(request, network.graph.inputs)
    if request.preview is not None:
        story.tell(f"preview: {escape(str(request.preview))}")
    keeper = None
    if native is None:
        keeper = networks.keeper(keep.out, network, resume=keep.resume, tell=story.tell)
        with _spread(over, network, story) as spread, story.progress() as progress:
            statistics, calibrations = workflow.calibrate(
                *(networks.backend(network), source, versions, options, progress),
                overrides=overrides,
                keeper=keeper,
                spread=spread,
            )
    else:
        with story.progress() as progress:
            statistics, calibration = calibrate_natively(
                networks.backend(network),
                networks.tensorrt_calibrator(network, native, out=keep.out),
                *(source, native.tensorrt, options),
                progress=progress,
                overrides=overrides,
            )
        calibrations = (calibration,)
    findings += findings_of_pass(source, spec=request.spec, test_set=request.exclude_like)
    if shares := shares_line(source):
        story.detail(f"shares: {escape(shares)}")
    return Work(
        network=network,
        data=request.spec,
        source=source,
        statistics=statistics,
        calibrations=calibrations,
        findings=findings,
        keeper=keeper,
    )


@contextmanager
def _spread(
    over: ClusterRequest | None, network: OnnxModel, story: Story
) -> Iterator[Shards | None]:
    from edgecal.cli.wiring import clusters

    if over is None:
        yield None
        return

    def tell(text: str) -> None:
        story.tell(escape(printable(text)))

    with clusters.connect(over, tell) as cluster, clusters.shards(cluster, network, tell) as shards:
        yield shards


def derive_from_bundle(
    parent: Bundle,
    versions: Sequence[TensorRTVersion],
    options: CalibrateOptions,
    overrides: Sequence[Overrides],
    story: Story,
    *,
    as_before: bool,
) -> Work:
    """Use what a bundle has kept; `as_before` also by the algorithm that it has."""
    from edgecal.cli.wiring import networks
    from edgecal.core.manifest import MODEL_FILE
    from edgecal.workflows import calibrate as workflow

    if as_before:
        options = workflow.with_algorithm_of(parent.manifest.calibration, options)
    network = networks.model(parent.path / MODEL_FILE)
    with story.progress() as progress:
        statistics, calibrations = workflow.recalibrate(
            networks.backend(network),
            parent,
            versions,
            options,
            progress,
            overrides=overrides,
            source=str(parent.path),
        )
    recorded = parent.manifest.data
    return Work(
        network=network,
        data=recorded.source,
        source=workflow.RecordedData(
            kind=recorded.kind, skipped=recorded.skipped, samples=recorded.samples
        ),
        statistics=statistics,
        calibrations=calibrations,
        findings=[],
    )
