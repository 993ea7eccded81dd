"""The worker against TensorRT's real Python bindings, as far as they go without a GPU.

Every Python that `EDGECAL_TENSORRT_PYTHONS` names (colon-separated), else this one, is asked; it
needs one of NVIDIA's wheels of bindings. Their libraries are replaced by empty ones, so nothing is
built. But every attribute that the worker uses must be one of the real classes, and its calibrators
are called as TensorRT calls them: through the virtual functions of the bindings' C++ classes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
WORKER: Final = CHECKOUT / "edgecal" / "host_scripts" / "trt_calibrate.py"
PYTHONS: Final = [
    path for path in os.environ.get("EDGECAL_TENSORRT_PYTHONS", sys.executable).split(":") if path
]
LIBRARIES: Final = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin", "libnvparsers")
STUB: Final = "\n".join(
    f"void *{name}(void) {{ return 0; }}"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
        "getNvOnnxParserVersion",
        "initLibNvInferPlugins",
        "_ZN11nvuffparser15createUffParserEv",
        "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
        "_ZN14nvcaffeparser117createCaffeParserEv",
        "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
    )
)
ALIAS: Final = """
from tensorrt_bindings import *
from tensorrt_bindings import __version__
"""

# runs in the Python that has the bindings, 3.6 or later; prints one line of JSON
PROBE: Final = r'''
import ctypes, importlib.util, io, json, pathlib, sys, tempfile, warnings
from unittest import mock
spec = importlib.util.spec_from_file_location("trt_calibrate", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
warnings.simplefilter("ignore")
import tensorrt as trt
said = {"version": trt.__version__, "failures": {}}
minor = ".".join(trt.__version__.split(".")[:2])

def like(kind, **values):
    made = mock.NonCallableMagicMock(spec_set=getattr(trt, kind))
    for name, value in values.items():
        setattr(made, name, value)  # refused where the real class has no such attribute
    return made

def job(algorithm, **more):
    return dict(tensorrt=minor, algorithm=algorithm, model="net.onnx", fp16=True,
        workspace_bytes=1 << 20, quantile=1.0, cutoff=0.5, whole_build=False, ranges={},
        inputs=[{"name": "x", "dtype": "float32", "shape": [2, 3]}], **more)

def virtual(calibrator, slot, gives, *takes):
    """A function of the C++ object behind a calibrator (Itanium ABI, 64 bits)."""
    this = ctypes.c_void_p.from_address(id(calibrator) + 16).value
    table = ctypes.c_void_p.from_address(this).value
    function = ctypes.c_void_p.from_address(table + 8 * slot).value
    return lambda *given: ctypes.CFUNCTYPE(gives, ctypes.c_void_p, *takes)(function)(this, *given)

class Memory:
    def __init__(self):
        self.held = []
    def upload(self, name, data):
        self.held.append((name, data))
        return 4096 * len(self.held)

def call_as_tensorrt_does(one, folder):
    """Bring two inputs and a table through the bindings."""
    one = dict(one, cache=str(folder / "cache"), whole_build=True, inputs=[
        {"name": "ids: 0", "dtype": "int64", "shape": [1, 2]},
        {"name": "x", "dtype": "float32", "shape": [1, 1]}])
    (folder / "batch-000000.0").write_bytes(b"\7" + bytes(15))
    (folder / "batch-000000.1").write_bytes(b"\0\0\x80\x3f")
    memory, sent = Memory(), mock.Mock()
    news = io.StringIO('{"batch": 0}\n{"end": 1}\n')
    work = worker.Work(one, sent, batches=worker.Batches(str(folder), one["inputs"], news),
        memory=memory, types={"ids: 0": "int32", "x": "float32"}, facts={})
    calibrator = worker.make_calibrator(trt, one, work)
    new = int(trt.__version__.split(".")[0]) >= 10
    first = 4 if new else 0  # versioned interfaces begin with four functions of their own
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    assert virtual(calibrator, first, ctypes.c_int)() == 1
    names = (ctypes.c_char_p * 2)(b"x", b"ids: 0")
    bindings = (pointer * 2)()
    get = virtual(calibrator, first + 1, ctypes.c_bool, pointer, pointer, ctypes.c_int)
    assert get(ctypes.addressof(bindings), ctypes.addressof(names), 2)
    assert list(bindings) == [4096, 8192], list(bindings)
    assert memory.held == [("x", b"\0\0\x80\x3f"), ("ids: 0", b"\7" + bytes(7))], memory.held
    length = size(7)
    read = virtual(calibrator, first + 2, pointer, pointer)
    assert not read(ctypes.addressof(length))
    assert not get(ctypes.addressof(bindings), ctypes.addressof(names), 2)
    table = b"TRT-8601-Calibration\nx: 3c010a14\n"
    kept = ctypes.create_string_buffer(table, len(table))
    write = virtual(calibrator, first + 3, None, pointer, size)
    write(ctypes.addressof(kept), len(table))
    assert (folder / "cache").read_bytes() == table
    assert work.result["bytes"] == len(table) and work.result["batches"] == 1
    assert not sent.fail.called
    if one["algorithm"] == "legacy":
        at = 9 if new else 7
        assert virtual(calibrator, at, ctypes.c_double)() == 1.0
        assert virtual(calibrator, at + 1, ctypes.c_double)() == 0.5
        assert not virtual(calibrator, at + 2, pointer, pointer)(ctypes.addressof(length))
        virtual(calibrator, at + 3, None, pointer, size)(ctypes.addressof(kept), len(table))

for algorithm in sorted(worker.CALIBRATORS):
    try:
        one = job(algorithm)
        assert worker.import_tensorrt(one) is trt
        log = io.StringIO()
        logger = worker.make_logger(trt, log)
        trt.ILogger.log(logger, trt.ILogger.Severity.WARNING, "heard")  # through the bindings
        assert log.getvalue() == "[W] heard\n", log.getvalue()
        trt.ILogger.log(logger, trt.ILogger.Severity.ERROR, "bad")
        assert logger.errors == ["bad"]
        try:
            worker.make_builder(trt, logger)
        except worker.WorkerError as error:
            assert error.code == "cuda", error.code  # the empty library gives no builder
        else:
            raise AssertionError("an empty library gave a builder")
        work = mock.Mock()
        calibrator = worker.make_calibrator(trt, one, work)
        base = getattr(trt, worker.CALIBRATORS[algorithm])
        assert isinstance(calibrator, base)
        assert base.get_batch_size(calibrator) == 1  # through the bindings
        said.setdefault("algorithms", {})[algorithm] = str(base.get_algorithm(calibrator))
        with tempfile.TemporaryDirectory() as folder:
            call_as_tensorrt_does(one, pathlib.Path(folder))
        config = like("IBuilderConfig")
        config.int8_calibrator = calibrator
        config.add_optimization_profile.return_value = 0
        tensor = like("ITensor", dtype=trt.DataType.FLOAT, shape=(-1, 3))
        tensor.name, tensor.is_shape_tensor = "x", False
        layer = like("ILayer", num_outputs=1)
        layer.get_output.return_value = tensor
        network = like("INetworkDefinition", num_inputs=1, num_layers=1)
        network.get_input.return_value = tensor
        network.get_layer.return_value = layer
        builder = like("Builder", platform_has_fast_int8=True, platform_has_fast_fp16=True)
        builder.create_builder_config.return_value = config
        profile = like("IOptimizationProfile")
        builder.create_optimization_profile.return_value = profile
        builder.create_network.return_value = network
        parser = like("OnnxParser", num_errors=1)
        with mock.patch.object(trt, "OnnxParser", return_value=parser), mock.patch.object(
            trt, "init_libnvinfer_plugins"
        ):
            worker.parse_network(trt, logger, builder, "net.onnx")
            parser.parse_from_file.return_value = False
            parser.get_error.return_value = like("ParserError")
            try:
                worker.parse_network(trt, logger, builder, "net.onnx")
            except worker.WorkerError as error:
                assert error.code == "model"
        flags = builder.create_network.call_args[0][0]
        assert flags == 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        assert worker.check_inputs(network, one) == {"x": "float32"}
        assert worker.make_config(trt, builder, network, one) is config
        for call in profile.set_shape.call_args[0][1:]:
            trt.Dims(call)
        assert worker.set_ranges(network, {"x": 1.0, "y": 1.0}) == ["y"]
        assert worker.build(builder, network, config)
        for name in ("FLOAT", "HALF", "INT32", "BOOL"):
            assert str(getattr(trt.DataType, name)).split(".")[-1] in worker.BATCH_TYPES
        said["calls"] = sorted(
            {call[0].split(".")[0] for one in (config, builder) for call in one.mock_calls}
        )
    except worker.WorkerError as error:
        said["failures"][algorithm] = error.code
print("probe: " + json.dumps(said))
'''


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty libraries of TensorRT 8, 10 and 11, and the name `tensorrt` for the bindings."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "stub.c").write_text(STUB)
    for library in LIBRARIES:
        for major in (8, 10, 11):
            name = f"{library}.so.{major}"
            subprocess.run(
                [
                    *(compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}"),
                    *("-o", str(folder / name), str(folder / "stub.c")),
                ],
                check=True,
            )
    (folder / "alias").mkdir()
    (folder / "alias" / "tensorrt.py").write_text(ALIAS)
    return folder


@pytest.mark.parametrize("python", PYTHONS)
def test_the_worker_fits_the_real_bindings(python: str, stubs: Path) -> None:
    find = "import importlib.util as u, sys; sys.exit(u.find_spec('tensorrt_bindings') is None)"
    has_bindings = subprocess.run([python, "-c", find], check=False).returncode == 0
    if (
        not has_bindings
        and subprocess.run([python, "-c", find.replace("_bindings", "")], check=False).returncode
    ):
        pytest.skip(f"needs tensorrt or its bindings: {python} has none (EDGECAL_TENSORRT_PYTHONS)")
    done = subprocess.run(
        [python, "-W", "ignore", "-c", PROBE, str(WORKER)],
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
    last = done.stdout.splitlines()[-1]
    said = json.loads(last.removeprefix("probe: "))
    print(said)  # noqa: T201 - pytest -s shows which versions were asked
    major = int(said["version"].split(".")[0])
    if major >= 11:
        assert set(said["failures"].values()) == {"no-calibrators"}
        return
    assert said["failures"] == {}
    assert said["algorithms"] == {
        "entropy2": "CalibrationAlgoType.ENTROPY_CALIBRATION_2",
        "entropy": "CalibrationAlgoType.ENTROPY_CALIBRATION",
        "minmax": "CalibrationAlgoType.MINMAX_CALIBRATION",
        "legacy": "CalibrationAlgoType.LEGACY_CALIBRATION",
    }
    assert "build_serialized_network" in said["calls"]
    assert "set_memory_pool_limit" in said["calls"]
