"""Builds and runs an engine by TensorRT's Python API on a target: one file, for Python 3.6 to 3.12.

    python3 -u tensorrt_builder.py build --model=M --engine=E [--calibration-cache=C] ...
    python3 -u tensorrt_builder.py run --engine=E --runs=SPEC --output=OUT [--bench=N]

TensorRT's own log goes to stdout at its most verbose, between lines of ours: JSON behind `MARK`,
which `edgecal.core.tensorrt_builder` reads. Of packages it takes `tensorrt` alone; device memory
comes from the driver's library by ctypes, so neither numpy nor pycuda has to be there.

What the API has is asked with hasattr, never by version. Written after the headers, bindings and
documentation of TensorRT 7.1 to 11; up to the builder it was run against real bindings of 8.5 to
11.4, but no GPU and no Jetson has run it yet.
"""

import argparse
import array
import contextlib
import ctypes
import json
import os
import platform
import re
import struct
import sys
import time
import traceback
import zipfile
from typing import Any, Dict, List, Optional, Sequence, Tuple

MARK = "edgecal-builder: "
FAILED = 3

CALIBRATORS = {
    "EntropyCalibration2": "IInt8EntropyCalibrator2",
    "EntropyCalibration": "IInt8EntropyCalibrator",
    "MinMaxCalibration": "IInt8MinMaxCalibrator",
    "LegacyCalibration": "IInt8LegacyCalibrator",
}
# these two calibrate after fusion unless told otherwise; edgecal's tables are made before
AFTER_FUSION = ("EntropyCalibration", "LegacyCalibration")
HEADER = re.compile(r"TRT-[0-9]+-(\w+)\s*")
# "0", quantile and cutoff as doubles in hex: apart in TensorRT 7, run together before
LEGACY_HEADER = re.compile(r"0 ?([0-9a-f]{16}) ?([0-9a-f]{16})\s*")

LETTERS = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I", "VERBOSE": "V"}
FLOATS = ("FLOAT", "HALF", "BF16")
ERRORS_KEPT = 3
# before memory pools (8.4) TensorRT's own default is none at all
USUAL_WORKSPACE_MIB = 1024
WARM_UP_RUNS = 10
LONGEST_LIST = 16384  # the log's reader takes no line of twice that

# how arrays of TensorRT's types are spelled in files; BF16 is widened
SPELLED = {
    "FLOAT": "<f4",
    "HALF": "<f2",
    "BF16": "<f4",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT8": "|i1",
    "UINT8": "|u1",
    "BOOL": "|b1",
}
ITEM_BYTES = dict.fromkeys(("HALF", "BF16"), 2)
ITEM_BYTES.update(dict.fromkeys(("INT8", "UINT8", "BOOL"), 1), FLOAT=4, INT32=4, INT64=8)
CODES = {"<f8": "d", "<f4": "f", "<i8": "q", "<i4": "i"}


class BuilderError(Exception):
    """Why there will be no engine, or no outputs: a code for edgecal, two parts for people."""

    def __init__(self, code: str, what: str, remedy: str = "") -> None:
        Exception.__init__(self, what)
        self.code = code
        self.what = what
        self.remedy = remedy


class Log:
    """Everything this program says, whole line by whole line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def tell(self, event: str, **fields: Any) -> None:
        """Write one line for edgecal; a line that a library left open is ended before."""
        self._write("\n" + MARK + json.dumps(dict(fields, event=event), sort_keys=True))

    def tell_list(self, event: str, items: Sequence[Any]) -> None:
        """Write a list as lines of bounded length; one item that exceeds it is left out."""
        part, size = [], 0  # type: List[Any], int
        for item in items:
            length = len(json.dumps(item)) + 2
            if length > LONGEST_LIST:
                continue
            if size + length > LONGEST_LIST:
                self.tell(event, items=part)
                part, size = [], 0
            part.append(item)
            size += length
        self.tell(event, items=part)

    def say(self, letter: str, message: str) -> None:
        """Write what TensorRT says; no line but the first begins at the margin."""
        self._write("[%s] %s" % (letter, re.sub(r"[\r\n]+", "\n    ", message.strip())))

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # where the disk is full, no engine is written either
            self._stream.write(text + "\n")


def open_log() -> Log:
    """Write lines to stdout at once, whatever its locale."""
    return Log(os.fdopen(os.dup(1), "w", 1, encoding="utf-8", errors="backslashreplace"))


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; the last lines are for people."""
    log = open_log()
    try:
        given = parse_arguments(arguments)
        if given.command == "build":
            build(given, log)
        else:
            run(given, log)
    except BuilderError as error:
        failure = error
    except MemoryError:
        failure = BuilderError("memory", "Python ran out of memory")
    except OSError as error:
        failure = BuilderError("disk", str(error), "check that the disk has room, and the rights")
    except Exception as error:  # noqa: BLE001 - the log must end with a reason, whatever it was
        traceback.print_exc()
        sys.stderr.flush()
        failure = BuilderError("internal", "%s: %s" % (type(error).__name__, error))
    else:
        return 0
    log.tell("failure", code=failure.code, what=failure.what, remedy=failure.remedy)
    log.say("E", failure.what + ("; try: " + failure.remedy if failure.remedy else ""))
    return FAILED


def parse_arguments(arguments: Sequence[str]) -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tensorrt_builder.py", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    building = commands.add_parser("build")
    building.add_argument("--model", required=True)
    building.add_argument("--engine", required=True)
    building.add_argument("--precision", choices=("int8", "fp16", "qdq"), default="int8")
    building.add_argument("--calibration-cache")
    building.add_argument("--no-fp16", action="store_true")
    building.add_argument("--dla", type=int)
    building.add_argument("--gpu-fallback", action="store_true")
    building.add_argument("--workspace-mib", type=int)
    building.add_argument("--timing-cache")
    building.add_argument("--fp16-layer", action="append", default=[])
    building.add_argument("--shape", action="append", default=[], metavar="NAME=1x3,2x3,4x3")
    running = commands.add_parser("run")
    running.add_argument("--engine", required=True)
    running.add_argument("--runs", required=True)
    running.add_argument("--output", required=True)
    running.add_argument("--dla", type=int)
    running.add_argument("--bench", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.command == "build":  # in a plain C locale Python 3.6 takes argv for ASCII
        for name in ("shape", "fp16_layer"):
            texts = [os.fsencode(text).decode("utf-8", "replace") for text in getattr(given, name)]
            setattr(given, name, texts)
    if given.command is None:  # argparse itself can ask for one from Python 3.7 on
        parser.error("expected build or run")
    if given.command == "build" and (given.precision == "int8") != bool(given.calibration_cache):
        parser.error("--calibration-cache goes with --precision=int8, and with nothing else")
    return given


def import_tensorrt() -> Any:
    """Import TensorRT."""
    try:
        import tensorrt
    except Exception as error:  # broken packages raise what they like
        raise BuilderError(
            "no-tensorrt",
            "%s (Python %s) cannot import tensorrt: %s"
            % (sys.executable, platform.python_version(), error),
            "install JetPack's package python3-libnvinfer, or build with trtexec",
        ) from error
    return tensorrt


def make_logger(trt: Any, log: Log, least: str) -> Any:
    """Make the logger that writes all TensorRT says, and keeps its last errors at hand."""
    order = list(LETTERS)
    wanted = order[: order.index(least) + 1]

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the bindings insist
            self.errors = []  # type: List[str]

        def log(self, severity: Any, msg: str) -> None:
            try:
                name = str(severity).split(".")[-1]
                if name in ("ERROR", "INTERNAL_ERROR"):
                    self.errors = [*self.errors, msg.strip()][-ERRORS_KEPT:]
                if name in wanted:
                    log.say(LETTERS[name], msg)
            except Exception:  # noqa: BLE001, S110 - raised into the bindings it ends the process
                pass

    return Logger()


def last_words(logger: Any) -> str:
    """Give TensorRT's last errors for the end of a sentence."""
    return ": " + "; ".join(logger.errors) if logger.errors else ""


# --- building -------------------------------------------------------------------------------------


def build(given: Any, log: Log) -> None:
    """Build the engine, tell what it was made of, and leave it whole or not at all."""
    began = time.time()
    trt = import_tensorrt()
    log.tell(
        "start",
        tensorrt=str(trt.__version__),
        python=platform.python_version(),
        precision=given.precision,
    )
    logger = make_logger(trt, log, "VERBOSE")
    calibrator = make_calibrator(trt, given.calibration_cache) if given.calibration_cache else None
    builder = make_builder(trt, logger)
    check_device(builder, given)
    network, parser = parse_network(trt, logger, builder, given)
    log.tell_list("tensors", float_tensors(network))
    config = make_config(trt, builder, given)
    add_profile(builder, network, config, given.shape)
    if calibrator is not None:
        config.int8_calibrator = calibrator  # the config keeps no reference that counts
    if given.fp16_layer and given.precision == "int8":
        keep_layers(trt, network, config, given, log)
    load_timing_cache(config, given.timing_cache, log)
    blob = build_engine(builder, network, config)
    if calibrator is not None and calibrator.data_asked:
        raise BuilderError(
            "refused",
            "TensorRT refused the calibration cache and asked for data to calibrate",
            "compare the cache's TensorRT and calibrator with the target's",
        )
    if blob is None:
        raise BuilderError(
            "build",
            "TensorRT built no engine" + last_words(logger),
            "read the log above; if memory was short, stop other programs on the target first",
        )
    if calibrator is not None and calibrator.reads == 0:
        raise BuilderError(
            "unread",
            "TensorRT never read the calibration cache, so the engine's scales are made up",
            "push with trtexec, and keep this log",
        )
    write_whole(given.engine, blob)
    log.tell(
        "built",
        bytes=len(blob),
        seconds=round(time.time() - began, 3),
        cache_reads=calibrator.reads if calibrator is not None else 0,
    )
    save_timing_cache(config, given.timing_cache, log)
    # a Jetson has one memory for all: what built the engine goes before it is loaded
    del config, network, parser, builder
    tell_layers(trt, logger, blob, given.dla, log)


def make_builder(trt: Any, logger: Any) -> Any:
    """Start TensorRT."""
    try:
        return trt.Builder(logger)
    except Exception as error:  # pybind's TypeError says nothing, the log does
        raise BuilderError(
            "cuda",
            "TensorRT cannot start" + (last_words(logger) or ": %s" % error),
            "check that this user may open the GPU (groups video and render), and its driver",
        ) from error


def make_calibrator(trt: Any, path: str) -> Any:
    """Make a calibrator of the kind that the cache's header names; it has nothing but the cache."""
    with open(path, "rb") as stream:
        data = stream.read()
    algorithm, quantile, cutoff = read_header(data)
    base = getattr(trt, CALIBRATORS[algorithm], None)  # type: Any
    if base is None:
        raise BuilderError(
            "no-calibrators",
            "TensorRT %s has no %s: it takes no calibration cache"
            % (trt.__version__, CALIBRATORS[algorithm]),
            "push a bundle of the form qdq, whose network carries the scales",
        )

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)  # the bindings insist
            self.reads = 0
            self.data_asked = False

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, *_: Any) -> Any:
            self.data_asked = True  # TensorRT asks only where it does not take the cache

        def read_calibration_cache(self, *_: Any) -> Any:
            self.reads += 1
            return data

        def write_calibration_cache(self, *_: Any) -> None:
            self.data_asked = True  # it would write only what it measured itself

        # the rest is asked of Legacy calibrators only

        def get_quantile(self) -> float:
            return quantile

        def get_regression_cutoff(self) -> float:
            return cutoff

        read_histogram_cache = write_histogram_cache = nothing

    return Calibrator()


def nothing(*_: Any) -> None:
    """Keep no histograms."""


def read_header(data: bytes) -> Tuple[str, float, float]:
    """Find the calibrator that a cache is for, with quantile and cutoff of a Legacy one."""
    first = data.split(b"\n", 1)[0].decode("utf-8", "replace")
    match = HEADER.match(first)
    if match and match.group(1) in CALIBRATORS:
        return match.group(1), 1.0, 0.999999
    legacy = LEGACY_HEADER.match(first)
    if legacy:
        doubles = [struct.unpack(">d", bytes.fromhex(text))[0] for text in legacy.groups()]
        return "LegacyCalibration", doubles[0], doubles[1]
    raise BuilderError(
        "cache",
        "the calibration cache begins with %r, which names no calibrator of TensorRT" % first[:60],
        "push again; the file lies in the job's folder",
    )


def check_device(builder: Any, given: Any) -> None:
    """Refuse a GPU without INT8, and a DLA core that TensorRT does not see here."""
    if given.precision == "int8" and not getattr(builder, "platform_has_fast_int8", True):
        raise BuilderError(
            "gpu", "TensorRT says that this GPU has no INT8", "push with --precision fp16"
        )
    core = given.dla
    if core is not None and not 0 <= core < int(builder.num_DLA_cores):
        raise BuilderError(
            "dla",
            "TensorRT sees %d DLA cores here, and core %d was asked for"
            % (builder.num_DLA_cores, core),
            "build for the GPU, or for another core",
        )


def parse_network(trt: Any, logger: Any, builder: Any, given: Any) -> Any:
    """Read the ONNX file into a network, of strong types where it carries its own scales."""
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    kinds = trt.NetworkDefinitionCreationFlag
    names = ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if given.precision == "qdq" else [])
    flags = sum(1 << int(getattr(kinds, name)) for name in names if hasattr(kinds, name))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if hasattr(parser, "parse_from_file"):  # finds weights in files beside the model
        parsed = parser.parse_from_file(given.model)
    else:
        with open(given.model, "rb") as stream:
            parsed = parser.parse(stream.read())
    if not parsed:
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        told = "; ".join(str(error.desc()) for error in errors[:ERRORS_KEPT])
        raise BuilderError(
            "model",
            "TensorRT cannot read the network: %s" % (told or last_words(logger)[2:]),
            "export it for the operators of this TensorRT; plugins must be of NVIDIA's own library",
        )
    check_pairs(network, given.precision)
    return network, parser  # the parser owns weights that the network points to


def check_pairs(network: Any, precision: str) -> None:
    """Hold the network's own Q/DQ nodes against the way it is to be built."""
    quantized = any(
        str(network.get_layer(number).type).split(".")[-1] in ("QUANTIZE", "DEQUANTIZE")
        for number in range(network.num_layers)
    )
    if quantized and precision == "int8":
        raise BuilderError(
            "model",
            "the network has Q/DQ nodes of its own, beside which TensorRT ignores a cache",
            "push it as a bundle of the form qdq, or calibrate the network without these nodes",
        )
    if precision == "qdq" and not quantized:
        raise BuilderError(
            "model",
            "this TensorRT finds no Q/DQ nodes in the network, so nothing would run in INT8",
            "TensorRT 8 is the first that knows them; otherwise make the bundle again",
        )


def float_tensors(network: Any) -> List[str]:
    """Name the inputs and layer outputs that hold floats: what may have a scale."""
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        tensors += [layer.get_output(position) for position in range(layer.num_outputs)]
    return [tensor.name for tensor in tensors if is_float(tensor)]


def is_float(tensor: Any) -> bool:
    """Tell whether a tensor holds floats; absent optional outputs are None."""
    return tensor is not None and str(tensor.dtype).split(".")[-1] in FLOATS


def make_config(trt: Any, builder: Any, given: Any) -> Any:
    """Say how to build."""
    config = builder.create_builder_config()
    if hasattr(config, "set_memory_pool_limit"):
        if given.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, given.workspace_mib << 20)
    else:
        config.max_workspace_size = (given.workspace_mib or USUAL_WORKSPACE_MIB) << 20
    verbosity = getattr(trt, "ProfilingVerbosity", None)  # type: Any
    if hasattr(verbosity, "DETAILED") and hasattr(config, "profiling_verbosity"):
        config.profiling_verbosity = verbosity.DETAILED  # else layers tell nothing but names
    for name in wanted_flags(trt, given):
        if not hasattr(trt.BuilderFlag, name):
            raise BuilderError(
                "no-weak-types",
                "TensorRT %s has no BuilderFlag.%s: types come from the network alone"
                % (trt.__version__, name),
                "push a bundle of the form qdq, with FP16 in the network where it is wanted",
            )
        config.set_flag(getattr(trt.BuilderFlag, name))
    if given.calibration_cache and hasattr(config, "set_quantization_flag"):
        with open(given.calibration_cache, "rb") as stream:
            algorithm = read_header(stream.read(200))[0]
        if algorithm in AFTER_FUSION:
            config.set_quantization_flag(trt.QuantizationFlag.CALIBRATE_BEFORE_FUSION)
    if given.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = given.dla
        if given.gpu_fallback:
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    return config


def wanted_flags(trt: Any, given: Any) -> List[str]:
    """List the types that TensorRT may choose from, beside FP32."""
    if given.precision == "fp16":
        return ["FP16"]
    flags = ["INT8"] + ([] if given.no_fp16 else ["FP16"])
    if given.precision == "qdq":
        strong = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        return [] if strong or not hasattr(trt.BuilderFlag, "INT8") else flags
    return flags


def add_profile(builder: Any, network: Any, config: Any, shapes: Sequence[str]) -> None:
    """Set the shapes of inputs with dimensions that are open: least, usual, largest."""
    given = dict(parse_shape(text) for text in shapes)
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    for tensor in tensors:
        if getattr(tensor, "is_shape_tensor", False):
            raise BuilderError(
                "model",
                "input %s holds a shape, for which edgecal has no profile" % tensor.name,
                "make it a constant of the network",
            )
    dynamic = [tensor for tensor in tensors if -1 in tuple(tensor.shape)]
    missing = [tensor.name for tensor in dynamic if tensor.name not in given]
    if missing:
        raise BuilderError(
            "model", "no shape is given for the dynamic inputs %s" % ", ".join(missing)
        )
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        profile.set_shape(tensor.name, *given[tensor.name])
    if config.add_optimization_profile(profile) < 0:
        raise BuilderError(
            "model",
            "TensorRT refuses the shapes %s" % "; ".join(shapes),
            "give shapes of the network's rank that agree with its fixed dimensions",
        )
    # with a cache nothing is measured, but dynamic networks want one; its usual shape counts
    if hasattr(config, "int8_calibrator") and hasattr(config, "set_calibration_profile"):
        config.set_calibration_profile(profile)


def parse_shape(text: str) -> Tuple[str, List[Tuple[int, ...]]]:
    """Read NAME=SHAPE, or NAME=LEAST,USUAL,LARGEST, where a name may hold anything."""
    name, _, shapes = text.rpartition("=")
    found = [tuple(int(size) for size in one.split("x") if size) for one in shapes.split(",")]
    return name, found * 3 if len(found) == 1 else found


def keep_layers(trt: Any, network: Any, config: Any, given: Any, log: Log) -> None:
    """Keep layers out of INT8, as far as they compute floats."""
    wanted = set(given.fp16_layer)
    unknown = set(wanted)
    kind = trt.float32 if given.no_fp16 else trt.float16
    kept, skipped = [], []  # type: List[str], List[str]
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        # metadata (from 8.6) names the ONNX node also where the layer had to be called otherwise
        names = {layer.name, *re.findall(r"\[ONNX Layer: ([^\]]*)\]", layer_metadata(layer))}
        hit = names & wanted
        unknown -= hit
        if hit:
            (kept if set_precision(layer, kind) else skipped).append(layer.name)
    log.tell_list("kept", kept)
    log.tell_list("not-kept", skipped)
    log.tell_list("unknown", sorted(unknown))
    flags = trt.BuilderFlag
    # of a DLA even trtexec asks no more than to prefer; STRICT_TYPES is what was before 8.2
    obey = "PREFER_" if given.dla is not None else "OBEY_"
    for name in (obey + "PRECISION_CONSTRAINTS", "STRICT_TYPES"):
        if hasattr(flags, name):
            config.set_flag(getattr(flags, name))
            return


def layer_metadata(layer: Any) -> str:
    """Give what the parser wrote down about a layer's origin; nothing before 8.6."""
    return str(getattr(layer, "metadata", "") or "")


def set_precision(layer: Any, kind: Any) -> bool:
    """Fix the type in which one layer computes, and of what it gives; False where there is none."""
    outputs = [layer.get_output(position) for position in range(layer.num_outputs)]
    floats = [
        position
        for position, tensor in enumerate(outputs)
        if is_float(tensor) and not getattr(tensor, "is_shape_tensor", False)
    ]
    # constants give what they hold, and shapes are no floats: TensorRT refuses both in the build
    if not floats or str(layer.type).split(".")[-1] in ("CONSTANT", "SHAPE"):
        return False
    layer.precision = kind
    for position in floats:
        layer.set_output_type(position, kind)
    return True


def load_timing_cache(config: Any, path: Optional[str], log: Log) -> None:
    """Let TensorRT know what it timed before; nothing about it may end a build."""
    if path is None or not hasattr(config, "create_timing_cache"):
        return
    state = "new"
    try:
        with open(path, "rb") as stream:
            kept = stream.read()
    except OSError:
        kept = b""
    for data in (kept, b"") if kept else (b"",):
        try:
            cache = config.create_timing_cache(data)
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                state = "read" if data else state
                break
        except Exception as error:  # noqa: BLE001 - what is no timing cache raises, by version
            log.say("W", "the timing cache is of no use: %s" % error)
        state = "replaced"
    log.tell("timing-cache", state=state, bytes=len(kept))


def save_timing_cache(config: Any, path: Optional[str], log: Log) -> None:
    """Keep what TensorRT timed."""
    if path is None or not hasattr(config, "get_timing_cache"):
        return
    try:
        cache = config.get_timing_cache()
        if cache is not None:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            write_whole(path, cache.serialize())
    except Exception as error:  # noqa: BLE001 - the engine is there: a lost cache costs minutes
        log.say("W", "the timing cache could not be kept: %s" % error)


def build_engine(builder: Any, network: Any, config: Any) -> Any:
    """Let TensorRT build; None if it does not."""
    if hasattr(builder, "build_serialized_network"):
        blob = builder.build_serialized_network(network, config)
    else:
        engine = builder.build_engine(network, config)
        blob = None if engine is None else engine.serialize()
    return None if blob is None else memoryview(blob)


def write_whole(path: str, data: Any) -> None:
    """Write a file under another name, and rename it once it is on the disk."""
    part = "%s.%d.part" % (path, os.getpid())
    try:
        with open(part, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def tell_layers(trt: Any, logger: Any, blob: Any, dla: Optional[int], log: Log) -> None:
    """Tell the engine's layers and their types; the engine is there whether or not that works."""
    try:
        engine = load_engine(trt, logger, blob, dla)[0]
        if engine is None or not hasattr(engine, "create_engine_inspector"):
            return
        inspector = engine.create_engine_inspector()
        layers = []
        for number in range(engine.num_layers):
            text = inspector.get_layer_information(number, trt.LayerInformationFormat.JSON)
            one = json.loads(text)
            if isinstance(one, dict):
                outputs = [str(output.get("Format/Datatype")) for output in one["Outputs"]]
                layers.append([str(one.get("Name")), str(one.get("LayerType")), outputs])
        log.tell_list("layers", layers)
    except Exception as error:  # noqa: BLE001 - see above
        log.say("W", "the engine's layers cannot be listed: %s" % error)


def load_engine(trt: Any, logger: Any, blob: Any, dla: Optional[int]) -> Tuple[Any, Any]:
    """Make an engine of its bytes; the runtime has to outlive it."""
    runtime = trt.Runtime(logger)
    if dla is not None:
        runtime.DLA_core = dla
    return runtime.deserialize_cuda_engine(blob), runtime


# --- running --------------------------------------------------------------------------------------


class Cuda:
    """Device memory by the driver's library, in the primary context, which TensorRT uses too.

    The only place that calls CUDA. The driver's library has one name whatever the CUDA version,
    and every process that uses the GPU has it.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise BuilderError(
                "cuda", "the driver's library cannot be loaded: %s" % error
            ) from error
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._buffers = {}  # type: Dict[str, Tuple[int, int]]
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        self.stream = stream.value or 0

    def buffer(self, name: str, size: int) -> int:
        """Give the address of a buffer of so many bytes, the same as before if that fits."""
        address, room = self._buffers.get(name, (0, 0))
        if room < size or not address:
            if address:
                self._call("cuMemFree_v2", ctypes.c_uint64(address))
            made = ctypes.c_uint64()
            self._call("cuMemAlloc_v2", ctypes.byref(made), ctypes.c_size_t(max(size, 1)))
            address = made.value
            self._buffers[name] = (address, size)
        return address

    def upload(self, address: int, data: bytes) -> None:
        """Copy bytes to the device."""
        if data:
            size = ctypes.c_size_t(len(data))
            self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_char_p(data), size)

    def clear(self, address: int, size: int) -> None:
        """Fill with a pattern that makes NaN of floats: what nobody writes must not look right."""
        if size:
            self._call(
                "cuMemsetD8_v2", ctypes.c_uint64(address), ctypes.c_ubyte(0xFF),
                ctypes.c_size_t(size),
            )  # fmt: skip

    def download(self, address: int, size: int) -> bytes:
        """Copy bytes from the device."""
        room = ctypes.create_string_buffer(max(size, 1))
        if size:
            self._call("cuMemcpyDtoH_v2", room, ctypes.c_uint64(address), ctypes.c_size_t(size))
        return room.raw[:size]

    def wait(self) -> None:
        """Wait until all that was started is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:  # a CUresult of cuda.h; 2 is out of memory
            raise BuilderError(
                "memory" if status == 2 else "cuda",
                "%s gave CUDA error %d" % (function, status),
                "check that this user may open the GPU, and that memory is free",
            )


class ByName:
    """Inputs and outputs of an engine by name, as from TensorRT 8.5 on."""

    def __init__(self, engine: Any, context: Any, cuda: Cuda) -> None:
        self._engine, self._context, self._cuda = engine, context, cuda
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        modes = {name: str(engine.get_tensor_mode(name)).split(".")[-1] for name in names}
        self.inputs = [name for name in names if modes[name] == "INPUT"]
        self.outputs = [name for name in names if name not in self.inputs]

    def kind(self, name: str) -> str:
        """Give the type of a tensor, in TensorRT's word."""
        return str(self._engine.get_tensor_dtype(name)).split(".")[-1]

    def set_shape(self, name: str, shape: Tuple[int, ...]) -> bool:
        """Set the shape of an input."""
        return bool(self._context.set_input_shape(name, shape))

    def shape(self, name: str) -> Tuple[int, ...]:
        """Give a shape, once those of all inputs are set."""
        return tuple(int(size) for size in self._context.get_tensor_shape(name))

    def execute(self, addresses: Dict[str, int]) -> bool:
        """Run once."""
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        done = self._context.execute_async_v3(stream_handle=self._cuda.stream)
        self._cuda.wait()
        return bool(done)


class ByIndex:
    """The same by index, before."""

    def __init__(self, engine: Any, context: Any) -> None:
        self._engine, self._context = engine, context
        self._names = [engine.get_binding_name(number) for number in range(engine.num_bindings)]
        self.inputs = [name for name in self._names if engine.binding_is_input(name)]
        self.outputs = [name for name in self._names if name not in self.inputs]

    def kind(self, name: str) -> str:
        """Give the type of a tensor, in TensorRT's word."""
        return str(self._engine.get_binding_dtype(self._names.index(name))).split(".")[-1]

    def set_shape(self, name: str, shape: Tuple[int, ...]) -> bool:
        """Set the shape of an input."""
        return bool(self._context.set_binding_shape(self._names.index(name), shape))

    def shape(self, name: str) -> Tuple[int, ...]:
        """Give a shape, once those of all inputs are set."""
        return tuple(int(size) for size in self._context.get_binding_shape(self._names.index(name)))

    def execute(self, addresses: Dict[str, int]) -> bool:
        """Run once."""
        return bool(self._context.execute_v2([addresses[name] for name in self._names]))


def run(given: Any, log: Log) -> None:
    """Run the engine on every golden input and write all outputs as one .npz file."""
    with open(given.runs, encoding="utf-8") as stream:
        spec = json.load(stream)
    with open(given.engine, "rb") as binary:
        blob = binary.read()
    trt = import_tensorrt()
    logger = make_logger(trt, log, "WARNING")
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    cuda = Cuda()
    engine, runtime = load_engine(trt, logger, blob, given.dla)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        raise BuilderError(
            "engine",
            "TensorRT cannot load the engine" + last_words(logger),
            "push with --rebuild: engines fit the TensorRT and the GPU that built them alone",
        )
    by_name = hasattr(engine, "num_io_tensors")
    tensors = ByName(engine, context, cuda) if by_name else ByIndex(engine, context)  # type: Any
    arrays = [("names", *text_array(tensors.outputs))]
    for number, inputs in enumerate(spec):
        addresses = feed(tensors, cuda, inputs)
        if not tensors.execute(addresses):
            raise BuilderError("engine", "the engine failed to run" + last_words(logger))
        for position, name in enumerate(tensors.outputs):
            arrays.append(("%d/%d" % (number, position), *fetch(tensors, cuda, name)))
    if given.bench and spec:
        times = measure(tensors, cuda, spec[0], given.bench)
        packed = array.array("d", times).tobytes()
        arrays.append(("latency_ms", "<f8", (len(times),), packed))
    write_arrays(given.output, arrays)
    log.tell("ran", runs=len(spec), outputs=tensors.outputs)
    del context, engine, runtime


def feed(tensors: Any, cuda: Cuda, inputs: Sequence[Dict[str, Any]]) -> Dict[str, int]:
    """Bring the inputs of one run to the device; addresses of everything, by name."""
    files = {one["name"]: one for one in inputs}
    if sorted(files) != sorted(tensors.inputs):
        raise BuilderError(
            "engine",
            "the engine's inputs are %s, the golden ones %s"
            % (sorted(tensors.inputs), sorted(files)),
        )
    addresses = {}
    for name, one in files.items():
        shape = tuple(int(size) for size in one["shape"])
        if not tensors.set_shape(name, shape):
            raise BuilderError("engine", "the engine refuses the shape %s of %s" % (shape, name))
        with open(one["file"], "rb") as stream:
            data = converted(name, stream.read(), one["dtype"], tensors.kind(name))
        if len(data) != size_of(name, tensors.shape(name), tensors.kind(name)):
            raise BuilderError(
                "engine", "%s holds %d bytes, not %s" % (one["file"], len(data), shape)
            )
        addresses[name] = cuda.buffer("in " + name, len(data))
        cuda.upload(addresses[name], data)
    for name in tensors.outputs:
        size = size_of(name, tensors.shape(name), tensors.kind(name))
        addresses[name] = cuda.buffer("out " + name, size)
        cuda.clear(addresses[name], size)
    return addresses


def converted(name: str, data: bytes, have: str, kind: str) -> bytes:
    """Turn numbers into the engine's: TensorRT before 10 takes INT64 inputs as INT32."""
    want = SPELLED.get(kind, "")
    if have == want and kind != "BF16":
        return data
    if have in CODES and want in CODES and have[1] == want[1] and kind != "BF16":
        try:
            return array.array(CODES[want], array.array(CODES[have], data)).tobytes()
        except OverflowError as error:
            raise BuilderError(
                "engine", "input %s holds numbers beyond %s" % (name, kind)
            ) from error
    raise BuilderError(
        "engine", "input %s is %s for the engine, the file holds %s" % (name, kind, have)
    )


def size_of(name: str, shape: Tuple[int, ...], kind: str) -> int:
    """Count the bytes of a tensor."""
    if min(shape, default=0) < 0:
        raise BuilderError("engine", "the shape of %s hangs on the data: %s" % (name, shape))
    if kind not in ITEM_BYTES:
        raise BuilderError("engine", "%s is %s, which cannot be compared" % (name, kind))
    size = ITEM_BYTES[kind]
    for extent in shape:
        size *= extent
    return size


def fetch(tensors: Any, cuda: Cuda, name: str) -> Tuple[str, Tuple[int, ...], bytes]:
    """Take an output from the device: how its type is spelled, shape, values."""
    shape, kind = tensors.shape(name), tensors.kind(name)
    size = size_of(name, shape, kind)
    data = cuda.download(cuda.buffer("out " + name, size), size)
    if kind == "BF16":  # the upper half of a float
        data = array.array("I", (value << 16 for value in array.array("H", data))).tobytes()
    return SPELLED[kind], shape, data


def measure(tensors: Any, cuda: Cuda, inputs: Sequence[Dict[str, Any]], count: int) -> List[float]:
    """Time single runs by the wall clock, in milliseconds, copies there and back included."""
    addresses = feed(tensors, cuda, inputs)
    sizes = {name: size_of(name, tensors.shape(name), tensors.kind(name)) for name in addresses}
    data = {name: cuda.download(addresses[name], sizes[name]) for name in tensors.inputs}
    times = []
    for number in range(WARM_UP_RUNS + count):
        began = time.perf_counter()
        for name in tensors.inputs:
            cuda.upload(addresses[name], data[name])
        tensors.execute(addresses)
        for name in tensors.outputs:
            cuda.download(addresses[name], sizes[name])
        if number >= WARM_UP_RUNS:
            times.append(1000 * (time.perf_counter() - began))
    return times


def text_array(texts: Sequence[str]) -> Tuple[str, Tuple[int, ...], bytes]:
    """Spell texts as an array of numpy's fixed-width ones."""
    width = max([len(text) for text in texts] + [1])
    data = b"".join(
        text.encode("utf-32-le", "surrogatepass").ljust(4 * width, b"\0") for text in texts
    )
    return "<U%d" % width, (len(texts),), data


def write_arrays(path: str, arrays: Sequence[Tuple[str, str, Tuple[int, ...], bytes]]) -> None:
    """Write an .npz file without numpy (format 1.0 of numpy.lib.format)."""
    part = "%s.%d.part" % (path, os.getpid())
    with zipfile.ZipFile(part, "w") as archive:
        for name, spelled, shape, data in arrays:
            header = repr({"descr": spelled, "fortran_order": False, "shape": shape})
            header += " " * (-(len(header) + 11) % 64) + "\n"
            head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("latin-1")
            archive.writestr(zipfile.ZipInfo(name + ".npy"), head + data)
    os.rename(part, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
