"""Networks: read, quantized, run, measured."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Literal

from rich.markup import escape

from edgecal.cli.printable import printable
from edgecal.cli.story import warn_once
from edgecal.cli.wiring import lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgecal.adapters.onnx_model import OnnxModel
    from edgecal.adapters.plain_network import PlainNetwork
    from edgecal.cli.backends import NativeRequest
    from edgecal.core.conversion import ScaleSet
    from edgecal.core.placement import Placement
    from edgecal.core.shapes import GivenShape
    from edgecal.ports import Backend, Network, TensorRTCalibrator
    from edgecal.workflows.resume import Keeper


def model(path: Path, shapes: Mapping[str, GivenShape] | None = None) -> OnnxModel:
    """Read an ONNX file, and settle the shapes of dynamic inputs."""
    from edgecal.adapters.onnx_model import read_model, settle_shapes

    return settle_shapes(read_model(path), shapes or {})


def quantize(
    network: Path, scales: ScaleSet, *, placement: Literal["gpu", "dla"], fp16: bool
) -> tuple[bytes, Placement]:
    """Write a network with quantize/dequantize pairs for these scales."""
    from edgecal.adapters.qdq import write_qdq

    values = {entry.tensor: entry.scale for entry in scales.entries}
    return write_qdq(model(network), values, placement=placement, fp16=fp16)


def unquantize(network: Path) -> PlainNetwork:
    """Take a network with quantize/dequantize pairs apart: plain network and scales."""
    from edgecal.adapters.qdq_reader import read_qdq

    return read_qdq(network)


def run_onnx(path: Path) -> Network:
    """Load an ONNX file as it stands, with all of ONNX Runtime's optimisations."""
    from edgecal.adapters.ort_backend import load_network

    return load_network(path)


def backend(network: OnnxModel) -> Backend:
    """Make the ONNX Runtime backend for a network."""
    from edgecal.adapters.ort_backend import OrtBackend

    return OrtBackend(network, warn=warn_once)


def tensorrt_calibrator(
    network: OnnxModel, native: NativeRequest, *, out: Path
) -> TensorRTCalibrator:
    """Make the TensorRT backend for a network; what TensorRT says goes beside the bundle."""
    from edgecal.adapters.trt_backend import HostTensorRT
    from edgecal.adapters.trt_places import InContainer, OtherPython, Place, ThisPython

    place: Place = ThisPython()
    if native.container is not None:
        place = InContainer(native.container)
    elif native.python is not None:
        place = OtherPython(native.python)
    return HostTensorRT(
        model=network.path,
        tensorrt=native.tensorrt,
        log=out.with_name(f"{out.name}.tensorrt.log"),
        host=native.host,
        platforms=lookup.platforms(),
        place=place,
    )


def keeper(out: Path, network: OnnxModel, *, resume: bool, tell: Callable[[str], object]) -> Keeper:
    """Make what keeps an unfinished pass, beside the bundle that is to be written."""
    from edgecal import __version__
    from edgecal.adapters.checkpoints import CheckpointFile, checkpoint_path
    from edgecal.core.shapes import by_x
    from edgecal.workflows.resume import Keeper

    return Keeper(
        CheckpointFile(
            checkpoint_path(out), warn=lambda text: tell(f"[yellow]warning[/] {_plain(text)}")
        ),
        of={
            "network": network.digest,
            "shapes": ", ".join(f"{name}={by_x(one)}" for name, one in network.settled.items()),
            "edgecal": __version__,
        },
        resume=resume,
        clock=monotonic,
        tell=lambda text: tell(_plain(text)),
    )


def _plain(text: str) -> str:
    return escape(printable(text))
