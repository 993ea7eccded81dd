"""A stand-in for NVIDIA's tensorrt: see README.md beside this folder.

A network is a JSON file here: `{"inputs": [[name, type, shape], ...], "tensors": [name, ...]}`.
"""

import ctypes
import hashlib
import json
import os
import signal
import sys
import time

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
MODE = os.environ.get("FAKE_TENSORRT_MODE", "")
MAJOR = int(__version__.split(".")[0])
OLD = MAJOR < 10
NO_POOLS = OLD and __version__ < "8.4"

if MODE == "import-error":
    raise ImportError("libnvinfer.so.10: cannot open shared object file: No such file or directory")


class _Enum:
    def __init__(self, kind: str, name: str, value: int) -> None:
        self.kind, self.name, self.value = kind, name, value

    def __int__(self) -> int:
        return self.value

    def __str__(self) -> str:
        return self.kind + "." + self.name


def _enum(kind: str, *names: str) -> type:
    return type(kind, (), {name: _Enum(kind, name, n) for n, name in enumerate(names)})


NetworkDefinitionCreationFlag = _enum(
    "NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", *([] if OLD else ["STRONGLY_TYPED"])
)
BuilderFlag = _enum("BuilderFlag", "FP16", "INT8")
if MAJOR < 11:
    QuantizationFlag = _enum("QuantizationFlag", "CALIBRATE_BEFORE_FUSION")
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
Severity = _enum("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


class ILogger:
    """To be subclassed."""

    def __init__(self) -> None:
        self.ready = True

    def log(self, severity: _Enum, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


class _Calibrator:
    word = ""

    def __init__(self) -> None:
        self.ready = True


if MAJOR < 11:

    class IInt8EntropyCalibrator2(_Calibrator):
        word = "EntropyCalibration2"

    class IInt8EntropyCalibrator(_Calibrator):
        word = "EntropyCalibration"

    class IInt8MinMaxCalibrator(_Calibrator):
        word = "MinMaxCalibration"

    class IInt8LegacyCalibrator(_Calibrator):
        word = "LegacyCalibration"


class _Tensor:
    is_shape_tensor = False

    def __init__(self, name: str, kind: str, shape: "list[int]") -> None:
        self.name, self.shape, self.dtype = name, tuple(shape), _Enum("DataType", kind, 0)
        self.range = None  # type: tuple[float, float] | None

    def set_dynamic_range(self, low: float, high: float) -> bool:
        self.range = (low, high)
        return True


class _Layer:
    num_outputs = 2

    def __init__(self, tensor: _Tensor) -> None:
        self.tensor = tensor

    def get_output(self, index: int) -> "_Tensor | None":
        return self.tensor if index == 0 else None  # absent optional outputs are None


class _Network:
    def __init__(self, flags: int) -> None:
        if OLD and not flags & 1:
            raise AssertionError("implicit batch")
        self.inputs = []  # type: list[_Tensor]
        self.layers = []  # type: list[_Layer]

    num_inputs = property(lambda self: len(self.inputs))
    num_layers = property(lambda self: len(self.layers))

    def get_input(self, index: int) -> _Tensor:
        return self.inputs[index]

    def get_layer(self, index: int) -> _Layer:
        return self.layers[index]


class _ParserError:
    def __init__(self, text: str) -> None:
        self.text = text

    def desc(self) -> str:
        return self.text


class OnnxParser:
    """Reads the JSON that stands for a network."""

    def __init__(self, network: _Network, logger: ILogger) -> None:
        self.network, self.num_errors = network, 0

    def parse_from_file(self, path: str) -> bool:
        if MODE == "parse-error":
            self.num_errors = 1
            return False
        with open(path, "rb") as stream:
            found = json.loads(stream.read().decode())
        self.network.inputs = [_Tensor(*one) for one in found["inputs"]]
        self.network.layers = [_Layer(_Tensor(name, "FLOAT", [])) for name in found["tensors"]]
        return True

    def get_error(self, index: int) -> _ParserError:
        return _ParserError("In node 3 (importFallbackPluginImporter): Plugin not found")


class _Profile:
    def __init__(self) -> None:
        self.shapes = {}  # type: dict[str, tuple[int, ...]]

    def set_shape(self, name: str, least: tuple, usual: tuple, most: tuple) -> None:
        assert least == usual == most
        self.shapes[name] = usual


class _Config:
    int8_calibrator = None

    def __init__(self) -> None:
        self.told = []  # type: list[str]
        self.profile = None

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("DLA_core", "default_device_type"):
            raise AssertionError("nobody calibrates with a DLA")
        if name == "max_workspace_size":
            assert NO_POOLS
            self.told.append("workspace %d" % value)
        object.__setattr__(self, name, value)

    def set_flag(self, flag: _Enum) -> None:
        self.told.append(str(flag))

    def set_quantization_flag(self, flag: _Enum) -> None:
        self.told.append(str(flag))

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profile = profile
        return 0

    def set_calibration_profile(self, profile: _Profile) -> bool:
        self.told.append("calibration profile %s" % sorted(profile.shapes.items()))
        return True


if not NO_POOLS:
    _Config.set_memory_pool_limit = lambda self, pool, size: self.told.append(
        "%s %d" % (pool, size)
    )


class Builder:
    """Feeds the calibrator, and tells in the table what it got."""

    platform_has_fast_int8 = MODE != "no-int8"
    platform_has_fast_fp16 = True

    def __init__(self, logger: ILogger) -> None:
        assert logger.ready
        self.logger = logger
        if MODE == "builder-error":
            logger.log(Severity.INTERNAL_ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def _build(self, network: _Network, config: _Config) -> "bytes | None":
        calibrator = config.int8_calibrator
        assert calibrator.ready
        for line in config.told:
            self.logger.log(Severity.VERBOSE, line)
        print("library chatter on stdout", flush=True)
        if self._trouble():
            return None
        names = [tensor.name for tensor in network.inputs]
        cache = _callback("read_calibration_cache", calibrator.read_calibration_cache)
        assert not cache
        digest, batches = hashlib.sha256(), 0
        dynamic = any(-1 in tensor.shape for tensor in network.inputs)
        assert dynamic == (config.profile is not None)
        while MODE != "skips":
            addresses = _callback("get_batch", lambda: calibrator.get_batch(names))
            if not addresses:
                break
            assert len(addresses) == len(names)
            for tensor, address in zip(network.inputs, addresses):
                digest.update(_held(tensor, address, config))
            batches += 1
            if MODE == "crash" and batches == 2:
                os.kill(os.getpid(), signal.SIGSEGV)
        if MODE == "skips":
            self.logger.log(
                Severity.INFO,
                "User provided dynamic ranges for all network tensors. Calibration skipped.",
            )
            return b"engine"
        if MODE == "no-scales":
            self.logger.log(Severity.ERROR, "Calibration failure occurred with no scaling factors")
            return None
        assert calibrator.get_batch_size() == 1
        table = _table(calibrator, network, digest.hexdigest(), batches)
        _callback(
            "write_calibration_cache", lambda: calibrator.write_calibration_cache(memoryview(table))
        )
        self.logger.log(Severity.INFO, "timing tactics")
        return None if MODE == "no-engine" else b"engine"

    def _trouble(self) -> bool:
        if MODE == "hang":
            time.sleep(600)
        if MODE == "exit":
            os._exit(7)
        if MODE == "python-error":
            raise RuntimeError("something of pybind")
        if MODE == "no-memory":
            self.logger.log(Severity.ERROR, "Cuda Runtime (out of memory)")
        return MODE == "no-memory"


def _held(tensor: _Tensor, address: int, config: _Config) -> bytes:
    """Look at what lies in the buffer of an input."""
    if MODE == "no-pycuda":  # then addresses are the host's own: see the tests' libcuda
        size = 4
        for extent in config.profile.shapes[tensor.name]:
            size *= extent
        return ctypes.string_at(address, size)
    from pycuda import driver

    return driver.HELD[address]


def _table(calibrator: _Calibrator, network: _Network, digest: str, batches: int) -> bytes:
    code = __version__.split(".")
    number = "%d%d%02d" if OLD else "%d%02d%02d"
    head = "TRT-" + number % (int(code[0]), int(code[1]), int(code[2])) + "-" + calibrator.word
    if calibrator.word == "LegacyCalibration":
        assert (calibrator.get_quantile(), calibrator.get_regression_cutoff()) == (1.0, 0.999999)
        assert calibrator.read_histogram_cache(0) is None
        head = "0 3ff0000000000000 3fefffeb074a771d"
    if MODE == "other-header":
        head = "TRT-7203-MinMaxCalibration"
    lines = [head]
    for tensor in network.inputs + [layer.tensor for layer in network.layers]:
        given = "" if tensor.range is None else " %g" % tensor.range[1]
        lines.append("%s%s: 3c010a14" % (tensor.name, given))
    lines.append("fed %d %s: 3c010a14" % (batches, digest))
    return ("\n".join(lines) + "\n").encode()


def _callback(name: str, call: "object") -> "object":
    """Call into Python as the bindings do: what is raised there is printed and lost."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - as they do
        print("[ERROR] Exception caught in %s(): %s" % (name, error), file=sys.stderr)
        return None


if OLD:
    Builder.build_engine = Builder._build
if not (OLD and __version__ < "8"):
    Builder.build_serialized_network = Builder._build


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    return True
