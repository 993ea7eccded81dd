"""What the workflows need of the world, as Protocols of few methods in our words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgecal.core.build import BuildRequest, BuildResult
    from edgecal.core.checkpoint import Checkpoint
    from edgecal.core.findings import Finding
    from edgecal.core.graph import Graph
    from edgecal.core.latency import Latency
    from edgecal.core.manifest import Digest, FileRecord, Manifest
    from edgecal.core.placement import Placement
    from edgecal.core.preprocess import Preprocess
    from edgecal.core.rollout.events import Event
    from edgecal.core.sweep import Sweep
    from edgecal.core.trt_job import CalibratorOptions
    from edgecal.core.versions import TensorRTVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command on a target ended; a non-zero status is the caller's to judge."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class Transport(Protocol):
    """One open connection to one target. Raises `TargetError`s only."""

    @property
    def bytes_sent(self) -> int:
        """Count every byte written to the target's commands so far: argv, scripts and files."""
        ...

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        """Run one command to its end. The argv is quoted once, here."""
        ...

    def send(
        self,
        argv: Sequence[str],
        stream: BinaryIO,
        *,
        offset: int = 0,
        timeout_s: float,
        progress: Callable[[int], None] | None = None,
    ) -> CommandResult:
        """Run one command with `stream`, from `offset` to its end, as its standard input.

        `timeout_s` bounds each wait for the target, not the whole transfer. `progress` is called
        with the number of bytes just sent and may raise to stop.
        """
        ...

    def close(self) -> None:
        """End the connection; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripts:
    """The texts of what runs on a target."""

    probe: str
    receive: str
    verify: str
    agent: str
    run: str
    digests: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of calibration data: an array per network input, without the batch axis."""

    name: str
    digest: Digest
    arrays: Mapping[str, npt.NDArray[np.generic]]


class Dataset(Protocol):
    """Calibration data in a fixed order. Raises `DatasetError`s only."""

    @property
    def kind(self) -> str:
        """Say what sort of data it is."""
        ...

    @property
    def preprocess(self) -> Preprocess | None:
        """Say how pictures are prepared; `None` where the data comes prepared."""
        ...

    @property
    def limit(self) -> int | None:
        """Say how many samples are wanted at most; `None` where it is all of them."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """Name the unreadable samples that were passed over, once the data was read."""
        ...

    @property
    def excluded(self) -> Sequence[str]:
        """Name the samples left out because the test set has them, once the data was read."""
        ...

    @property
    def groups(self) -> Mapping[str, int]:
        """Count samples by label or folder, once the data was read; empty if it has neither."""
        ...

    def __len__(self) -> int:
        """Count the samples; 0 where nobody knows before the end."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """Read from the first sample on."""
        ...


class Network(Protocol):
    """A network ready to run. Safe to call from several threads."""

    def run(
        self, feeds: Mapping[str, npt.NDArray[np.generic]]
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Run one batch; outputs by name."""
        ...


class Backend(Protocol):
    """What runs a network on the host, in float32 and as INT8 would compute it."""

    name: str
    version: str
    graph: Graph

    def expose(self, tensors: Sequence[str], *, any_order: bool = False) -> Network:
        """Make the float32 network give these tensors beside its own outputs.

        With `any_order` a tensor's values may lie in another order, each sample's by themselves;
        the network's own outputs never do.
        """
        ...

    def simulate(self, scales: Mapping[str, float]) -> Network:
        """Make the network that quantizes with these scales, in real units per INT8 step."""
        ...

    def quantize(self, scales: Mapping[str, float], *, fp16: bool) -> tuple[bytes, Placement]:
        """Write the network with Q/DQ pairs of these scales, for builders; tell what got one.

        With `fp16` what stays float is typed float16.
        """
        ...

    def sweep(self) -> type[Sweep]:
        """Give a way to count values by their bins that several threads can go at once."""
        ...


class Checkpoints(Protocol):
    """Where what an unfinished pass has measured is kept: one checkpoint, or none."""

    @property
    def where(self) -> str:
        """Say what users call it."""
        ...

    def exists(self) -> bool:
        """Tell whether there is one."""
        ...

    def load(self) -> Checkpoint | None:
        """Read it. Raises `InputError` if it is damaged."""
        ...

    def save(self, checkpoint: Checkpoint) -> bool:
        """Put this one in its place, whole or not at all; tell whether that could be done."""
        ...

    def remove(self) -> None:
        """Delete it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRTCalibration:
    """What TensorRT gave, and where it gave it."""

    cache: bytes
    """Exactly as TensorRT wrote it."""
    tensorrt: TensorRTVersion
    gpu: str
    compute_capability: str
    batches: int
    samples: int
    """Those in full batches."""
    dropped: int
    """Samples of an incomplete last batch, which TensorRT cannot take."""
    log: bytes
    """What TensorRT said, at its most verbose."""
    findings: tuple[Finding, ...]


class TensorRTCalibrator(Protocol):
    """A TensorRT somewhere on this host that calibrates one network."""

    def calibrate(
        self,
        samples: Iterable[Mapping[str, npt.NDArray[np.generic]]],
        *,
        batch_size: int,
        options: CalibratorOptions,
        shapes: Mapping[str, tuple[int, ...]],
        progress: Callable[[str, int, int], None],
        total: int,
    ) -> TensorRTCalibration:
        """Feed it samples without batch axis, in order, and give back the table that it wrote.

        Parameters
        ----------
        shapes
            Of inputs, batch axis included, as far as they are settled; the data must have them.
        total
            How many samples there are; 0 if nobody knows.
        """
        ...


class BundleFiles(Protocol):
    """A bundle whose files were checked against its manifest."""

    @property
    def manifest(self) -> Manifest:
        """Say what the bundle is."""
        ...

    @property
    def manifest_digest(self) -> Digest:
        """Name the bundle by content."""
        ...

    @property
    def on_target(self) -> bool:
        """Tell whether it was read back from the target, which has judged it already."""
        ...

    def shipped(self) -> Mapping[str, FileRecord]:
        """Give the files that a target gets, the manifest apart."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open one of the bundle's files, the manifest among them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """One golden run on a target: files relative to the release's folder."""

    inputs: Mapping[str, str]
    """Raw little-endian values in C order, by input name."""
    shapes: Mapping[str, tuple[int, ...]]
    """What these values are, by input name."""
    spec: str
    """JSON file that describes all runs: names, dtypes, shapes, files."""


class Builder(Protocol):
    """A kind of program on a target that makes an engine from a network and a cache.

    It runs in the job's folder, where every file lies under its name, and it leaves `engine_file`
    there. Everything here is words: the workflow runs them.
    """

    name: str
    engine_file: str

    def support_files(self) -> Mapping[str, bytes]:
        """Give files that the target needs beside the bundle's."""
        ...

    def build_argv(self, request: BuildRequest) -> tuple[str, ...]:
        """Say how to build."""
        ...

    def read_log(self, lines: Iterable[str], entries: Sequence[str]) -> BuildResult:
        """Find out from the log what the build used."""
        ...

    def run_argvs(
        self, request: BuildRequest, runs: Sequence[RunFiles], output: str
    ) -> tuple[tuple[str, ...], ...]:
        """Say how to run the engine on the golden inputs: commands that each write `output`."""
        ...

    def parse_outputs(
        self, data: bytes, *, source: str
    ) -> tuple[dict[str, npt.NDArray[np.generic]], ...]:
        """Read what one of these commands wrote: outputs of one or more runs, in order."""
        ...


@runtime_checkable
class Bencher(Protocol):
    """A builder that can also measure its engines."""

    def bench_argv(self, request: BuildRequest, run: RunFiles, output: str) -> tuple[str, ...]:
        """Say how to measure the engine with the inputs of one golden run: writes `output`."""
        ...

    def parse_bench(self, data: bytes, *, source: str) -> Latency:
        """Read what that wrote."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterWorker:
    """One worker of a cluster, as it says of itself."""

    address: str
    """Of this very process: no other one will have it."""
    name: str
    targets: frozenset[str]
    """Names in the worker's own inventory of those that it may touch."""
    threads: int
    edgecal: str
    onnxruntime: str


class Cluster(Protocol):
    """Processes on other machines that do what they are asked to, each a list of operations."""

    def workers(self) -> tuple[ClusterWorker, ...]:
        """Ask who is there now. Raises `WorkerError` if nobody can tell."""
        ...

    def call(self, worker: str, operation: str, *args: object) -> Any:  # noqa: ANN401 - many kinds
        """Have a worker do something once, and wait for what it gives.

        Raises what the operation does, and `WorkerError` if the worker is lost before it is over:
        nobody does it again behind the caller's back.
        """
        ...

    def listen(self, topic: str, hear: Callable[[bytes], object]) -> None:
        """Hear what workers say under a topic, from any thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """One rollout in the journal."""

    rollout: str
    created_ms: int
    entries: int
    digest: str
    """Of the last entry: kept elsewhere, it proves that nothing before it was changed."""
    driver: str
    """Who drives it, for people; empty if nobody does."""


class Journal(Protocol):
    """Where the events of rollouts lie, safely on disk. Raises `InputError`s only.

    A lease is the right to drive a rollout. Whoever has none may write wishes
    (`edgecal.core.rollout.events.WISHES`) only.
    """

    def create(self, rollout: str, event: Event) -> None:
        """Write a rollout's first entry; its name must be new."""
        ...

    def append(self, rollout: str, event: Event, *, after: int, lease: str = "") -> bool:
        """Write the entry that follows so many; when this returns, it survives a power loss.

        It tells whether that was done: if not, somebody else has written first, and the caller
        reads what and thinks again. Raises if the lease is lost.
        """
        ...

    def read(self, rollout: str, *, since: int = 0) -> tuple[Event, ...]:
        """Read the entries after the first `since`, once the chain from there is found whole."""
        ...

    def verify(self, rollout: str) -> str:
        """Say where the chain of entries breaks first; nothing if it is whole."""
        ...

    def rollouts(self) -> tuple[JournalRow, ...]:
        """List the rollouts, the latest first."""
        ...

    def acquire(self, rollout: str) -> str:
        """Take the lease. Raises while somebody else who may be alive has it."""
        ...

    def renew(self, rollout: str, lease: str) -> bool:
        """Keep the lease for another while; tells whether it was still held."""
        ...

    def release(self, rollout: str, lease: str) -> None:
        """Give the lease back; nothing happens if it is lost."""
        ...
