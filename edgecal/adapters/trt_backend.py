"""Calibration by TensorRT itself, in a process of its own: this Python, another, or a container.

The process runs `edgecal/host_scripts/trt_calibrate.py`. Batches go to it as files in a temporary
folder, a few at a time, each deleted once it is on the GPU; so the disk holds a few batches however
much data there is. No GPU has run this yet; what stands in for TensorRT in the tests is ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgecal.adapters.trt_batches import Feeder, Progress, full_batches
from edgecal.adapters.trt_folder import disk_trouble, scratch
from edgecal.adapters.trt_places import ThisPython, launch_worker
from edgecal.adapters.trt_process import Words, Worker, how_it_ended
from edgecal.core.findings import Finding, Severity
from edgecal.core.trt_job import (
    BatchTaken,
    Building,
    CalibratorOptions,
    Failure,
    Hello,
    Job,
    Result,
    check_hello,
    check_host,
    check_options,
    check_shapes,
    check_table,
    failure_error,
    found_version,
    job_inputs,
    serialize_job,
)
from edgecal.errors import BackendError, DatasetError, EdgecalError
from edgecal.ports import TensorRTCalibration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgecal.adapters.trt_places import Place
    from edgecal.core.hosts import HostFacts
    from edgecal.core.platforms import Platforms
    from edgecal.core.versions import TensorRTVersion

    Arrays = Mapping[str, npt.NDArray[Any]]

_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """How long the worker may take; TensorRT's own log counts as a sign of life."""

    start_s: float = 300.0
    """Until the GPU answers: image, Python and driver start in it."""
    silence_s: float = 1800.0
    """Without any sign of life after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTensorRT:
    """The TensorRT of one place, for one network."""

    model: Path
    tensorrt: TensorRTVersion
    """Major.minor of the one that must be there."""
    log: Path
    """Holds what TensorRT said if it fails; goes away otherwise."""
    host: HostFacts
    platforms: Platforms
    place: Place

    def calibrate(
        self,
        samples: Iterable[Arrays],
        *,
        batch_size: int,
        options: CalibratorOptions,
        shapes: Mapping[str, tuple[int, ...]],
        progress: Callable[[str, int, int], None],
        total: int,
    ) -> TensorRTCalibration:
        """Feed it samples without batch axis, in order, and give back the table that it wrote."""
        with contextlib.suppress(OSError):  # then there will be no log
            self.log.parent.mkdir(parents=True, exist_ok=True)
        keep = False
        try:
            return calibrate_with_tensorrt(
                self.model,
                samples,
                batch_size=batch_size,
                tensorrt=self.tensorrt,
                log=self.log,
                host=self.host,
                platforms=self.platforms,
                place=self.place,
                options=options,
                shapes=shapes,
                progress=progress,
                total=total,
            )
        except EdgecalError as error:
            keep = not isinstance(error, DatasetError)  # about data its log has nothing to say
            raise
        finally:
            with contextlib.suppress(OSError):
                if not (keep and self.log.stat().st_size):
                    self.log.unlink()


def calibrate_with_tensorrt(
    model: Path,
    samples: Iterable[Arrays],
    *,
    batch_size: int,
    tensorrt: TensorRTVersion,
    log: Path,
    host: HostFacts,
    platforms: Platforms,
    place: Place | None = None,
    options: CalibratorOptions | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    limits: TimeLimits | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    total: int = 0,
) -> TensorRTCalibration:
    """Let TensorRT calibrate a network and give back the table it wrote.

    The worker's process group (or container) is gone when this returns or raises, Ctrl-C included.

    Parameters
    ----------
    model
        The ONNX file; weights in other files are found beside it.
    samples
        Arrays by input name, without batch axis, in the order that TensorRT gets them. Read once,
        while TensorRT works. NaN and infinity are refused.
    batch_size
        Exact: an incomplete last batch is dropped and counted.
    tensorrt
        For which TensorRT; major.minor of the one that is found must be the same.
    log
        Where TensorRT's own log goes, at its most verbose; written on failure too.
    shapes
        Of dynamic inputs, batch axis included, as `--shape` says. Default: those of the data,
        which must agree with them in any case.
    total
        How many samples there are, for the progress display; 0 if nobody knows.

    Raises
    ------
    IncompatibleError
        If no GPU here runs that TensorRT, or another TensorRT was found.
    DependencyError
        If there is no TensorRT where `place` says.
    ModelError, DatasetError
        If TensorRT cannot read the network, or the data does not fit it.
    BackendError
        If TensorRT failed, crashed, hung or wrote no table; the message names the log.
    """
    options = options or CalibratorOptions()
    check_options(options)
    check_host(host, tensorrt, platforms)
    state = Progress()
    batches = full_batches(samples, batch_size, state)
    first = next(batches, None)
    if first is None:
        raise DatasetError(
            f"{state.dropped} samples make no batch of {batch_size}"
            if state.dropped
            else "the data holds no sample",
            remedy="give more samples, or a smaller --batch-size",
        )
    inputs = job_inputs(
        {name: tuple(map(int, array.shape)) for name, array in first.items()},
        {name: array.dtype.name for name, array in first.items()},
    )
    check_shapes(inputs, shapes or {})
    with scratch() as folder:
        words = Words(log=folder / "calibration.log", errors=folder / "worker.err")
        try:
            launch = launch_worker(place or ThisPython(), folder, model)
            job = Job(
                tensorrt=tensorrt,
                model=launch.model,
                batches=launch.folder,
                cache=f"{launch.folder}/calibration.cache",
                log=f"{launch.folder}/calibration.log",
                inputs=inputs,
                options=options,
            )
            with disk_trouble(folder):
                (folder / "job.json").write_bytes(serialize_job(job))
            feeder = Feeder(folder, inputs, first, batches)
            with Worker(launch, words) as worker:
                talk = _Talk(
                    worker=worker,
                    feeder=feeder,
                    state=state,
                    tensorrt=tensorrt,
                    platforms=platforms,
                    limits=limits or TimeLimits(),
                    log=log,
                    progress=progress or (lambda _what, _done, _total: None),
                    batch_size=batch_size,
                    total=total,
                )
                result = talk.result()
        finally:
            _keep_log(words, log)
        cache = _read_table(folder / "calibration.cache", result, job, log)
    if result.batches != feeder.sent:
        raise BackendError(
            f"{feeder.sent} batches were made, TensorRT took {result.batches}",
            where=str(log),
            remedy="calibrate again; if it stays so, report it with the log",
        )
    return TensorRTCalibration(
        cache=cache,
        tensorrt=found_version(result.tensorrt),
        gpu=result.gpu,
        compute_capability=result.compute_capability,
        batches=result.batches,
        samples=state.samples,
        dropped=state.dropped,
        log=_read_log(log),
        findings=tuple(_findings(result, state)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Talk:
    """One conversation with the worker: batches to it, answers from it, until there is a result."""

    worker: Worker
    feeder: Feeder
    state: Progress
    tensorrt: TensorRTVersion
    platforms: Platforms
    limits: TimeLimits
    log: Path
    progress: Callable[[str, int, int], None]
    batch_size: int
    total: int

    def result(self) -> Result:
        """Go on until the worker is done.

        Raises
        ------
        EdgecalError
            If it fails, ends or gives no sign of life.
        """
        seen = 0
        sign = time.monotonic()
        while True:
            for line in self.feeder.news():
                self.worker.tell(line)
            try:
                answer = self.worker.answer(_LOOK_S)
            except TimeoutError:
                size = self.worker.words.size()
                if size != seen:
                    seen, sign = size, time.monotonic()
                self._check_silence(time.monotonic() - sign)
                continue
            sign = time.monotonic()
            if answer is None:
                raise how_it_ended(self.worker, self.log)
            if isinstance(answer, Result):
                return answer
            self._hear(answer)

    def _check_silence(self, silent_s: float) -> None:
        limit = self.limits.silence_s if self.state.hello else self.limits.start_s
        if silent_s > limit:
            raise BackendError(
                f"the calibration worker gave no sign of life for {limit:g} s",
                where=str(self.log),
                remedy="see the end of the log, and nvidia-smi for who else uses the GPU",
            )

    def _hear(self, answer: Hello | Building | BatchTaken | Failure) -> None:
        if isinstance(answer, Failure):
            raise failure_error(
                answer, tensorrt=self.tensorrt, platforms=self.platforms, log=str(self.log)
            )
        if isinstance(answer, Hello):
            check_hello(answer, self.tensorrt, self.platforms)
            self.state.hello = answer
        elif isinstance(answer, Building):
            self.progress("building for calibration", 0, self.total)
        else:
            if answer.number != self.feeder.taken or answer.number >= self.feeder.sent:
                raise BackendError(
                    f"the worker took batch {answer.number}, where {self.feeder.taken} was next",
                    where=str(self.log),
                    remedy="report this with the log",
                )
            self.feeder.forget(answer.number)
            self.progress("calibrating", self.feeder.taken * self.batch_size, self.total)


def _read_table(path: Path, result: Result, job: Job, log: Path) -> bytes:
    """Read the table and make sure that it is the one the worker wrote."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BackendError(
            f"cannot read the table: {error.strerror or error}",
            where=str(log),
            remedy="calibrate again; the user of the container must be able to write here",
        ) from error
    if len(data) != result.bytes or hashlib.sha256(data).hexdigest() != result.sha256:
        raise BackendError(
            f"the worker wrote {result.bytes} bytes, {len(data)} others were found",
            where=str(log),
            remedy="calibrate again",
        )
    check_table(data, job, source=str(log))
    return data


def _findings(result: Result, state: Progress) -> Iterator[Finding]:
    if state.dropped:
        yield Finding(
            rule="incomplete-batch",
            severity=Severity.NOTE,
            subject="data",
            message=f"the last {state.dropped} samples made no full batch and were left out",
            remedy="none is needed; --batch-size 1 takes all",
        )
    if result.unknown_ranges:
        names = ", ".join(result.unknown_ranges[:10])
        yield Finding(
            rule="unknown-range",
            severity=Severity.WARNING,
            subject="ranges",
            message=f"{len(result.unknown_ranges)} given ranges name no tensor of TensorRT's "
            f"network: {names}",
            remedy="take the names from the table",
        )


def _read_log(log: Path) -> bytes:
    with contextlib.suppress(OSError):
        return log.read_bytes()
    return b""  # as the disk was full: the table is worth more than its log


def _keep_log(words: Words, log: Path) -> None:
    """Put TensorRT's log where it was wanted, the worker's stderr at its end."""
    with contextlib.suppress(OSError), log.open("wb") as out:
        for path, head in ((words.log, b""), (words.errors, b"--- stderr of the worker\n")):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_size:
                    out.write(head)
                    shutil.copyfileobj(stream, out)
