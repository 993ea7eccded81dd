"""Asks NVIDIA's own ONNX parser and builder, which need no GPU in TensorRT for RTX.

The library lives in a process of its own: it prints, and a crash of it is an answer too. What a
layer computes in stands in the builder's verbose log only; the engine inspector needs a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

MODULE: Final = "tensorrt_rtx_bindings"
_ARCHITECTURE: Final = "SM86"
"""Ampere, as the GPU of Orin (8.7), which TensorRT for RTX does not build for."""

_DATATYPE: Final = re.compile(r"Datatype: (\w+)")
_ONNX_NODE: Final = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_FIELD: Final = re.compile(r", (LayerType|Inputs|Constants|Outputs|TacticName|Metadata): ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a built engine, after fusion."""

    kind: str
    """`correlation`, `deconv`, `gemm` and such are kernels; `kgen` is generated code."""
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    nodes: tuple[str, ...]
    """ONNX nodes it came from, Q/DQ among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What parser and builder made of a model."""

    tensors: Mapping[str, str]
    """Element type by name, of every tensor of the parsed network."""
    layers: tuple[Layer, ...]
    complaints: tuple[str, ...]
    """Errors of either; empty if the model was built."""

    def is_int8(self, node: str) -> bool:
        """Tell whether what computes an ONNX node reads INT8 activations.

        That is a kernel; or, where attention became one, generated code that reads only INT8.
        """
        mine = [one for one in self.layers if node in one.nodes]
        kernels = [one for one in mine if one.kind != "kgen"]
        if kernels:
            return any("Int8" in one.inputs for one in kernels)
        return any(set(one.inputs) == {"Int8"} for one in mine)


def ask(model: bytes, folder: Path) -> Verdict:
    """Have a model parsed, and built for Ampere; all its dimensions must be known."""
    file = folder / "judged.onnx"
    file.write_bytes(model)
    done = subprocess.run(
        [sys.executable, __file__, str(file)], capture_output=True, timeout=120, check=False
    )
    answer = file.with_suffix(".json")
    if done.returncode != 0 or not answer.is_file():
        said = done.stderr.decode("utf-8", "replace")[-500:]
        return Verdict(tensors={}, layers=(), complaints=(f"{done.returncode}: {said}",))
    given = json.loads(answer.read_text("utf-8"))
    answer.unlink()
    return Verdict(
        tensors=given["tensors"],
        layers=tuple(layer for line in given["layers"] if (layer := _layer(line)) is not None),
        complaints=tuple(given["complaints"]),
    )


def need_rtx() -> None:
    """Skip where the wheels are not installed, unless a run was told that they must be."""
    if importlib.util.find_spec(MODULE) is not None:
        return
    missing = f"needs TensorRT for RTX: pip install 'edgecal[judge]' ({MODULE} is not installed)"
    if os.environ.get("EDGECAL_REQUIRE_RTX") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


def _layer(line: str) -> Layer | None:
    parts = _FIELD.split(line)
    fields = dict(zip(parts[1::2], parts[2::2], strict=True))
    if "LayerType" not in fields:  # inputs and outputs of the engine stand below its layers
        return None
    return Layer(
        kind=fields["LayerType"],
        inputs=tuple(_DATATYPE.findall(fields.get("Inputs", ""))),
        constants=tuple(_DATATYPE.findall(fields.get("Constants", ""))),
        nodes=tuple(_ONNX_NODE.findall(fields.get("Metadata", ""))),
    )


def _main(file: str) -> None:
    rtx: Any = importlib.import_module(MODULE)
    lines: list[str] = []
    complaints: list[str] = []

    class Logger(rtx.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            rtx.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 - an enum of theirs
            if severity in {rtx.ILogger.ERROR, rtx.ILogger.INTERNAL_ERROR}:
                complaints.append(message)
            elif message.startswith("Layers:"):
                lines.extend(one for one in message.splitlines() if one.startswith("Name: "))

    logger = Logger()
    builder = rtx.Builder(logger)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, logger)
    tensors: dict[str, str] = {}
    if parser.parse_from_file(file):
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        found = [network.get_input(index) for index in range(network.num_inputs)]
        found += [one.get_output(index) for one in layers for index in range(one.num_outputs)]
        tensors = {one.name: one.dtype.name for one in found if one is not None}
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(rtx.ComputeCapability, _ARCHITECTURE), 0)
        config.profiling_verbosity = rtx.ProfilingVerbosity.DETAILED
        if builder.build_serialized_network(network, config) is not None:
            complaints.clear()  # the missing driver is complained of on the way
        elif not complaints:
            complaints.append("not built, without a reason")
    else:
        complaints += [parser.get_error(index).desc() for index in range(parser.num_errors)]
    answer = {"tensors": tensors, "layers": lines, "complaints": complaints}
    Path(file).with_suffix(".json").write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    _main(sys.argv[1])
