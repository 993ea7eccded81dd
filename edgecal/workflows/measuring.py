"""The part of a pass over data that a worker of a cluster does: batches to histograms."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.derived import View
from edgecal.core.histogram import BINS, Histogram, Tally, add_batch
from edgecal.core.manifest import Digest
from edgecal.workflows.collect import values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy.typing as npt

    from edgecal.core.histogram import Clamp
    from edgecal.core.sweep import Sweep
    from edgecal.ports import Network

_LOADED: Final = 2
"""Networks that stay in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some batches, and where the histograms of their tensors begin."""

    network: Digest
    clamps: Mapping[str, tuple[Clamp, ...]]
    ranges: Mapping[View, float]
    batches: tuple[dict[str, npt.NDArray[Any]], ...]


class Measurer:
    """Measures shards for whoever asks; nothing is kept between two of them but networks.

    Parameters
    ----------
    load
        Makes a network of the file with this digest, which was sent before.
    """

    def __init__(self, load: Callable[[Digest], Network], sweep: Callable[[], type[Sweep]]) -> None:
        self._load = load
        self._sweep = sweep
        self._networks: dict[Digest, Network] = {}
        self._lock = threading.Lock()

    def prove(
        self, network: Digest, names: tuple[str, ...], batch: dict[str, npt.NDArray[Any]]
    ) -> Digest:
        """Digest what the network makes of a batch here."""
        return proof_of(self._network(network), names, batch)

    def measure(self, shard: Shard) -> dict[View, Histogram]:
        """Count the values of every tensor."""
        network = self._network(shard.network)
        starts = {view: _empty(range_end) for view, range_end in shard.ranges.items()}
        sources = dict.fromkeys(view.source for view in starts)
        tallies = {
            name: Tally(
                [starts[View(name, clamp)] for clamp in shard.clamps[name]],
                shard.clamps[name],
                self._sweep(),
            )
            for name in sources
        }
        for batch in shard.batches:
            values = values_of(network, tallies, batch)
            samples = len(next(iter(batch.values())))
            add_batch([tallies[name] for name in values], list(values.values()), samples)
        return {
            View(name, clamp): part
            for name, tally in tallies.items()
            for clamp, part in zip(shard.clamps[name], tally.histograms(), strict=True)
        }

    def _network(self, digest: Digest) -> Network:
        with self._lock:
            found = self._networks.pop(digest, None) or self._load(digest)
            self._networks[digest] = found  # the latest of use stands last
            while len(self._networks) > _LOADED:
                del self._networks[next(iter(self._networks))]
            return found


def proof_of(network: Network, names: Iterable[str], batch: dict[str, npt.NDArray[Any]]) -> Digest:
    """Digest every bit that a network makes of a batch.

    Processors of another kind add floats in another order, so that a worker may have other bits
    although its programs are the same.
    """
    whole = hashlib.sha256()
    for name, value in sorted(values_of(network, names, batch).items()):
        whole.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode())
        whole.update(np.ascontiguousarray(value).data)
    return Digest(f"sha256:{whole.hexdigest()}")


def _empty(range_end: float) -> Histogram:
    return Histogram(range_end=range_end, counts=np.zeros(2 * BINS + 1, np.int64))
