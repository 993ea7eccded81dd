"""Data on disk: opened, written as batch files, unpacked for the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgecal.adapters.batches import WrittenBatches
    from edgecal.adapters.demo_data import DemoData
    from edgecal.core.findings import Finding
    from edgecal.core.graph import TensorInfo
    from edgecal.core.preprocess import Preprocess
    from edgecal.ports import Dataset


def open_dataset(
    spec: str,
    inputs: Sequence[TensorInfo],
    *,
    preprocess: Preprocess | None,
    skip_unreadable: bool,
    limit: int | None,
) -> Dataset:
    """Open calibration data."""
    from edgecal.adapters.datasets import open_dataset

    return open_dataset(
        spec, inputs, preprocess=preprocess, skip_unreadable=skip_unreadable, limit=limit
    )


def judge_files(source: Dataset, *, spec: str) -> list[Finding]:
    """Say what is odd about the files that data lies in."""
    from edgecal.adapters.batches import BatchFiles
    from edgecal.core.batch_files import judge_batch_names

    if not isinstance(source, BatchFiles):
        return []
    return list(judge_batch_names([file.name for file in source.files], source=spec))


def check_batches(
    folder: Path, inputs: Sequence[TensorInfo], *, prefix: str, suffix: str, data: Path
) -> None:
    """Make sure, before the work, that batch files of this network's input can be written there."""
    from edgecal.adapters.batches import BatchWords, check_batch_folder, only_float_input

    only_float_input(inputs, str(folder))
    check_batch_folder(folder, BatchWords(prefix=prefix, suffix=suffix), data=data)


def write_batches(
    folder: Path,
    source: Dataset,
    *,
    prefix: str,
    suffix: str,
    batch_size: int,
    progress: Callable[[int], None],
) -> WrittenBatches:
    """Write data as batch files, all of them or none."""
    from edgecal.adapters import batches

    return batches.write_batches(
        folder,
        source,
        words=batches.BatchWords(prefix=prefix, suffix=suffix),
        batch_size=batch_size,
        progress=progress,
    )


def demo_data(folder: Path) -> DemoData:
    """Unpack the demo's network and pictures."""
    from edgecal.adapters.demo_data import unpack_demo

    return unpack_demo(folder)
