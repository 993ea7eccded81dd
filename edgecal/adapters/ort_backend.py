"""Activations and INT8 simulation from ONNX Runtime on the CPU."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import onnxruntime

from edgecal.adapters.binning import fastest_adder
from edgecal.adapters.onnx_model import OnnxModel, one_line, raise_opset, with_outputs
from edgecal.adapters.qdq import FIRST_PER_CHANNEL_OPSET, write_qdq
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgecal.core.graph import Graph
    from edgecal.core.histogram import Adder

_NOTHING_BUT_CRASHES = 4
"""Errors are exceptions already; ONNX Runtime would write them to stderr as well."""

_NOISE = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |/\S+\.(?:h|cc|cpp):\d+ .*?\) ")
"""Error class, and file, line and function of ONNX Runtime's own source, ahead of the message."""


class OrtNetwork:
    """One ONNX Runtime session."""

    def __init__(self, session: Any, source: str) -> None:
        self._session = session
        self._source = source
        self._outputs: list[str] = [
            output.name for output in session.get_outputs() if output.type.startswith("tensor(")
        ]

    def run(
        self, feeds: Mapping[str, npt.NDArray[np.generic]]
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Run one batch; outputs by name."""
        try:
            values = self._session.run(self._outputs, dict(feeds))
        except Exception as error:  # ONNX Runtime's own classes share no public base
            raise ModelError(
                f"the network cannot run on this data: {_what(error)}",
                where=self._source,
                remedy="check shapes and types of the data against the network's inputs",
            ) from error
        return dict(zip(self._outputs, values, strict=True))


class OrtBackend:
    """ONNX Runtime's CPU provider for one model."""

    name = "onnxruntime"
    version: str = onnxruntime.__version__

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._raised: OnnxModel | None = None
        self.graph: Graph = model.graph

    def expose(self, tensors: Sequence[str]) -> OrtNetwork:
        """Make the float32 network give these tensors beside its own outputs."""
        own = {output.name for output in self.graph.outputs}
        inputs = {tensor.name for tensor in self.graph.inputs}
        extra = tuple(name for name in tensors if name not in own | inputs)
        return self._load(with_outputs(self._model, extra))

    def simulate(self, scales: Mapping[str, float]) -> OrtNetwork:
        """Make the network that quantizes with these scales, computed in float32.

        Why not ONNX Runtime's integer kernels: their results differ between processors, and the
        simulation is what engines elsewhere are held against.
        """
        if self._raised is None:  # converting takes four fifths of the time, and auto asks often
            self._raised = raise_opset(self._model, FIRST_PER_CHANNEL_OPSET)
        data, _ = write_qdq(self._raised, scales)
        return self._load(data, {"session.disable_quant_qdq": "1"})

    def adder(self) -> Adder:
        """Give the fastest way to count values by their bins."""
        return fastest_adder()

    def _load(self, model: bytes, settings: Mapping[str, str] | None = None) -> OrtNetwork:
        options = onnxruntime.SessionOptions()
        # one thread: with more, sums are split otherwise and the last bits depend on the machine
        options.intra_op_num_threads = 1
        # a plan of memory takes as much again while outputs live on, and saves no time
        options.enable_mem_pattern = False
        for key, value in (settings or {}).items():
            options.add_session_config_entry(key, value)
        return _open(model, options, str(self._model.path))


def load_network(path: Path) -> OrtNetwork:
    """Load an ONNX file as it stands, with all of ONNX Runtime's optimisations.

    Raises
    ------
    ModelError
        If ONNX Runtime cannot load it.
    """
    return _open(str(path), onnxruntime.SessionOptions(), str(path))


def _open(
    model: bytes | str,
    options: Any,
    source: str,
) -> OrtNetwork:
    options.log_severity_level = _NOTHING_BUT_CRASHES
    try:
        session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own classes share no public base
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the network: {_what(error)}",
            where=source,
            remedy="export the network for an ONNX Runtime of this version, without plugins of "
            "TensorRT, which do not run on a CPU",
        ) from error
    return OrtNetwork(session, source)


def _what(error: Exception) -> str:
    return one_line(_NOISE.sub("", str(error).replace("\n", " ")))
