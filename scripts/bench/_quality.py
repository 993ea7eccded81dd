"""How good scales are: the noise they add to a network's outputs, as edgecal simulates INT8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.cli.wiring import networks
from edgecal.core.placement import place_pairs
from edgecal.core.quant import Sqnr, sqnr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_ANY: Final = 1.0
"""A scale, to ask which tensors a Q/DQ network has a use for."""


class Judge:
    """Holds INT8 against float32 on the same pictures."""

    def __init__(self, network: Path, pictures: NDArray[np.float32]) -> None:
        model = networks.model(network)
        self._backend = networks.backend(model)
        self._input, self._output = model.graph.inputs[0].name, model.graph.outputs[0].name
        self._pictures = pictures
        plain = networks.run_onnx(network)
        self._wanted = [plain.run(feeds)[self._output] for feeds in self._feeds()]
        placed = place_pairs(model.graph, dict.fromkeys(model.graph.tensors, _ANY))
        self.tensors = frozenset(pair.tensor for pair in placed.activations)
        """What the Q/DQ network quantizes, where every tensor has a scale."""

    def common(self, tables: Iterable[Mapping[str, float]]) -> frozenset[str]:
        """Name the tensors of the Q/DQ network that every table has."""
        found = self.tensors
        for table in tables:
            found = found.intersection(table)
        return found

    def decibel(self, scales: Mapping[str, float], tensors: Iterable[str]) -> float:
        """Quantize these tensors and all weights beside them, and measure the first output."""
        network = self._backend.simulate({name: scales[name] for name in tensors})
        found = (network.run(feeds)[self._output] for feeds in self._feeds())
        pairs = zip(self._wanted, found, strict=True)
        return sum((sqnr(want, have) for want, have in pairs), Sqnr()).decibel

    def _feeds(self) -> Iterable[dict[str, NDArray[np.float32]]]:
        return ({self._input: one[np.newaxis]} for one in self._pictures)
