"""Calibrates one network by TensorRT on a host with a GPU: a program of one file, for Python 3.6.

    python3 -u trt_calibrate.py JOB.json

`edgecal.core.trt_job` describes the job and reads the answers; `edgecal.adapters.trt_backend` runs
this. stdin announces the batches, one JSON object a line: `{"batch": 0}` once the files of batch 0
lie complete in the job's folder, `{"end": N}` after the last of N. stdout carries the answers, one
JSON object a line behind `MARK`: images print banners there. All else goes to stderr.

What TensorRT's Python API has is asked with hasattr, never by version. Written after the headers,
bindings and documentation of TensorRT 7.1 to 10.16; no GPU has run it yet.
"""

import array
import ctypes
import hashlib
import json
import os
import platform
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, TextIO

MARK = "edgecal-trt: "

CALIBRATORS = {
    "entropy2": "IInt8EntropyCalibrator2",
    "entropy": "IInt8EntropyCalibrator",
    "minmax": "IInt8MinMaxCalibrator",
    "legacy": "IInt8LegacyCalibrator",
}
# these two calibrate after fusion unless told otherwise, and then their names fit one GPU only
AFTER_FUSION = ("entropy", "legacy")

ITEM_BYTES = {"float32": 4, "int32": 4, "int64": 8, "bool": 1, "uint8": 1}
# what a calibration batch holds, by the type of the network's input: float32 for FP16 too
BATCH_TYPES = {
    "FLOAT": "float32",
    "HALF": "float32",
    "BF16": "float32",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
INTEGERS = {"int32": "i", "int64": "q"}

LETTERS = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I", "VERBOSE": "V"}
ERRORS_KEPT = 3
FAILED = 3  # the exit status after a failure that was answered


class WorkerError(Exception):
    """Why there will be no calibration: a code for edgecal, and three parts for people."""

    def __init__(self, code: str, what: str, where: str = "", remedy: str = "") -> None:
        Exception.__init__(self, what)
        self.code = code
        self.what = what
        self.where = where
        self.remedy = remedy


class Answers:
    """The way back to edgecal. Takes stdout away from everybody else in this process."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
        os.dup2(2, 1)  # libraries print where they like

    def send(self, event: str, **fields: Any) -> None:
        """Write one answer; with nobody there to read it, there is nothing left to do."""
        try:
            self._stream.write(MARK + json.dumps(dict(fields, event=event)) + "\n")
            self._stream.flush()
        except OSError:
            os._exit(FAILED)

    def fail(self, error: BaseException) -> None:
        """Tell of an error and end this process."""
        if not isinstance(error, WorkerError):
            traceback.print_exc()
            error = WorkerError("internal", "%s: %s" % (type(error).__name__, error))
        self.send(
            "failure", code=error.code, what=error.what, where=error.where, remedy=error.remedy
        )
        self.leave(FAILED)

    def leave(self, status: int) -> None:
        """End without tearing down: CUDA contexts and half-made engines go with the process."""
        sys.stderr.flush()
        os._exit(status)


class Batches:
    """The batches as they are announced, each read once, in order, with nothing left out."""

    def __init__(self, folder: str, inputs: List[Dict[str, Any]], announcements: TextIO) -> None:
        self._folder = Path(folder)
        self._inputs = inputs
        self._announcements = announcements
        self.taken = 0
        self.ended = False

    def next(self) -> Optional[Dict[str, bytes]]:
        """Wait for a batch and give its raw values by input; None after the last."""
        if self.ended:
            return None
        line = self._announcements.readline()
        if not line.endswith("\n"):
            raise WorkerError("parent", "edgecal has gone before the last batch")
        news = json.loads(line)
        if news not in ({"batch": self.taken}, {"end": self.taken}):
            raise WorkerError(
                "data", "expected batch %d or the end, found %s" % (self.taken, line.strip()[:80])
            )
        if "end" in news:
            self.ended = True
            return None
        batch = {}
        for position, one in enumerate(self._inputs):
            path = self._folder / ("batch-%06d.%d" % (self.taken, position))
            data = path.read_bytes()
            size = ITEM_BYTES[one["dtype"]]
            for extent in one["shape"]:
                size *= extent
            if len(data) != size:
                raise WorkerError(
                    "data",
                    "expected %d bytes of %s, found %d" % (size, one["name"], len(data)),
                    str(path),
                )
            batch[one["name"]] = data
        self.taken += 1
        return batch


class PycudaMemory:
    """Device memory by pycuda, in the primary context, which TensorRT uses too."""

    by = "pycuda"

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._buffers = {}  # type: Dict[str, Any]
        try:
            driver.init()
            if driver.Device.count() == 0:
                raise no_gpu("CUDA sees no GPU")
            device = driver.Device(0)
            if hasattr(device, "retain_primary_context"):
                self._context = device.retain_primary_context()
                self._context.push()
            else:
                self._context = device.make_context()  # is pushed by being made
            self.gpu = str(device.name())
            self.compute_capability = "%d.%d" % tuple(device.compute_capability())
        except driver.Error as error:
            raise no_gpu("CUDA cannot start: %s" % error) from error

    def upload(self, name: str, data: bytes) -> int:
        """Copy values to the buffer of an input and give its address."""
        try:
            if name not in self._buffers:
                self._buffers[name] = self._driver.mem_alloc(len(data))
            self._driver.memcpy_htod(self._buffers[name], data)
        except self._driver.MemoryError as error:
            raise no_memory(len(data)) from error
        except self._driver.Error as error:
            raise WorkerError("cuda", "copying a batch to the GPU failed: %s" % error) from error
        return int(self._buffers[name])


class DriverMemory:
    """The same by the driver's own library, for images that have no pycuda."""

    by = "libcuda"

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise no_gpu("no NVIDIA driver: %s" % error) from error
        self._buffers = {}  # type: Dict[str, ctypes.c_void_p]
        device, count, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        try:
            self._call("cuInit", ctypes.c_uint(0))
            self._call("cuDeviceGetCount", ctypes.byref(count))
        except WorkerError as error:
            raise no_gpu("CUDA cannot start: %s" % error.what) from error
        if count.value == 0:
            raise no_gpu("CUDA sees no GPU")
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, ctypes.c_int(256), device)
        self.gpu = name.value.decode("utf-8", "replace")
        numbers = []
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
            self._call("cuDeviceGetAttribute", ctypes.byref(count), ctypes.c_int(attribute), device)
            numbers.append(str(count.value))
        self.compute_capability = ".".join(numbers)

    def upload(self, name: str, data: bytes) -> int:
        """Copy values to the buffer of an input and give its address."""
        size = ctypes.c_size_t(len(data))
        if name not in self._buffers:
            address = ctypes.c_void_p()
            try:
                self._call("cuMemAlloc_v2", ctypes.byref(address), size)
            except WorkerError as error:
                raise (no_memory(len(data)) if error.where == "2" else error) from error
            self._buffers[name] = address
        self._call("cuMemcpyHtoD_v2", self._buffers[name], ctypes.c_char_p(data), size)
        return self._buffers[name].value or 0

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._cuda, function)(*arguments)
        if status:  # a CUresult of cuda.h; 2 is out of memory
            raise WorkerError("cuda", "%s gave CUDA error %d" % (function, status), str(status))


def no_gpu(what: str) -> WorkerError:
    """Say that there is nothing to calibrate on."""
    return WorkerError(
        "no-gpu",
        what,
        remedy="check nvidia-smi and CUDA_VISIBLE_DEVICES; a container wants NVIDIA's toolkit",
    )


def no_memory(size: int) -> WorkerError:
    """Say that a batch does not fit."""
    return WorkerError(
        "memory",
        "the GPU has no %d bytes left for a batch" % size,
        remedy="use a smaller --batch-size, or end what else runs on this GPU",
    )


def open_memory() -> Any:
    """Find a way to device memory."""
    try:
        from pycuda import driver
    except ImportError:
        return DriverMemory()
    return PycudaMemory(driver)


def import_tensorrt(job: Dict[str, Any]) -> Any:
    """Import TensorRT and make sure that it is the wanted one and can calibrate."""
    try:
        import tensorrt
    except Exception as error:  # broken wheels raise what they like
        raise WorkerError(
            "no-tensorrt",
            "this Python cannot import tensorrt: %s" % error,
            "%s (Python %s)" % (sys.executable, platform.python_version()),
        ) from error
    found = str(tensorrt.__version__)
    if found.split(".")[:2] != job["tensorrt"].split("."):
        raise WorkerError(
            "version",
            "TensorRT %s is wanted, found %s" % (job["tensorrt"], found),
            "%s (Python %s)" % (sys.executable, platform.python_version()),
        )
    if not hasattr(tensorrt, CALIBRATORS[job["algorithm"]]):
        raise WorkerError(
            "no-calibrators",
            "TensorRT %s has no %s" % (found, CALIBRATORS[job["algorithm"]]),
            remedy="TensorRT 11 has no calibrators at all: give it a network with Q/DQ nodes",
        )
    return tensorrt


def make_logger(trt: Any, stream: TextIO) -> Any:
    """Make the logger that keeps all TensorRT says, and its last errors at hand."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the bindings insist
            self.errors = []  # type: List[str]
            self.skipped = False

        def log(self, severity: Any, msg: str) -> None:
            try:
                name = str(severity).split(".")[-1]
                if name in ("ERROR", "INTERNAL_ERROR"):
                    self.errors = [*self.errors, msg.strip()][-ERRORS_KEPT:]
                self.skipped = self.skipped or "Calibration skipped" in msg
                stream.write("[%s] %s\n" % (LETTERS.get(name, "?"), msg))
            except Exception:  # noqa: BLE001, S110 - raised into the bindings it ends the process
                pass

    return Logger()


def last_words(logger: Any) -> str:
    """Give TensorRT's last errors for the end of a sentence."""
    return ": " + "; ".join(logger.errors) if logger.errors else ""


def make_builder(trt: Any, logger: Any) -> Any:
    """Start TensorRT."""
    try:
        builder = trt.Builder(logger)
    except Exception as error:  # pybind's TypeError says nothing, the log does
        raise WorkerError(
            "cuda",
            "TensorRT cannot start%s" % (last_words(logger) or ": %s" % error),
            remedy="the driver may be too old for this TensorRT's CUDA: see nvidia-smi",
        ) from error
    if not getattr(builder, "platform_has_fast_int8", True):
        raise WorkerError(
            "gpu",
            "TensorRT says that this GPU has no INT8",
            remedy="calibrate on another GPU, or with --backend onnxruntime",
        )
    return builder


def parse_network(trt: Any, logger: Any, builder: Any, model: str) -> Any:
    """Read the ONNX file into a network with explicit batch."""
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    flags = 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"):
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if hasattr(parser, "parse_from_file"):  # finds weights in files beside the model
        parsed = parser.parse_from_file(model)
    else:
        parsed = parser.parse(Path(model).read_bytes())
    if not parsed:
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        told = "; ".join(str(error.desc()) for error in errors[:ERRORS_KEPT])
        raise WorkerError(
            "model",
            "TensorRT cannot read the network: %s" % (told or last_words(logger)[2:]),
            model,
            "export it for the operators of this TensorRT; plugins must be of NVIDIA's own library",
        )
    return network, parser  # the parser owns weights that the network points to


def check_inputs(network: Any, job: Dict[str, Any]) -> Dict[str, str]:
    """Hold the network's inputs against the job's; give the type of each one's batches."""
    given = {one["name"]: one for one in job["inputs"]}
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    names = [tensor.name for tensor in tensors]
    if sorted(names) != sorted(given):
        raise WorkerError(
            "data",
            "TensorRT sees the inputs %s, the data has %s" % (sorted(names), sorted(given)),
            job["model"],
        )
    types = {}
    for tensor in tensors:
        one = given[tensor.name]
        shape = [int(extent) for extent in tensor.shape]
        wrong = len(shape) != len(one["shape"]) or any(
            have not in (-1, want) for have, want in zip(shape, one["shape"])
        )
        if wrong:
            raise WorkerError(
                "data",
                "input %s has the shape %s, batches have %s" % (tensor.name, shape, one["shape"]),
                job["model"],
                "-1 takes any extent; use --shape and --batch-size to fit the others",
            )
        if getattr(tensor, "is_shape_tensor", False):
            raise WorkerError(
                "model",
                "input %s computes shapes, and calibration has no values for it" % tensor.name,
                job["model"],
                "make it a constant of the network",
            )
        name = str(tensor.dtype).split(".")[-1]
        want = BATCH_TYPES.get(name)
        if want is None or (want != one["dtype"] and not {want, one["dtype"]} <= set(INTEGERS)):
            raise WorkerError(
                "data",
                "input %s is %s for TensorRT, batches are %s" % (tensor.name, name, one["dtype"]),
                job["model"],
            )
        types[tensor.name] = want
    return types


def converted(name: str, data: bytes, have: str, want: str) -> bytes:
    """Turn integers into the network's: TensorRT before 10 takes INT64 inputs as INT32."""
    if have == want:
        return data
    try:
        return array.array(INTEGERS[want], array.array(INTEGERS[have], data)).tobytes()
    except OverflowError as error:
        raise WorkerError("data", "input %s holds integers beyond %s" % (name, want)) from error


def make_config(trt: Any, builder: Any, network: Any, job: Dict[str, Any]) -> Any:
    """Say how to build. DLA is never set: its builder would calibrate other layers."""
    config = builder.create_builder_config()
    workspace = int(job["workspace_bytes"])
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    else:
        config.max_workspace_size = workspace
    config.set_flag(trt.BuilderFlag.INT8)
    if job["fp16"] and getattr(builder, "platform_has_fast_fp16", True):
        config.set_flag(trt.BuilderFlag.FP16)
    if job["algorithm"] in AFTER_FUSION:
        if not hasattr(config, "set_quantization_flag"):
            raise WorkerError(
                "no-calibrators",
                "this TensorRT calibrates %s after fusion only, for one GPU" % job["algorithm"],
                remedy="use entropy2 or minmax, or TensorRT 7.1 or later",
            )
        config.set_quantization_flag(trt.QuantizationFlag.CALIBRATE_BEFORE_FUSION)
    add_profile(builder, network, config, job)
    return config


def add_profile(builder: Any, network: Any, config: Any, job: Dict[str, Any]) -> None:
    """Fix dynamic dimensions to those of the batches, for building and for calibrating."""
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    dynamic = [tensor for tensor in tensors if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    shapes = {one["name"]: tuple(one["shape"]) for one in job["inputs"]}
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        profile.set_shape(tensor.name, *[shapes[tensor.name]] * 3)
    if config.add_optimization_profile(profile) < 0:
        raise WorkerError("data", "TensorRT refuses an optimization profile of %s" % shapes)
    if hasattr(config, "set_calibration_profile") and not config.set_calibration_profile(profile):
        raise WorkerError("data", "TensorRT refuses a calibration profile of %s" % shapes)


def set_ranges(network: Any, ranges: Dict[str, float]) -> List[str]:
    """Set given dynamic ranges, which win over measured ones; give the names nobody has."""
    left = dict(ranges)

    def apply(tensor: Any) -> None:
        amax = left.pop(tensor.name, None) if tensor is not None else None
        if amax is not None:
            if hasattr(tensor, "set_dynamic_range"):
                taken = tensor.set_dynamic_range(-amax, amax)
            else:
                tensor.dynamic_range = (-amax, amax)
                taken = True
            if not taken:
                raise WorkerError("data", "TensorRT refuses a range of %g" % amax, tensor.name)

    for number in range(network.num_inputs):
        apply(network.get_input(number))
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        for position in range(layer.num_outputs):
            apply(layer.get_output(position))
    return sorted(left)


class Work:
    """What the calibrator does when TensorRT calls it.

    Nothing may fail into the bindings: those of 8.0 would end the process, later ones print the
    error and go on as if the data had ended. So an error is answered where it happens, and the
    process ends there. It also ends, as told, once the table is out: what TensorRT would do next
    is time an INT8 engine for this GPU, which takes minutes and which nobody wants.
    """

    def __init__(
        self,
        job: Dict[str, Any],
        answers: Answers,
        *,
        batches: Batches,
        memory: Any,
        types: Dict[str, str],
        facts: Dict[str, Any],
    ) -> None:
        self._job = job
        self._answers = answers
        self._batches = batches
        self._memory = memory
        self._types = types
        self._facts = facts
        self._given = {one["name"]: one["dtype"] for one in job["inputs"]}
        self.result = None  # type: Optional[Dict[str, Any]]

    def guarded(self, step: Callable[[], Any]) -> Any:
        """Do one step of the calibrator."""
        try:
            return step()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not go on from here
            self._answers.fail(error)

    def next_batch(self, names: List[str]) -> Optional[List[int]]:
        """Bring the next batch to the GPU; addresses in TensorRT's order of inputs."""
        batch = self._batches.next()
        if batch is None:
            return None
        strange = [name for name in names if name not in batch]
        if strange or len(names) != len(batch):
            raise WorkerError(
                "data", "TensorRT asks for %s, batches hold %s" % (list(names), sorted(batch))
            )
        addresses = [
            self._memory.upload(
                name, converted(name, batch[name], self._given[name], self._types[name])
            )
            for name in names
        ]
        self._answers.send("batch", number=self._batches.taken - 1)
        return addresses

    def keep(self, cache: Any) -> None:
        """Write the table out as TensorRT gave it, and stop if only the table is wanted."""
        data = bytes(cache)
        if not self._batches.ended:
            raise WorkerError(
                "build",
                "TensorRT wrote a table after %d batches, before the end" % self._batches.taken,
            )
        path = Path(self._job["cache"])
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            part.rename(path)
        except OSError as error:
            raise WorkerError("disk", "cannot write the table: %s" % error, str(path)) from error
        self.result = dict(
            self._facts,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            batches=self._batches.taken,
            built=None,
        )
        if not self._job["whole_build"]:
            self._answers.send("result", **self.result)
            self._answers.leave(0)


def make_calibrator(trt: Any, job: Dict[str, Any], work: Work) -> Any:
    """Subclass the calibrator that the job names."""
    base = getattr(trt, CALIBRATORS[job["algorithm"]])  # type: Any
    # the bindings take None for "no cache" from 8.0 on, which is when this method came
    nothing = None if hasattr(trt.Builder, "build_serialized_network") else b""

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)  # the bindings insist

        def get_batch_size(self) -> int:
            return 1  # the batch axis is in the shapes; more confuses TensorRT 7

        def get_batch(self, names: Any, *_: Any) -> Any:
            return work.guarded(lambda: work.next_batch(list(names)))

        def read_calibration_cache(self, *_: Any) -> Any:
            return nothing

        def write_calibration_cache(self, cache: Any, *_: Any) -> None:
            work.guarded(lambda: work.keep(cache))

        # the rest is asked of Legacy calibrators only

        def get_quantile(self) -> float:
            return float(job["quantile"])

        def get_regression_cutoff(self) -> float:
            return float(job["cutoff"])

        def read_histogram_cache(self, *_: Any) -> None:
            return None

        def write_histogram_cache(self, *_: Any) -> None:
            return None

    return Calibrator()


def build(builder: Any, network: Any, config: Any) -> bool:
    """Let TensorRT build, which calibrates on the way."""
    if hasattr(builder, "build_serialized_network"):
        return builder.build_serialized_network(network, config) is not None
    return builder.build_engine(network, config) is not None


def run(job: Dict[str, Any], answers: Answers, log: TextIO) -> None:
    """Calibrate."""
    trt = import_tensorrt(job)
    memory = open_memory()
    facts = {
        "tensorrt": str(trt.__version__),
        "gpu": memory.gpu,
        "compute_capability": memory.compute_capability,
    }
    answers.send("hello", python=platform.python_version(), memory=memory.by, **facts)
    logger = make_logger(trt, log)
    builder = make_builder(trt, logger)
    network, parser = parse_network(trt, logger, builder, job["model"])
    types = check_inputs(network, job)
    config = make_config(trt, builder, network, job)
    unknown = set_ranges(network, job["ranges"])
    work = Work(
        job,
        answers,
        batches=Batches(job["batches"], job["inputs"], sys.stdin),
        memory=memory,
        types=types,
        facts=dict(facts, unknown_ranges=unknown),
    )
    calibrator = make_calibrator(trt, job, work)  # config keeps no reference that counts
    config.int8_calibrator = calibrator
    answers.send("building")
    built = build(builder, network, config)
    if work.result is None:
        if built and logger.skipped:
            what = "TensorRT skipped calibration, since every tensor has a range given"
        else:
            what = "TensorRT ended without a calibration table%s" % last_words(logger)
        remedy = ""
        if "memory" in last_words(logger).lower():
            remedy = "use a smaller --batch-size, or end what else runs on this GPU"
        raise WorkerError("build", what, remedy=remedy)
    answers.send("result", **dict(work.result, built=built))
    del parser


def main(arguments: List[str]) -> None:
    """Do the job whose file the command line names."""
    answers = Answers()
    try:
        job = json.loads(Path(arguments[0]).read_text("utf-8"))
        with Path(job["log"]).open("w", 1, encoding="utf-8", errors="replace") as log:
            run(job, answers, log)
    except BaseException as error:  # noqa: BLE001 - edgecal shall hear of everything
        answers.fail(error)
    answers.leave(0)


if __name__ == "__main__":
    main(sys.argv[1:])
