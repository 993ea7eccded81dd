"""The target's builder script against TensorRT's real Python bindings, up to `Builder(...)`.

As for the host's worker: every Python that `EDGECAL_TENSORRT_PYTHONS` names is asked, libraries are
empty ones, every attribute that the script uses must be one of the real classes, and its
calibrators are called through the virtual functions of the bindings' C++ classes.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.integration.test_trt_worker_api import PYTHONS, stubs

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
SCRIPT: Final = CHECKOUT / "edgecal" / "target_scripts" / "tensorrt_builder.py"

__all__ = ["stubs"]

# runs in the Python that has the bindings, 3.6 or later; prints one line of JSON
PROBE: Final = r'''
import ctypes, importlib.util, io, json, os, sys, tempfile, warnings
from unittest import mock
spec = importlib.util.spec_from_file_location("tensorrt_builder", sys.argv[1])
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
warnings.simplefilter("ignore")
import tensorrt as trt
major = int(trt.__version__.split(".")[0])
os.chdir(tempfile.mkdtemp())
said = {"version": trt.__version__, "calls": [], "failures": {}}
CACHE = b"TRT-8502-%s\nx: 3c010a14\n"

def like(kind, **values):
    made = mock.NonCallableMagicMock(spec_set=getattr(trt, kind))
    for name, value in values.items():
        setattr(made, name, value)  # refused where the real class has no such attribute
    return made

def virtual(calibrator, slot, gives, *takes):
    """A function of the C++ object behind a calibrator (Itanium ABI, 64 bits)."""
    this = ctypes.c_void_p.from_address(id(calibrator) + 16).value
    table = ctypes.c_void_p.from_address(this).value
    function = ctypes.c_void_p.from_address(table + 8 * slot).value
    return lambda *given: ctypes.CFUNCTYPE(gives, ctypes.c_void_p, *takes)(function)(this, *given)

def call_as_tensorrt_does(calibrator, data):
    first = 4 if major >= 10 else 0  # versioned interfaces begin with four functions of their own
    pointer = ctypes.c_void_p
    assert virtual(calibrator, first, ctypes.c_int)() == 1
    length = ctypes.c_size_t(0)
    at = virtual(calibrator, first + 2, pointer, pointer)(ctypes.addressof(length))
    assert ctypes.string_at(at, length.value) == data
    assert (calibrator.reads, calibrator.data_asked) == (1, False)
    names, bindings = (ctypes.c_char_p * 1)(b"x"), (pointer * 1)()
    get = virtual(calibrator, first + 1, ctypes.c_bool, pointer, pointer, ctypes.c_int)
    assert not get(ctypes.addressof(bindings), ctypes.addressof(names), 1)
    assert calibrator.data_asked

def arguments(*more):
    return script.parse_arguments(["build", "--model=m", "--engine=e", "--workspace-mib=64",
        "--fp16-layer=conv", "--shape=x=1x3", "--timing-cache=timing"] + list(more))

def stand_ins():
    config = like("IBuilderConfig")
    config.add_optimization_profile.return_value = 0
    config.get_timing_cache.return_value.serialize.return_value = b"timed"
    tensor = like("ITensor", dtype=trt.float32, shape=(-1, 3), is_shape_tensor=False)
    tensor.name = "x"
    layer = like("ILayer", num_outputs=1, type=trt.LayerType.CONVOLUTION)
    layer.name = "conv"
    layer.get_output.return_value = tensor
    network = like("INetworkDefinition", num_inputs=1, num_layers=1)
    network.get_input.return_value, network.get_layer.return_value = tensor, layer
    builder = like("Builder", num_DLA_cores=2)
    builder.create_builder_config.return_value = config
    builder.create_network.return_value = network
    builder.create_optimization_profile.return_value = like("IOptimizationProfile")
    builder.build_serialized_network.return_value = b"engine"
    return builder, network, layer, config

def build(given, pairs):
    builder, network, layer, config = stand_ins()
    if pairs:
        layer.type = trt.LayerType.QUANTIZE
    calibrators = []
    def take(builder, network, config):
        calibrators.append(config)
        if given.calibration_cache:
            config.int8_calibrator.read_calibration_cache()
        return memoryview(b"engine")
    runtime = like("Runtime")
    engine = like("ICudaEngine", num_layers=1)
    runtime.deserialize_cuda_engine.return_value = engine
    inspector = like("EngineInspector")
    engine.create_engine_inspector.return_value = inspector
    inspector.get_layer_information.return_value = '{"Name": "conv", "Outputs": []}'
    parser = like("OnnxParser", num_errors=0)
    with mock.patch.object(trt, "OnnxParser", return_value=parser), mock.patch.object(
        trt, "init_libnvinfer_plugins"), mock.patch.object(script, "make_builder",
        return_value=builder), mock.patch.object(script, "build_engine", take), mock.patch.object(
        trt, "Runtime", return_value=runtime):
        text = io.StringIO()
        script.build(given, script.Log(text))
    flags = [str(one[0][0]).split(".")[-1] for one in config.set_flag.call_args_list]
    assert inspector.get_layer_information.call_args[0][1] == trt.LayerInformationFormat.JSON
    said["calls"] += sorted({str(one)[5:].split("(")[0] for one in config.mock_calls})
    return flags, builder.create_network.call_args[0][0], text.getvalue(), layer

# the empty library gives no builder
logger = script.make_logger(trt, script.Log(io.StringIO()), "VERBOSE")
trt.ILogger.log(logger, trt.ILogger.Severity.ERROR, "bad")  # through the bindings
assert logger.errors == ["bad"]
try:
    script.make_builder(trt, logger)
    raise AssertionError("an empty library gave a builder")
except script.BuilderError as error:
    assert error.code == "cuda", error.code

for algorithm in sorted(script.CALIBRATORS):
    data = CACHE % algorithm.encode()
    with open("cache", "wb") as stream:
        stream.write(data)
    try:
        calibrator = script.make_calibrator(trt, "cache")
    except script.BuilderError as error:
        said["failures"][algorithm] = error.code
        continue
    assert isinstance(calibrator, getattr(trt, script.CALIBRATORS[algorithm]))
    call_as_tensorrt_does(calibrator, data)
    flags, kinds, text, layer = build(
        arguments("--calibration-cache=cache", "--dla=1", "--gpu-fallback"), False)
    assert flags == ["INT8", "FP16", "GPU_FALLBACK", "PREFER_PRECISION_CONSTRAINTS"], flags
    assert layer.precision == trt.float16
    assert kinds == 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    assert '"event": "built"' in text and '"event": "layers"' in text, text

flags, kinds, text, layer = build(arguments("--precision=qdq"), True)
strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
assert flags == ([] if strong else ["INT8", "FP16"]), flags
assert strong is None or kinds & 1 << int(strong)
try:
    said["fp16"] = build(arguments("--precision=fp16"), False)[0]
except script.BuilderError as error:
    said["failures"]["fp16"] = error.code

# running: what is asked of engine and context must be there
context = like("IExecutionContext")
engine = like("ICudaEngine", num_io_tensors=2)
engine.get_tensor_name.side_effect = ["x", "y"]
engine.get_tensor_mode.side_effect = [trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT]
engine.get_tensor_dtype.return_value = trt.float32
context.get_tensor_shape.return_value = (1, 3)
named = script.ByName(engine, context, mock.Mock(stream=7))
assert (named.inputs, named.outputs) == (["x"], ["y"])
assert (named.kind("x"), named.shape("y")) == ("FLOAT", (1, 3))
assert named.set_shape("x", (1, 3)) and named.execute({"x": 4096, "y": 8192})
assert context.execute_async_v3.call_args == mock.call(stream_handle=7)
if hasattr(trt.ICudaEngine, "num_bindings"):
    engine = like("ICudaEngine", num_bindings=2)
    engine.get_binding_name.side_effect = ["x", "y"]
    engine.binding_is_input.side_effect = lambda name: name == "x"
    engine.get_binding_dtype.return_value = trt.float32
    context.get_binding_shape.return_value = (1, 3)
    indexed = script.ByIndex(engine, context)
    assert (indexed.inputs, indexed.kind("y"), indexed.shape("y")) == (["x"], "FLOAT", (1, 3))
    assert indexed.set_shape("x", (1, 3)) and indexed.execute({"x": 4096, "y": 8192})
    assert context.execute_v2.call_args == mock.call([4096, 8192])
types = {str(getattr(trt.DataType, one)).split(".")[-1] for one in script.SPELLED
         if hasattr(trt.DataType, one)}
assert types <= set(script.SPELLED)
print("probe: " + json.dumps(said))
'''


@pytest.mark.parametrize("python", PYTHONS)
def test_the_builder_script_fits_the_real_bindings(python: str, stubs: Path) -> None:
    find = "import importlib.util as u, sys; sys.exit(u.find_spec('tensorrt_bindings') is None)"
    has_bindings = subprocess.run([python, "-c", find], check=False).returncode == 0
    if (
        not has_bindings
        and subprocess.run([python, "-c", find.replace("_bindings", "")], check=False).returncode
    ):
        pytest.skip(f"needs tensorrt or its bindings: {python} has none (EDGECAL_TENSORRT_PYTHONS)")
    done = subprocess.run(
        [python, "-B", "-W", "ignore", "-c", PROBE, str(SCRIPT)],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(stubs),
            "PYTHONPATH": str(stubs / "alias") if has_bindings else "",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1].removeprefix("probe: "))
    print(said)  # noqa: T201 - pytest -s shows which versions were asked
    if int(said["version"].split(".")[0]) >= 11:
        assert set(said["failures"].values()) == {"no-calibrators", "no-weak-types"}
        assert len(said["failures"]) == 5
        return
    assert said["failures"] == {}
    assert said["fp16"] == ["FP16"]
    assert {"set_memory_pool_limit", "set_calibration_profile", "set_timing_cache"} <= set(
        said["calls"]
    )
