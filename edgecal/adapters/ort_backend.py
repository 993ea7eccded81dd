"""Activations and INT8 simulation from ONNX Runtime on the CPU."""

from __future__ import annotations

import ctypes
import json
import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from edgecal.adapters.binning import fastest_sweep
from edgecal.adapters.float32 import in_float32
from edgecal.adapters.onnx_errors import one_line
from edgecal.adapters.onnx_model import OnnxModel, raise_opset, with_outputs
from edgecal.adapters.ort_blocks import leave_in_blocks
from edgecal.adapters.plugins import refuse_plugins
from edgecal.adapters.qdq import FIRST_PER_CHANNEL_OPSET, write_qdq, write_simulation
from edgecal.core.placement import ActivationPair, WeightPair, place_pairs
from edgecal.core.shapes import by_x
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import numpy.typing as npt

    from edgecal.core.graph import Graph
    from edgecal.core.placement import Placement
    from edgecal.core.sweep import Sweep

_Outline = tuple[tuple[ActivationPair, ...], tuple[WeightPair, ...]]

_PICTURE_RANK = 4

_NOTHING_BUT_CRASHES = 4
"""Errors are exceptions already; ONNX Runtime would write them to stderr as well."""

_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : "
    r"|/\S+\.(?:h|cc|cpp):\d+ .*?\) |\b\w+\.(?:h|cc|cpp):\d+ \w+ "
)
"""Error class, and file, line and function of ONNX Runtime's own source, ahead of the message."""


class OrtNetwork:
    """One ONNX Runtime session.

    Inputs and outputs that are float16 in the network given and float32 in the one that runs, its
    `halves`, are converted on the way. Outputs that run under another name are in `held`.
    """

    def __init__(
        self,
        session: Any,
        source: str,
        halves: AbstractSet[str] = frozenset(),
        held: Mapping[str, str] | None = None,
    ) -> None:
        self._session = session
        self._source = source
        self._outputs: list[str] = [
            output.name for output in session.get_outputs() if output.type.startswith("tensor(")
        ]
        self._names = [(held or {}).get(name, name) for name in self._outputs]
        self._halves = halves

    def run(
        self, feeds: Mapping[str, npt.NDArray[np.generic]]
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Run one batch; outputs by name."""
        try:
            values = self._session.run(self._outputs, self._widened(feeds))
        except Exception as error:  # ONNX Runtime's own classes share no public base
            raise ModelError(
                f"the network cannot run on this data: {_what(error)}",
                where=self._source,
                remedy=_remedy(self._session.get_inputs(), feeds),
            ) from error
        with np.errstate(over="ignore"):  # what float16 cannot hold is infinite, and told
            return {
                name: value.astype(np.float16) if name in self._halves else value
                for name, value in zip(self._names, values, strict=True)
            }

    def _widened(
        self, feeds: Mapping[str, npt.NDArray[np.generic]]
    ) -> dict[str, npt.NDArray[np.generic]]:
        return {
            name: value.astype(np.float32) if name in self._halves else value
            for name, value in feeds.items()
        }


class ScaledNetwork:
    """A simulation of INT8 with one set of scales."""

    def __init__(self, network: OrtNetwork, scales: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self._network = network
        self._scales = scales

    def run(
        self, feeds: Mapping[str, npt.NDArray[np.generic]]
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Run one batch; outputs by name."""
        return self._network.run({**feeds, **self._scales})


@dataclass(frozen=True, slots=True)
class _Simulation:
    """A loaded network with Q/DQ pairs: any scales fit it that are of the same tensors.

    Loading takes as long as a few runs, and `auto` tries several sets of scales.
    """

    outline: _Outline
    network: OrtNetwork
    inputs: Mapping[str, str]
    """Which takes the scale of each tensor."""

    def fits(self, placed: Placement) -> bool:
        """Tell whether a placement differs from this one by no more than its scales."""
        return self.outline == _outline(placed)

    def with_scales_of(self, placed: Placement) -> ScaledNetwork:
        """Settle on a placement's scales."""
        return ScaledNetwork(
            self.network,
            {
                self.inputs[pair.tensor]: np.asarray(pair.scale, np.float32)
                for pair in placed.activations
            },
        )


def _outline(placed: Placement) -> _Outline:
    return tuple(replace(pair, scale=1.0) for pair in placed.activations), placed.weights


class OrtBackend:
    """ONNX Runtime's CPU provider for one model."""

    name = "onnxruntime"
    version: str = onnxruntime.__version__

    def __init__(
        self, model: OnnxModel, *, warn: Callable[[str], object] = lambda _text: None
    ) -> None:
        self._warn = warn
        refuse_plugins(model.proto, model.path)
        self._given = model
        self._model = in_float32(model)
        self._raised: OnnxModel | None = None
        self._simulation: _Simulation | None = None
        self.graph: Graph = model.graph
        self._halves = frozenset(
            one.name
            for one in (*model.graph.inputs, *model.graph.outputs)
            if one.dtype == "float16"
        )

    def expose(self, tensors: Sequence[str], *, any_order: bool = False) -> OrtNetwork:
        """Make the float32 network give these tensors beside its own outputs.

        With `any_order` a tensor's values may lie in another order, each sample's by themselves;
        the network's own outputs never do.
        """
        network = self._load_in_blocks(self._exposed(tensors)) if any_order else None
        network = network or self._load(self._exposed(tensors))
        _give_back_memory()
        return network

    def pack(self, tensors: Sequence[str]) -> bytes:
        """Write down what `load_packed` makes the same network of, on another machine."""
        about = {"source": str(self._model.path), "halves": sorted(self._halves)}
        return json.dumps(about).encode() + b"\n" + self._exposed(tensors)

    def _exposed(self, tensors: Sequence[str]) -> bytes:
        own = {output.name for output in self.graph.outputs}
        inputs = {tensor.name for tensor in self.graph.inputs}
        extra = tuple(name for name in tensors if name not in own | inputs)
        return with_outputs(self._model, extra)

    def simulate(self, scales: Mapping[str, float]) -> ScaledNetwork:
        """Make the network that quantizes with these scales, computed in float32.

        Why not ONNX Runtime's integer kernels: their results differ between processors, and the
        simulation is what engines elsewhere are held against.
        """
        if self._raised is None:  # converting takes four fifths of the time, and auto asks often
            self._raised = raise_opset(self._model, FIRST_PER_CHANNEL_OPSET)
        placed = place_pairs(self._raised.graph, scales)
        if self._simulation is None or not self._simulation.fits(placed):
            self._simulation = None  # its weights need not lie in memory twice
            data, names = write_simulation(self._raised, placed)
            network = self._load(data, {"session.disable_quant_qdq": "1"})
            self._simulation = _Simulation(_outline(placed), network, names)
            _give_back_memory()
        return self._simulation.with_scales_of(placed)

    def quantize(self, scales: Mapping[str, float], *, fp16: bool) -> tuple[bytes, Placement]:
        """Write the network with Q/DQ pairs of these scales, for builders; tell what got one."""
        return write_qdq(self._given, scales, fp16=fp16)

    def sweep(self) -> type[Sweep]:
        """Give the fastest way to count values by their bins."""
        return fastest_sweep(self._warn)

    def _load_in_blocks(self, model: bytes) -> OrtNetwork | None:
        """Load the network as it is once optimised, less what puts tensors in order.

        Nothing where that cannot be: it would only be faster, and what is wrong with the network
        itself is told when it is loaded as it is.
        """
        source = str(self._model.path)
        try:
            with TemporaryDirectory() as folder:
                path = Path(folder, "optimised.onnx")
                options = _exact_options()
                options.optimized_model_filepath = str(path)
                whole = _open(model, options, source, self._halves)
                proto = onnx.load(path)
            held = leave_in_blocks(proto, {output.name for output in self.graph.outputs})
            if not held:
                return whole
            del whole  # its weights need not lie in memory twice
            options = _exact_options()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            return _open(proto.SerializeToString(), options, source, self._halves, held)
        except (OSError, DecodeError, ModelError):
            return None

    def _load(self, model: bytes, settings: Mapping[str, str] | None = None) -> OrtNetwork:
        options = _exact_options()
        for key, value in (settings or {}).items():
            options.add_session_config_entry(key, value)
        return _open(model, options, str(self._model.path), self._halves)


def load_packed(data: bytes) -> OrtNetwork:
    """Load what `OrtBackend.pack` wrote down: it runs to the same bits, on the same processor."""
    head, _, model = data.partition(b"\n")
    about = json.loads(head)
    return _open(model, _exact_options(), about["source"], frozenset(about["halves"]))


def _exact_options() -> Any:
    options = onnxruntime.SessionOptions()
    # one thread: with more, sums are split otherwise and the last bits depend on the machine
    options.intra_op_num_threads = 1
    # a plan of memory takes as much again while outputs live on, and saves no time
    options.enable_mem_pattern = False
    return options


def _give_back_memory() -> None:
    """Return what loading took to the system: glibc would keep it, and running takes as much."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # other C libraries return it by themselves
            trim(0)


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
    halves: AbstractSet[str] = frozenset(),
    held: Mapping[str, str] | None = None,
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
    return OrtNetwork(session, source, halves, held)


def _remedy(inputs: Sequence[Any], feeds: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Show the shape to type where a picture has a size that most networks cannot take."""
    for one in inputs:
        shape = feeds[one.name].shape if one.name in feeds else ()
        if not len(shape) == len(one.shape) == _PICTURE_RANK:
            continue
        likely = [
            size if index == 0 or isinstance(declared, int) else max(1, round(size / 32)) * 32
            for index, (size, declared) in enumerate(zip(shape, one.shape, strict=True))
        ]
        if likely != list(shape):
            given = shlex.quote(f"{one.name}={by_x(likely)}")
            return (
                f"input {one.name!r} was given {by_x(shape)}, and many networks take multiples of "
                f"32 only: settle its size with --shape {given}"
            )
    return "check shapes, types and values of the data against the network's inputs"


def _what(error: Exception) -> str:
    return one_line(_NOISE.sub("", str(error).replace("\n", " ")))
