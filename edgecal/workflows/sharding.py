"""A pass over data whose batches are measured by the workers of a cluster, to the same bits.

This machine reads and prepares the data, runs the first batch, whose ranges are where every
histogram begins, and judges; workers run the network and count. Counts are whole numbers, so it
does not matter who counts which batch. That a worker's processor has the same bits is found out
before it is given any: the first batch runs there as well.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgecal.core.histogram import merge_histograms
from edgecal.core.manifest import digest_of
from edgecal.errors import ClusterError, EdgecalError, WorkerError
from edgecal.workflows.bringing import bring
from edgecal.workflows.measuring import Shard, proof_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    import numpy.typing as npt

    from edgecal.core.checkpoint import Checkpoint
    from edgecal.core.derived import View
    from edgecal.core.histogram import Clamp, Histogram
    from edgecal.core.manifest import Digest
    from edgecal.ports import Cluster, ClusterWorker, Network
    from edgecal.workflows.collect import Collector, LocalCollector

    Arrays = dict[str, npt.NDArray[Any]]

_SHARD_BYTES: Final = 8 << 20
"""Of batches: what is sent at once, though a batch is never taken apart."""
_LOOK_UP_S: Final = 0.5
"""A signal that arrives just before the main thread begins to wait does not wake it."""
_LOOK_S: Final = 2.0
"""How often workers are looked for that have come since."""


@dataclass(frozen=True, slots=True)
class _Piece:
    numbers: tuple[int, ...]
    batches: tuple[Arrays, ...]


class Shards:
    """Spreads a pass over a cluster; a context around the whole work.

    Parameters
    ----------
    pack
        Makes the bytes of the network that gives these tensors, for the workers.
    runtime
        Version of ONNX Runtime here; workers must have the same.
    tell
        Hears of workers that come, go, or cannot be used.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        pack: Callable[[Sequence[str]], bytes],
        runtime: str,
        tell: Callable[[str], object],
    ) -> None:
        self._cluster = cluster
        self._pack = pack
        self._runtime = runtime
        self._tell = tell
        self._ended = threading.Event()

    def __enter__(self) -> Shards:
        """Make sure that somebody is there."""
        if not self._cluster.workers():
            raise ClusterError(
                "no worker has joined the scheduler that could measure",
                where="--cluster",
                remedy="start 'edgecal worker' on the machines that are to work",
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Leave workers alone from here on."""
        self._ended.set()

    def collector(self, local: LocalCollector, network: Network) -> Collector:
        """Make what takes the batches.

        Parameters
        ----------
        local
            Takes the first one.
        network
            As this machine runs it.
        """
        return _ShardedCollector(
            local,
            network,
            self._cluster,
            payload=self._pack(tuple(local.clamps)),
            runtime=self._runtime,
            tell=self._tell,
            ended=self._ended,
        )


class _ShardedCollector:
    """Gives batches to workers, one thread per thread of theirs, and adds up what comes back."""

    def __init__(
        self,
        local: LocalCollector,
        network: Network,
        cluster: Cluster,
        *,
        payload: bytes,
        runtime: str,
        tell: Callable[[str], object],
        ended: threading.Event,
    ) -> None:
        self._local = local
        self._network = network
        self._cluster = cluster
        self._payload = payload
        self._digest: Digest = digest_of(payload)
        self._runtime = runtime
        self._tell = tell
        self._ended = ended
        self._clamps: Mapping[str, tuple[Clamp, ...]] = {
            name: tuple(clamps) for name, clamps in local.clamps.items()
        }
        self._ranges: Mapping[View, float] = {}
        self._first: Arrays | None = None
        self._proof: Digest | None = None
        self._sender = secrets.token_hex(8)
        self._open: list[tuple[int, Arrays]] = []
        self._handed_out = 0
        # what threads share, under the condition's lock
        self._changed = threading.Condition()
        self._todo: deque[_Piece] = deque()
        self._out = 0
        self._met: set[str] = set()
        self._coming = 0
        self._pullers = 0
        self._why = ""
        self._failed: BaseException | None = None
        self._done: set[int] = set()
        self._merged: dict[View, Histogram] = {}

    def resume(self, before: Checkpoint, *, source: str) -> None:
        """Count on top of what was measured before."""
        self._local.resume(before, source=source)
        self._ranges = {view: one.range_end for view, one in before.histograms.items()}

    def add(self, number: int, batch: Arrays, name: str) -> None:
        """Take one batch, called so in errors here; waits while all workers are busy."""
        if self._first is None:
            self._begin(number, batch, name)
            return
        self._open.append((number, batch))
        held = sum(value.nbytes for _, one in self._open for value in one.values())
        # each shard is a small part of all before it, so that few data are spread too
        if held >= _SHARD_BYTES or len(self._open) > self._handed_out // (8 * self._threads()):
            self._hand_out()

    def wait(self) -> None:
        """Wait for every batch."""
        self._local.wait()
        if self._open:
            self._hand_out()
        with self._changed:
            while self._todo or self._out:
                self._check()
                self._changed.wait(_LOOK_UP_S)
            self._check()
        self._ended.set()

    def measured(self) -> tuple[frozenset[int], dict[View, Histogram]] | None:
        """Add what workers gave to what was measured here."""
        local = self._local.measured()
        if local is None:
            return None
        with self._changed:
            done, merged = frozenset(self._done), dict(self._merged)
        return local[0] | done, {
            view: merge_histograms([one, merged[view]]) if view in merged else one
            for view, one in local[1].items()
        }

    def _begin(self, number: int, batch: Arrays, name: str) -> None:
        self._first = batch
        self._proof = proof_of(self._network, self._clamps, batch)
        self._local.add(number, batch, name)
        measured = self._local.measured()
        if not self._ranges and measured is not None:
            self._ranges = {view: one.range_end for view, one in measured[1].items()}
        self._look()
        threading.Thread(target=self._keep_looking, daemon=True).start()

    def _hand_out(self) -> None:
        piece = _Piece(
            tuple(number for number, _ in self._open), tuple(batch for _, batch in self._open)
        )
        with self._changed:
            while not self._failed and (not self._pullers or len(self._todo) >= self._pullers):
                self._check()
                self._changed.wait(_LOOK_UP_S)
            self._check()
            self._todo.append(piece)
            self._changed.notify_all()
        self._handed_out += len(self._open)
        self._open = []

    def _check(self) -> None:
        """Give up if a batch failed, or nobody is left to measure."""
        if self._failed is not None:
            raise self._failed
        if not self._pullers and not self._coming and (self._todo or self._out or self._open):
            raise ClusterError(
                f"no worker is left that could measure: {self._why}",
                where="--cluster",
                remedy="start workers again, and go on with --resume if the pass took long; or "
                "calibrate without --cluster",
            )

    def _threads(self) -> int:
        with self._changed:
            return max(1, self._pullers)

    def _keep_looking(self) -> None:
        while not self._ended.wait(_LOOK_S):
            with contextlib.suppress(WorkerError):  # who is called will find out
                self._look()

    def _look(self) -> None:
        for worker in self._cluster.workers():
            with self._changed:
                if worker.address in self._met:
                    continue
                self._met.add(worker.address)
                self._coming += 1
            threading.Thread(target=self._employ, args=(worker,), daemon=True).start()

    def _employ(self, worker: ClusterWorker) -> None:
        """Bring a worker the network, find out whether it has our bits, and let it work."""
        why = "it has gone"
        try:
            why = self._unfit(worker)
        except WorkerError as error:
            why = error.what
        except BaseException as error:  # noqa: BLE001 - raised again where the batches come from
            self._fail(error)
        with self._changed:
            self._coming -= 1
            if why:
                self._why = f"{worker.name}: {why}"
            else:
                self._pullers += worker.threads
            self._changed.notify_all()
        if why:
            self._tell(f"worker {worker.name} does not measure: {why}")
            return
        self._tell(f"worker {worker.name} measures, {worker.threads} batches at a time")
        for _ in range(worker.threads):
            threading.Thread(target=self._pull, args=(worker,), daemon=True).start()

    def _unfit(self, worker: ClusterWorker) -> str:
        if worker.onnxruntime != self._runtime:
            return f"it has ONNX Runtime {worker.onnxruntime}, and here it is {self._runtime}"
        files: Mapping[str, Callable[[], BinaryIO]] = {
            self._digest: lambda: io.BytesIO(self._payload)
        }
        bring(self._cluster, worker.address, files, sender=self._sender)
        proof = self._cluster.call(
            worker.address, "prove", self._digest, tuple(self._clamps), self._first
        )
        if proof != self._proof:
            return "its processor computes other bits than this one's"
        return ""

    def _pull(self, worker: ClusterWorker) -> None:
        while (piece := self._take()) is not None:
            shard = Shard(
                network=self._digest,
                clamps=self._clamps,
                ranges=self._ranges,
                batches=piece.batches,
            )
            try:
                part = self._cluster.call(worker.address, "measure", shard)
                with self._changed:
                    self._count(piece, part)
            except WorkerError as error:
                self._give_back(piece, worker, error)
                return
            except BaseException as error:  # noqa: BLE001 - raised again where batches come from
                self._fail(error)
                return

    def _take(self) -> _Piece | None:
        with self._changed:
            while not self._todo and not self._ended.is_set() and self._failed is None:
                self._changed.wait(1.0)
            if self._ended.is_set() or self._failed is not None:
                self._pullers -= 1
                return None
            self._out += 1
            piece = self._todo.popleft()
            self._changed.notify_all()
            return piece

    def _count(self, piece: _Piece, part: Mapping[View, Histogram]) -> None:
        for view, one in part.items():
            known = self._merged.get(view)
            self._merged[view] = one if known is None else merge_histograms([known, one])
        self._done.update(piece.numbers)
        self._out -= 1
        self._changed.notify_all()

    def _give_back(self, piece: _Piece, worker: ClusterWorker, error: EdgecalError) -> None:
        with self._changed:
            self._todo.appendleft(piece)
            self._out -= 1
            self._pullers -= 1
            self._why = f"{worker.name}: {error.what}"
            self._changed.notify_all()
        self._tell(f"worker {worker.name} was lost; others measure what it was at")

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failed = self._failed or error
            self._changed.notify_all()
