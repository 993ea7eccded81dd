"""What `edgecal calibrate` prints of the bundles it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgecal.adapters.bundle import Bundle
    from edgecal.core.manifest import ExplicitRecord
    from edgecal.workflows.calibrate import Calibration
    from edgecal.workflows.collect import Statistics


def show_bundles(
    console: Console,
    written: Sequence[tuple[Bundle, Calibration]],
    statistics: Statistics,
    seconds: float,
) -> None:
    """Print what was made, with the quality the host predicts."""
    from rich.markup import escape

    for bundle, done in written:
        console.print(f"[bold]{escape(str(bundle.path))}[/] for TensorRT {done.tensorrt}")
        if done.explicit is not None:
            console.print(f"  network    {_explicit_words(done.explicit)}")
        console.print(f"  algorithm  {done.record.algorithm} ({escape(done.record.chosen_by)})")
        if done.written_by_tensorrt:
            gpu = escape(str(done.record.parameters["gpu"]))
            console.print(f"  backend    TensorRT {done.record.backend_version} on {gpu}")
        constants = f", {done.coverage.constants} constants" if done.coverage.constants else ""
        console.print(
            f"  tensors    {done.coverage.covered} of {done.coverage.activations} activations"
            f"{constants}"
        )
        if done.parent is not None:
            console.print(
                f"  derived    from {escape(done.parent.manifest.name)} without a pass, judged by "
                f"its {done.golden.runs} golden runs"
            )
        if done.record.overrides:
            console.print(f"  ranges     {_count_ranges(done)}")
        for name, quality in done.quality.outputs.items():
            cosine, decibel = quality["cosine_min"], quality["sqnr_db"]
            console.print(
                f"  predicted  {escape(name)}: cosine to FP32 at least {cosine:.4f}"
                + (f", SQNR {decibel:.1f} dB" if decibel is not None else "")
            )
    unreadable = written[0][0].manifest.data.skipped
    skipped = f", {len(unreadable)} unreadable skipped" if unreadable else ""
    alike = written[0][0].manifest.data.excluded
    skipped += f", {len(alike)} of the test set left out" if alike else ""
    dropped = f", {statistics.dropped} of an incomplete batch dropped" if statistics.dropped else ""
    held = f" ({statistics.held_out_samples} held out to judge by)" if statistics.held_out else ""
    console.print(f"  samples    {statistics.samples}{held}{skipped}{dropped}, {seconds:.1f} s")


def _explicit_words(made: ExplicitRecord) -> str:
    return (
        f"Q/DQ pairs for {made.activations} activations and {made.weights} weights, the rest in "
        f"{'FP16' if made.fp16 else 'FP32'}; for TensorRT {made.minimum_tensorrt.major_minor} and "
        "later"
    )


def _count_ranges(done: Calibration) -> str:
    copied = sum(one.follows is not None for one in done.record.overrides)
    given = len(done.record.overrides) - copied
    also = f", and {copied} more copy them" if copied else ""
    return f"{given} given, in place of measured ones{also}"
