"""The job that TensorRT's worker gets, and what it answers.

The worker is `edgecal/host_scripts/trt_calibrate.py`: a program for the old Pythons that old
TensorRTs run on. Job and answers are JSON; what TensorRT prints between them is passed over.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edgecal.core.cache import Header
from edgecal.core.document import LegacyHeader, read_document
from edgecal.core.hosts import (
    GpuFact,
    HostFacts,
    NativeWay,
    Verdict,
    container_for,
    native_way,
    wheel_command,
    wheel_for,
)
from edgecal.core.versions import TensorRTVersion, parse_tensorrt, version_of_code
from edgecal.errors import (
    BackendError,
    CacheFormatError,
    DatasetError,
    DependencyError,
    EdgecalError,
    IncompatibleError,
    InputError,
    ModelError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.platforms import Platforms

_T = TypeVar("_T")

MARK: Final = "edgecal-trt: "
"""Ahead of every answer: images of TensorRT print banners on the same stream."""

ALGORITHMS: Final[Mapping[str, str]] = {
    "entropy2": "EntropyCalibration2",
    "entropy": "EntropyCalibration",
    "minmax": "MinMaxCalibration",
    "legacy": "LegacyCalibration",
}
"""What TensorRT's calibrators are called here, and in the headers of the tables they write."""

BATCH_DTYPES: Final = ("float32", "int32", "int64", "bool", "uint8")
"""What batch files hold; smaller floats are widened."""

DEFAULT_WORKSPACE_BYTES: Final = 2**30

_SHORT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """A network input as the batch files hold it, batch axis included."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratorOptions:
    """What may be chosen about TensorRT's calibration."""

    algorithm: str = "entropy2"
    quantile: float = 1.0
    """Of the Legacy calibrator; this and the cutoff stand in a table shipped with 6.0.1."""
    cutoff: float = 0.999999
    fp16: bool = True
    """FP16 beside INT8, as the engines on the targets are built."""
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES
    ranges: Mapping[str, float] = field(default_factory=dict)
    """amax by tensor name: these win over what the calibrator measures."""
    whole_build: bool = False
    """Build the INT8 engine of this host too, which takes minutes; the table is out before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that the worker is told; paths are those it sees, inside a container perhaps."""

    tensorrt: TensorRTVersion
    model: str
    batches: str
    cache: str
    log: str
    inputs: tuple[JobInput, ...]
    options: CalibratorOptions


def serialize_job(job: Job) -> bytes:
    """Write the job as the worker reads it."""
    document = {
        "tensorrt": job.tensorrt.major_minor,
        "model": job.model,
        "batches": job.batches,
        "cache": job.cache,
        "log": job.log,
        "inputs": [
            {"name": one.name, "dtype": one.dtype, "shape": list(one.shape)} for one in job.inputs
        ],
        "algorithm": job.options.algorithm,
        "quantile": job.options.quantile,
        "cutoff": job.options.cutoff,
        "fp16": job.options.fp16,
        "workspace_bytes": job.options.workspace_bytes,
        "ranges": dict(job.options.ranges),
        "whole_build": job.options.whole_build,
    }
    return json.dumps(document, indent=1).encode()


def check_options(options: CalibratorOptions) -> None:
    """Refuse what TensorRT would stumble over minutes later.

    Raises
    ------
    InputError
        If the calibrator is unknown, or a number lies outside its range.
    """
    if options.algorithm not in ALGORITHMS:
        raise InputError(
            f"TensorRT has no calibrator {options.algorithm!r}",
            where="--algorithm",
            remedy=f"use one of {', '.join(ALGORITHMS)}, or --backend onnxruntime",
        )
    for name, value in (("quantile", options.quantile), ("cutoff", options.cutoff)):
        if not 0 <= value <= 1:
            raise InputError(
                f"a {name} lies between 0 and 1, found {value:g}",
                where=f"--{name}",
                remedy="0.9999 is a usual choice",
            )
    if options.workspace_bytes <= 0:
        raise InputError(
            f"expected a workspace of some bytes, found {options.workspace_bytes}",
            remedy="leave it out for 1 GiB",
        )
    for tensor, amax in options.ranges.items():
        if not 0 < amax < float("inf"):
            raise InputError(
                f"a dynamic range is positive and finite, found {amax:g}",
                where=tensor,
                remedy="give the largest absolute value of the tensor",
            )


def batch_file(number: int, position: int) -> str:
    """Name the file of one input, by its position in the job, in one batch."""
    return f"batch-{number:06}.{position}"


def batch_line(number: int) -> bytes:
    """Say that the files of a batch lie complete."""
    return json.dumps({"batch": number}).encode() + b"\n"


def end_line(batches: int) -> bytes:
    """Say that there were so many batches and no more will come."""
    return json.dumps({"end": batches}).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The right TensorRT was found, with a GPU."""

    tensorrt: str
    gpu: str
    compute_capability: str
    python: str
    memory: str
    """What copies to the GPU: `pycuda` or `libcuda`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """The network is parsed and TensorRT works on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTaken:
    """A batch is on the GPU; its files have served."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The table is written."""

    tensorrt: str
    gpu: str
    compute_capability: str
    bytes: int
    sha256: str
    batches: int
    unknown_ranges: tuple[str, ...]
    built: bool | None
    """Whether the engine of this host came out as well; `None` where it was not wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """There will be no table."""

    code: str
    what: str
    where: str
    remedy: str


Answer = Hello | Building | BatchTaken | Result | Failure


def parse_answer(line: str) -> Answer | None:
    """Read one line of the worker's; `None` for what others print.

    Raises
    ------
    BackendError
        If it is marked as an answer and is none.
    """
    _, mark, text = line.partition(MARK)  # a banner may end without a line end
    if not mark:
        return None
    try:
        fields = json.loads(text)
        return _answer(fields)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackendError(
            f"the calibration worker gave an answer that is none: {text.strip()[:_SHORT]!r}",
            remedy="see the log; the worker's Python or image may print into its answers",
        ) from error


def _answer(fields: Mapping[str, Any]) -> Answer:
    event = fields["event"]
    if event == "hello":
        return Hello(
            tensorrt=_of(str, fields["tensorrt"]),
            gpu=_of(str, fields["gpu"]),
            compute_capability=_of(str, fields["compute_capability"]),
            python=_of(str, fields["python"]),
            memory=_of(str, fields["memory"]),
        )
    if event == "building":
        return Building()
    if event == "batch":
        return BatchTaken(number=_of(int, fields["number"]))
    if event == "result":
        built = fields["built"]
        return Result(
            tensorrt=_of(str, fields["tensorrt"]),
            gpu=_of(str, fields["gpu"]),
            compute_capability=_of(str, fields["compute_capability"]),
            bytes=_of(int, fields["bytes"]),
            sha256=_of(str, fields["sha256"]),
            batches=_of(int, fields["batches"]),
            unknown_ranges=tuple(_of(str, name) for name in _of(list, fields["unknown_ranges"])),
            built=None if built is None else _of(bool, built),
        )
    if event == "failure":
        parts = {key: _of(str, fields[key]) for key in ("code", "what", "where", "remedy")}
        return Failure(**parts)
    raise ValueError(event)


def _of(kind: type[_T], value: object) -> _T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(value)
    return value


def check_host(host: HostFacts, tensorrt: TensorRTVersion, platforms: Platforms) -> NativeWay:
    """Refuse a host that cannot calibrate for a TensorRT, whatever is installed on it.

    A GPU that no table knows may try. Whether that TensorRT is there is the worker's to find out:
    it may lie in another Python, or in an image.

    Raises
    ------
    IncompatibleError
        If that TensorRT has no calibrators, or no GPU here runs it.
    """
    way = native_way(host, tensorrt, platforms)
    if way.verdict in {Verdict.NO_CALIBRATION, Verdict.NO_GPU, Verdict.GPU_UNFIT}:
        raise IncompatibleError(
            f"TensorRT {tensorrt.major_minor} cannot calibrate here: {way.reason}",
            remedy=_either(*way.steps)
            if way.verdict is Verdict.NO_CALIBRATION
            else "use --backend onnxruntime; 'edgecal doctor' says which hosts could, and how",
        )
    return way


def check_hello(hello: Hello, tensorrt: TensorRTVersion, platforms: Platforms) -> None:
    """Refuse the GPU that the worker got, which may be another than the host's best.

    Raises
    ------
    IncompatibleError
        If by the tables it does not run that TensorRT.
    """
    gpu = GpuFact(name=hello.gpu, compute_capability=hello.compute_capability)
    host = HostFacts(arch="", python="", cores=1, gpus=(gpu,))
    way = native_way(host, tensorrt, platforms)
    if way.verdict is Verdict.GPU_UNFIT:
        raise IncompatibleError(
            f"the worker got a GPU that cannot do it: {way.reason}",
            remedy="set CUDA_VISIBLE_DEVICES to another GPU of this host, or use --backend "
            "onnxruntime",
        )


def failure_error(
    failure: Failure, *, tensorrt: TensorRTVersion, platforms: Platforms, log: str
) -> EdgecalError:
    """Turn the worker's failure into the error of whose fault it is."""
    where = failure.where
    remedy = failure.remedy or f"see {log}"
    if failure.code in {"no-tensorrt", "version"}:
        remedy = how_to_get(tensorrt, platforms)
    if failure.code == "no-tensorrt":
        return DependencyError(failure.what, where=where, remedy=remedy)
    if failure.code in {"version", "no-calibrators", "gpu"}:
        return IncompatibleError(failure.what, where=where, remedy=remedy)
    if failure.code == "model":
        return ModelError(failure.what, where=where, remedy=remedy)
    if failure.code == "data":
        return DatasetError(
            failure.what,
            where=where,
            remedy=failure.remedy or "check shapes and types of the data against the network's",
        )
    return BackendError(failure.what, where=where or log, remedy=remedy)


def how_to_get(tensorrt: TensorRTVersion, platforms: Platforms) -> str:
    """Say how to point the backend at a TensorRT of one major.minor."""
    ways = []
    container = container_for(platforms, tensorrt)
    if container is not None:
        ways.append(f"pass --trt-container {container.image}")
    wheel = wheel_for(tensorrt)
    python = f"pass --trt-python of a Python that has TensorRT {tensorrt.major_minor}"
    ways.append(python if wheel is None else f"{python} ({wheel_command(wheel)})")
    return _either(*ways, "use --backend onnxruntime")


def _either(*ways: str) -> str:
    return ", or ".join(ways)


def check_table(data: bytes, job: Job, *, source: str) -> None:
    """Make sure that a table is whole, and of the calibrator and TensorRT that were asked for.

    Nothing is judged beyond that: what TensorRT wrote goes out as it is.

    Raises
    ------
    BackendError
        If it is another one, or holds no tensor.
    """
    try:
        document = read_document(data, source=source)
    except CacheFormatError as error:
        raise _strange(
            f"what TensorRT wrote is no calibration table: {error.what}", source
        ) from error
    wanted = ALGORITHMS[job.options.algorithm]
    header = document.header
    if job.options.algorithm == "legacy":
        if not isinstance(header, LegacyHeader) and (
            not isinstance(header, Header) or header.algorithm != wanted
        ):
            raise _strange(
                f"expected the table of a Legacy calibrator, found {document.header_text[:60]!r}",
                source,
            )
    elif (
        not isinstance(header, Header)
        or header.algorithm != wanted
        or version_of_code(header.code).major_minor != job.tensorrt.major_minor
    ):
        raise _strange(
            f"expected a table of TensorRT {job.tensorrt.major_minor}'s {wanted}, found "
            f"{document.header_text[:60]!r}",
            source,
        )
    if not document.entries:
        raise _strange("the table that TensorRT wrote holds no tensor", source)


def _strange(what: str, source: str) -> BackendError:
    return BackendError(what, where=source, remedy="see the log, and report it with the log")


def found_version(text: str) -> TensorRTVersion:
    """Read the version that the worker's TensorRT gives itself.

    Raises
    ------
    BackendError
        If it is none, such as a nightly's.
    """
    try:
        return parse_tensorrt(text)
    except InputError as error:
        raise BackendError(
            f"TensorRT calls itself {text[:40]!r}, which is no version",
            remedy="use a released TensorRT",
        ) from error


def job_inputs(
    shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]
) -> tuple[JobInput, ...]:
    """Describe the inputs by those of the first batch, in its order.

    Raises
    ------
    DatasetError
        If an input's type is none that TensorRT takes as calibration data.
    """
    found = []
    for name, shape in shapes.items():
        dtype = "float32" if dtypes[name] in {"float16", "float64"} else dtypes[name]
        if dtype not in BATCH_DTYPES:
            raise DatasetError(
                f"TensorRT calibrates with inputs of {', '.join(BATCH_DTYPES)}, found {dtype}",
                where=name,
                remedy="export the network with such an input, or use --backend onnxruntime",
            )
        found.append(JobInput(name=name, dtype=dtype, shape=shape))
    return tuple(found)


def check_shapes(inputs: Sequence[JobInput], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Hold the data's shapes against those of `--shape`, batch axis included.

    Raises
    ------
    DatasetError
        If they differ, or a shape is given for what is no input.
    """
    known = {one.name: one.shape for one in inputs}
    for name, shape in wanted.items():
        if name not in known:
            raise DatasetError(
                f"--shape names {name!r}, and the inputs are {', '.join(known)}",
                where="--shape",
                remedy="use the names of the network's inputs",
            )
        if known[name] != shape:
            raise DatasetError(
                f"--shape wants {_times(shape)}, batches have {_times(known[name])}",
                where=name,
                remedy="fit --batch-size and the preprocessing to the shape",
            )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
