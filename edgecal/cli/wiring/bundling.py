"""Bundles on disk: read, written, held against what they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.cli.wiring import lookup, machine

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.onnx_model import OnnxModel
    from edgecal.core.findings import Finding
    from edgecal.ports import Dataset
    from edgecal.workflows.calibrate import Calibration
    from edgecal.workflows.collect import Statistics


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and check every file of it."""
    from edgecal.adapters.bundle import read_bundle

    return read_bundle(path)


def check_destination(path: Path) -> None:
    """Make sure, before the work, that a bundle can be written there."""
    from edgecal.adapters.bundle import check_destination as check

    check(path)


def save_bundle(
    path: Path,
    *,
    network: OnnxModel,
    data: str,
    source: Dataset,
    statistics: Statistics,
    calibration: Calibration,
) -> Bundle:
    """Write a bundle, whole or not at all."""
    from edgecal import __version__
    from edgecal.adapters.bundle import write_bundle
    from edgecal.core.manifest import MODEL_FILE, bundle_name
    from edgecal.workflows.calibrate import make_manifest

    manifest = make_manifest(
        calibration,
        statistics,
        source,
        name=bundle_name(path.name),
        model=network.record(),
        data=data,
        now=machine.now(),
        version=__version__,
    )
    contents: dict[str, bytes | Path] = {MODEL_FILE: network.path}
    contents.update({name: network.path.parent / name for name in network.external_data})
    contents.update(calibration.files)
    return write_bundle(path, manifest, contents)


def source_findings(
    of: Bundle, *, model: str | None = None, data: str | None = None, deep: bool = False
) -> tuple[Finding, ...]:
    """Hold a bundle against its source network and data: as given, else as the project says."""
    from edgecal.adapters.sources import find_data, find_model
    from edgecal.core.freshness import judge_data, judge_model, named_sources

    model, data = named_sources(of.manifest, lookup.project(), model=model, data=data)
    return (
        *judge_model(of.manifest, find_model(model, of.manifest, deep=deep)),
        *judge_data(of.manifest, find_data(data, of.manifest, deep=deep)),
    )
