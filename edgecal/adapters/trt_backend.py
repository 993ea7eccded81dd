"""Calibration by TensorRT itself, in a process of its own: this Python, another, or a container.

The process runs `edgecal/host_scripts/trt_calibrate.py`. Batches go to it as files in a temporary
folder, a few at a time, each deleted once it is on the GPU; so the disk holds a few batches however
much data there is. No GPU has run this yet; what stands in for TensorRT in the tests is ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.batching import stack
from edgecal.core.findings import Finding, Severity
from edgecal.core.trt_job import (
    Answer,
    BatchTaken,
    Building,
    CalibratorOptions,
    Failure,
    Hello,
    Job,
    JobInput,
    Result,
    batch_file,
    batch_line,
    check_hello,
    check_host,
    check_options,
    check_shapes,
    check_table,
    end_line,
    failure_error,
    found_version,
    job_inputs,
    parse_answer,
    serialize_job,
)
from edgecal.errors import BackendError, DatasetError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy.typing as npt

    from edgecal.core.hosts import HostFacts
    from edgecal.core.platforms import Platforms
    from edgecal.core.versions import TensorRTVersion

    Arrays = Mapping[str, npt.NDArray[Any]]

_WORKER: Final = "trt_calibrate.py"
_AHEAD: Final = 4
"""Batches on disk that the worker has not taken yet: the next ones are made while the GPU works."""

_LONGEST_ANSWER: Final = 2**20
_KILL_S: Final = 10.0
_LOOK_S: Final = 0.5
_GLANCE_S: Final = 0.01
_LOOK_UP_S: Final = 0.2
_ASK_DOCKER_S: Final = 30.0
_LAST_WORDS: Final = 4096
_IN_CONTAINER: Final = "/edgecal"
_CRASHES: Final = 128
"""Shells and Docker give a signal's number plus this as exit status."""


@dataclass(frozen=True, slots=True)
class ThisPython:
    """Run TensorRT in the Python that runs edgecal, in a process of its own."""


@dataclass(frozen=True, slots=True)
class OtherPython:
    """Run TensorRT in another Python of this host, 3.6 or later: `--trt-python`."""

    path: Path


@dataclass(frozen=True, slots=True)
class InContainer:
    """Run TensorRT in an image that is here already: `--trt-container`."""

    image: str


Place = ThisPython | OtherPython | InContainer


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """How long the worker may take; TensorRT's own log counts as a sign of life."""

    start_s: float = 300.0
    """Until the GPU answers: image, Python and driver start in it."""
    silence_s: float = 1800.0
    """Without any sign of life after that."""


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
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Progress:
    """How far it went, for the end's account."""

    samples: int = 0
    dropped: int = 0
    hello: Hello | None = None


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
    state = _Progress()
    batches = _full_batches(samples, batch_size, state)
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
    with _scratch() as folder:
        words = _Words(log=folder / "calibration.log", errors=folder / "worker.err")
        try:
            launch = _launch(place or ThisPython(), folder, model)
            job = Job(
                tensorrt=tensorrt,
                model=launch.model,
                batches=launch.folder,
                cache=f"{launch.folder}/calibration.cache",
                log=f"{launch.folder}/calibration.log",
                inputs=inputs,
                options=options,
            )
            with _disk(folder):
                (folder / "job.json").write_bytes(serialize_job(job))
            feeder = _Feeder(folder, inputs, first, batches)
            with _Worker(launch, words) as worker:
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
        findings=tuple(_findings(result, state)),
    )


def _full_batches(
    samples: Iterable[Arrays], batch_size: int, state: _Progress
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Stack samples to batches of exactly that size; count what is left over."""
    pending: list[Arrays] = []
    names: set[str] | None = None
    for number, sample in enumerate(samples):
        names = names or set(sample)
        if set(sample) != names:
            raise DatasetError(
                f"the first sample has the inputs {', '.join(sorted(names))}, this one has the "
                f"inputs {', '.join(sorted(sample))}",
                where=f"sample {number}",
                remedy="give an array for every input of the network in every sample",
            )
        pending.append(sample)
        if len(pending) == batch_size:
            yield stack(pending)
            state.samples += batch_size
            pending = []
    state.dropped = len(pending)


class _Feeder:
    """Writes batches to the folder, a few ahead of the worker."""

    def __init__(
        self,
        folder: Path,
        inputs: tuple[JobInput, ...],
        first: dict[str, npt.NDArray[Any]],
        rest: Iterator[dict[str, npt.NDArray[Any]]],
    ) -> None:
        self._folder = folder
        self._inputs = inputs
        self._dtypes = {name: array.dtype for name, array in first.items()}
        self._next: dict[str, npt.NDArray[Any]] | None = first
        self._rest = rest
        self.sent = 0
        self.taken = 0
        self.ended = False

    def news(self) -> Iterator[bytes]:
        """Write what there is room for; gives the lines that announce it."""
        while not self.ended and self.sent - self.taken < _AHEAD:
            batch = self._next if self._next is not None else next(self._rest, None)
            self._next = None
            if batch is None:
                self.ended = True
                yield end_line(self.sent)
                return
            self._write(batch)
            self.sent += 1
            yield batch_line(self.sent - 1)

    def forget(self, number: int) -> None:
        """Delete the files of a batch that the worker has taken."""
        self.taken = number + 1
        for position in range(len(self._inputs)):
            (self._folder / batch_file(number, position)).unlink(missing_ok=True)

    def _write(self, batch: dict[str, npt.NDArray[Any]]) -> None:
        for position, one in enumerate(self._inputs):
            array = batch[one.name]
            where = f"batch {self.sent}, input {one.name}"
            if array.shape != one.shape:
                raise DatasetError(
                    f"TensorRT calibrates with one shape, {list(one.shape)} so far, "
                    f"found {list(array.shape)}",
                    where=where,
                    remedy="set a fixed resize",
                )
            if array.dtype != self._dtypes[one.name]:
                raise DatasetError(
                    f"the first batch is {self._dtypes[one.name]}, found {array.dtype}",
                    where=where,
                    remedy="give every sample in the same type",
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DatasetError(
                    "found NaN or infinity in what the network would see",
                    where=where,
                    remedy="check the sample and its preprocessing",
                )
            values = np.ascontiguousarray(array, dtype=np.dtype(one.dtype).newbyteorder("<"))
            with (
                _disk(self._folder),
                (self._folder / batch_file(self.sent, position)).open("wb") as out,
            ):
                out.write(values.data)


@dataclass(frozen=True, slots=True)
class _Words:
    """What the worker leaves to read: TensorRT's log, and its own stderr."""

    log: Path
    errors: Path

    def last(self) -> str:
        """Give the last line of stderr that says something."""
        with contextlib.suppress(OSError), self.errors.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _LAST_WORDS))
            lines = stream.read().decode("utf-8", "replace").splitlines()
            said = [line.strip() for line in lines if line.strip()]
            return said[-1][:300] if said else ""
        return ""

    def size(self) -> int:
        """Tell how much there is, as a sign of life."""
        total = 0
        for path in (self.log, self.errors):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    """How to start the worker, and the paths that it sees."""

    argv: tuple[str, ...]
    model: str
    folder: str
    container: str | None = None


def _launch(place: Place, folder: Path, model: Path) -> _Launch:
    """Put the worker into the folder and say how to run it.

    Raises
    ------
    InputError
        If the Python or the image is not there.
    """
    source = resources.files("edgecal") / "host_scripts" / _WORKER
    with _disk(folder):
        (folder / _WORKER).write_bytes(source.read_bytes())
    model = model.resolve()
    if isinstance(place, InContainer):
        docker = _docker_with(place.image)
        # Docker reads a mount as a line of CSV
        if any(sign in str(path) for path in (folder, model.parent) for sign in ',"'):
            raise InputError(
                "Docker cannot mount a folder with a comma or a quote in its name",
                where=str(model.parent),
                remedy="move the model to another folder",
            )
        name = f"edgecal-{folder.name.rpartition('-')[2]}"
        return _Launch(
            argv=(
                *(docker, "run", "--rm", "--interactive", "--name", name, "--gpus", "all"),
                *("--network", "none"),
                *("--mount", f"type=bind,src={folder},dst={_IN_CONTAINER}/job"),
                *("--mount", f"type=bind,src={model.parent},dst={_IN_CONTAINER}/model,readonly"),
                *(place.image, "python3", "-u"),
                *(f"{_IN_CONTAINER}/job/{_WORKER}", f"{_IN_CONTAINER}/job/job.json"),
            ),
            model=f"{_IN_CONTAINER}/model/{model.name}",
            folder=f"{_IN_CONTAINER}/job",
            container=name,
        )
    python = sys.executable if isinstance(place, ThisPython) else shutil.which(str(place.path))
    if python is None:
        raise InputError(
            "expected a Python to run, found none",
            where=f"--trt-python {place.path}" if isinstance(place, OtherPython) else "",
            remedy="give the path of a Python 3.6 or later that has tensorrt",
        )
    return _Launch(
        argv=(python, "-u", str(folder / _WORKER), str(folder / "job.json")),
        model=str(model),
        folder=str(folder),
    )


def _docker_with(image: str) -> str:
    """Find Docker, and make sure that the image is here: fetching gigabytes is the user's to do."""
    docker = shutil.which("docker")
    if docker is None:
        raise InputError(
            "Docker is not installed",
            where=f"--trt-container {image}",
            remedy="install Docker and NVIDIA's container toolkit, or use --trt-python",
        )
    try:
        done = subprocess.run(
            [docker, "image", "inspect", "--format", "{{.Id}}", image],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_DOCKER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"Docker does not answer: {error}",
            where=f"--trt-container {image}",
            remedy="see 'docker info'",
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[:300]
        absent = "no such image" in said.lower()
        raise InputError(
            "the image is not here" if absent else f"Docker cannot be asked: {said}",
            where=f"--trt-container {image}",
            remedy=f"docker pull {image}" if absent else "see 'docker info'",
        )
    return docker


class _Worker:
    """The running worker: lines to it, answers from it, and its end, whatever happens."""

    def __init__(self, launch: _Launch, words: _Words) -> None:
        self._launch = launch
        self.words = words
        self._answers: queue.SimpleQueue[Answer | BackendError | None] = queue.SimpleQueue()

    def __enter__(self) -> _Worker:
        with self.words.errors.open("wb") as errors:
            try:
                self._process = subprocess.Popen(
                    self._launch.argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    # a group of its own: Ctrl-C reaches us alone, and we end all of it
                    start_new_session=True,
                )
            except OSError as error:
                raise BackendError(
                    f"cannot start the calibration worker: {error.strerror or error}",
                    where=self._launch.argv[0],
                    remedy="give the path of a Python 3.6 or later that has tensorrt",
                ) from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._wait()  # it gave its result, and ends by itself
        self._end()
        self._reader.join(_KILL_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()

    def tell(self, line: bytes) -> None:
        """Write a line; a worker that has gone is found out by its missing answer."""
        stream = _some(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):
            stream.write(line)
            stream.flush()

    def answer(self, timeout_s: float) -> Answer | None:
        """Wait for the next answer; `None` once the worker has ended.

        Raises
        ------
        TimeoutError
            If there is none in time.
        BackendError
            If it is none.
        """
        found = self._next(time.monotonic() + timeout_s)
        if isinstance(found, BackendError):
            raise found
        return found

    def _next(self, until: float) -> Answer | BackendError | None:
        # an interrupt that comes just before the wait begins does not end it: wait in slices
        while True:
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=_LOOK_UP_S)
            if time.monotonic() > until:
                raise TimeoutError

    def status(self) -> int:
        """Give the exit status of a worker that answers no more; negative for a signal."""
        ended = self._wait()
        if ended is None:
            return 0  # it closed its answers and lives on; whoever called will end it
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _wait(self, limit_s: float = _KILL_S) -> os.waitid_result | None:
        """Wait a little for the worker's end.

        Nothing is reaped: as long as the worker has its number, no other group can have it.
        """
        until = time.monotonic() + limit_s
        while True:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is not None or time.monotonic() > until:
                return ended
            time.sleep(_GLANCE_S)

    def _read(self) -> None:
        """Pass answers on, banners over; ends with the worker's last byte."""
        stream = _some(self._process.stdout)
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline(_LONGEST_ANSWER):
                try:
                    found = parse_answer(line.decode("utf-8", "replace"))
                except BackendError as error:
                    self._answers.put(error)
                    break
                if found is not None:
                    self._answers.put(found)
        self._answers.put(None)

    def _end(self) -> None:
        """End the whole group, gently for a moment, and the container by its name."""
        if self._launch.container is not None and self._wait(0) is None:
            # the client's death would leave the container running
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [self._launch.argv[0], "rm", "--force", self._launch.container],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_ASK_DOCKER_S,
                    check=False,
                )
        # also where the worker itself has ended: what it started may live on
        self._signal(signal.SIGTERM)
        self._wait()
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Talk:
    """One conversation with the worker: batches to it, answers from it, until there is a result."""

    worker: _Worker
    feeder: _Feeder
    state: _Progress
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
                raise _ended(self.worker, self.log)
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


def _ended(worker: _Worker, log: Path) -> BackendError:
    """Say how a worker ended that gave no result."""
    status = worker.status()
    number = -status if status < 0 else status - _CRASHES
    try:
        how = f"crashed with {signal.Signals(number).name}"
    except ValueError:
        how = f"ended with status {status}"
    said = worker.words.last()
    return BackendError(
        f"the calibration worker {how} and gave no result" + (f": {said}" if said else ""),
        where=str(log),
        remedy="see the end of the log; a crash inside TensorRT often goes with a smaller "
        "--batch-size, or with another patch of the same major.minor",
    )


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


def _findings(result: Result, state: _Progress) -> Iterator[Finding]:
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


def _keep_log(words: _Words, log: Path) -> None:
    """Put TensorRT's log where it was wanted, the worker's stderr at its end."""
    with contextlib.suppress(OSError), log.open("wb") as out:
        for path, head in ((words.log, b""), (words.errors, b"--- stderr of the worker\n")):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_size:
                    out.write(head)
                    shutil.copyfileobj(stream, out)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Make a folder that goes away, whatever is in it by then."""
    try:
        made = tempfile.TemporaryDirectory(prefix="edgecal-trt-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_disk(Path(tempfile.gettempdir()), error) from error
    with made as folder:
        path = Path(folder).resolve()
        yield path


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _no_disk(folder, error) from error


def _no_disk(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write batches for TensorRT: {error.strerror or error}",
        where=str(folder),
        remedy="free some space, or set TMPDIR to another disk",
    )


def _some(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # never: both were asked for as pipes
        raise RuntimeError(stream)
    return stream
