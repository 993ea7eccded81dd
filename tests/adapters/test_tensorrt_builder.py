"""The `tensorrt` builder: its script runs for real, on stand-ins for TensorRT and the driver."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.adapters.tensorrt_builder import TensorRTBuilder
from edgecal.core.build import (
    BuildOptions,
    BuildRequest,
    BuildResult,
    Proof,
    ShapeRange,
    span_of,
    split_log,
)
from edgecal.core.target import BuilderFact
from edgecal.errors import BuildError
from edgecal.ports import RunFiles
from edgecal.target_scripts import tensorrt_builder as script
from tests.libcuda import make_libcuda

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT: Final = Path(script.__file__)
FAKES: Final = Path(__file__).resolve().parent.parent / "fake_tensorrt"
BUILDER: Final = TensorRTBuilder()
NET: Final[dict[str, Any]] = {
    "inputs": [["image", "FLOAT", [1, 4]]],
    "tensors": ["conv", "relu: 0", "weights", "indices"],
    "kinds": {"weights": "CONSTANT"},
    "types": {"indices": "INT32"},
    "outputs": ["prob"],
}
DYNAMIC: Final[dict[str, Any]] = {**NET, "inputs": [["a=b: 0", "FLOAT", [-1, 4]]]}
QUANTIZED: Final[dict[str, Any]] = {**NET, "kinds": {"conv": "QUANTIZE"}}
ENTRIES: Final = ("image", "conv", "relu: 0", "nobody")
CODES: Final = {
    "7.1.3": "7103",
    "8.0.1": "8001",
    "8.2.1": "8201",
    "8.4.1": "8401",
    "8.5.2": "8502",
    "8.6.1": "8601",
    "10.3.0": "100300",
    "10.16.1": "101601",
}


@dataclass(frozen=True)
class Ended:
    """How the script ended, and what came of it."""

    status: int
    log: bytes
    result: BuildResult

    @property
    def text(self) -> str:
        return self.log.decode()

    def event(self, name: str) -> Any:  # noqa: ANN401 - JSON
        lines = [line for line in self.text.splitlines() if line.startswith(script.MARK)]
        found = [json.loads(line[len(script.MARK) :]) for line in lines]
        return next(one for one in found if one["event"] == name)


class Job:
    """A job's folder on a target, as the agent makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = sys.executable
        self.version, self.mode = "10.3.0", ""
        self.options = BuildOptions()
        self.request = BuildRequest(
            builder=BuilderFact(name="tensorrt", path=""),
            options=self.options,
            shapes={"image": span_of([(1, 4)])},
            dynamic=frozenset(),
            outputs=("prob",),
            model_file="model.onnx",
            cache_file="calibration.cache",
        )
        for name, data in BUILDER.support_files().items():
            (folder / name).write_bytes(data)
        self.network(NET)
        self.cache("EntropyCalibration2")

    @property
    def engine(self) -> Path:
        return self.folder / BUILDER.engine_file

    def network(self, description: dict[str, Any]) -> None:
        (self.folder / "model.onnx").write_text(json.dumps(description))

    def cache(self, algorithm: str, header: str | None = None) -> None:
        head = header or f"TRT-{CODES[self.version]}-{algorithm}"
        lines = [head, *(f"{name}: 3c010a14" for name in ENTRIES), ""]
        (self.folder / "calibration.cache").write_text("\n".join(lines))

    def use(self, version: str, mode: str = "") -> None:
        self.version, self.mode = version, mode
        if version in CODES:
            self.cache("EntropyCalibration2")

    def build(self, **changes: Any) -> Ended:  # noqa: ANN401 - of all kinds
        options = {key: changes.pop(key) for key in list(changes) if hasattr(self.options, key)}
        request = replace(
            self.request,
            builder=BuilderFact(name="tensorrt", path=self.python),
            options=replace(self.options, **options),
            **changes,
        )
        return self.start(BUILDER.build_argv(request))

    def start(self, argv: tuple[str, ...]) -> Ended:
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env={
                "PATH": os.defpath,
                "PYTHONPATH": str(FAKES),
                "PYTHONDONTWRITEBYTECODE": "1",
                "FAKE_TENSORRT": self.version,
                "FAKE_TENSORRT_MODE": self.mode,
                "LD_LIBRARY_PATH": str(self.folder),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
        )
        result = BUILDER.read_log(split_log(done.stdout), ENTRIES)
        return Ended(done.returncode, done.stdout, result)

    def run(self, *inputs: np.ndarray[Any, Any], name: str = "image", bench: bool = False) -> Ended:
        spec = []
        for number, value in enumerate(inputs):
            (self.folder / f"{number}.bin").write_bytes(value.tobytes())
            one = {"name": name, "file": f"{number}.bin", "dtype": value.dtype.str}
            spec.append([{**one, "shape": value.shape}])
        (self.folder / "runs.json").write_text(json.dumps(spec))
        files = RunFiles(inputs={}, shapes={}, spec="runs.json")
        request = replace(self.request, builder=BuilderFact(name="tensorrt", path=self.python))
        if bench:
            return self.start(BUILDER.bench_argv(request, files, "out"))
        return self.start(BUILDER.run_argvs(request, [files], "out")[0])

    def outputs(self) -> tuple[dict[str, Any], ...]:
        return BUILDER.parse_outputs((self.folder / "out").read_bytes(), source="bench")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def python_of(minor: str) -> str:
    """Find an older Python; pyenv's own folders first, for its shims want a version chosen."""
    kept = sorted(Path(sys.base_prefix).parent.glob(f"{minor}.*/bin/python"))
    found = str(kept[-1]) if kept else shutil.which(f"python{minor}")
    if found is None:
        pytest.skip(f"no Python {minor} here")
    return found


# --- what goes wrong in a build -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("import-error", "cannot import tensorrt: libnvinfer.so.10"),
        ("builder-error", "TensorRT cannot start: CUDA initialization failure with error: 35"),
        ("parse-error", "cannot read the network: In node 3"),
        ("no-int8", "this GPU has no INT8; try: push with --precision fp16"),
        ("no-engine", "TensorRT built no engine"),
        ("no-memory", "built no engine: Cuda Runtime (out of memory)"),
        ("python-error", "RuntimeError: something of pybind"),
    ],
)
def test_each_trouble_ends_the_log_with_its_reason(job: Job, mode: str, words: str) -> None:
    job.use("10.3.0", mode)
    ended = job.build()
    assert ended.status == script.FAILED
    assert words in ended.text.splitlines()[-1]
    assert ended.result.proof is Proof.UNPROVEN
    assert not job.engine.exists()


@pytest.mark.parametrize("mode", ["", "goes-on"])
def test_a_refused_cache_is_refuted_and_leaves_no_engine(job: Job, mode: str) -> None:
    job.use("10.3.0", mode)
    job.cache("", header="TRT-8600-EntropyCalibration2")
    ended = job.build()
    assert ended.status == script.FAILED
    assert ended.result.proof is Proof.REFUTED
    assert "refused the calibration cache and asked for data" in ended.result.reason
    assert not job.engine.exists()


def test_a_cache_that_nobody_reads_is_refuted(job: Job) -> None:
    job.use("10.3.0", "ignores-cache")
    ended = job.build()
    assert ended.status == script.FAILED
    assert ended.result.proof is Proof.REFUTED
    assert "never read" in ended.result.reason


@pytest.mark.parametrize("header", ["", "TRT-8502-Calibration", "junk", "0 12 34", "\udcff"])
def test_a_cache_of_no_calibrator_is_not_built_from(job: Job, header: str) -> None:
    data = header.encode("utf-8", "surrogateescape") + b"\nimage: 3c010a14\n"
    (job.folder / "calibration.cache").write_bytes(data)
    ended = job.build()
    assert ended.status == script.FAILED
    assert "names no calibrator of TensorRT" in ended.text
    assert not job.engine.exists()


def test_tensorrt_11_takes_no_cache_and_has_no_fp16_of_its_own(job: Job) -> None:
    job.use("11.4.0")
    job.cache("", header="TRT-110400-EntropyCalibration2")
    assert "has no IInt8EntropyCalibrator2" in job.build().text.splitlines()[-1]
    ended = job.build(precision="fp16", cache_file=None)
    assert "has no BuilderFlag.FP16" in ended.text.splitlines()[-1]
    assert not job.engine.exists()


def test_q_dq_nodes_and_a_cache_exclude_each_other(job: Job) -> None:
    job.network(QUANTIZED)
    assert "has Q/DQ nodes of its own" in job.build().text.splitlines()[-1]
    job.network(NET)
    assert "finds no Q/DQ nodes" in job.build(cache_file=None).text.splitlines()[-1]
    assert not job.engine.exists()


def test_a_dla_core_that_is_not_there_is_refused(job: Job) -> None:
    ended = job.build(dla_core=0)
    assert "sees 0 DLA cores here, and core 0 was asked for" in ended.text.splitlines()[-1]


def test_a_dynamic_input_without_shape_is_named(job: Job) -> None:
    job.network(DYNAMIC)
    assert "no shape is given for the dynamic inputs a=b: 0" in job.build().text.splitlines()[-1]


def test_missing_files_and_a_full_folder_are_told(job: Job) -> None:
    (job.folder / "model.onnx").unlink()
    ended = job.build()
    assert ended.status == script.FAILED
    assert "model.onnx" in ended.text.splitlines()[-1]
    (job.folder / "calibration.cache").unlink()
    assert "calibration.cache" in job.build().text.splitlines()[-1]


def test_a_wrong_command_line_is_none_that_builds(job: Job) -> None:
    base = (job.python, "tensorrt_builder.py", "build", "--model=m", "--engine=e")
    assert job.start((*base, "--precision=int8")).status == 2
    assert job.start((*base, "--precision=fp16", "--calibration-cache=c")).status == 2
    assert job.start(base[:2]).status == 2


def test_names_in_tensorrt_s_log_cannot_speak_for_the_builder(job: Job) -> None:
    forged = f'x\n{script.MARK}{{"event": "built", "cache_reads": 1}}'
    job.network({**NET, "tensors": [forged, f"\r{script.MARK}{{}}"]})
    job.mode = "ignores-cache"
    ended = job.build()
    assert ended.result.proof is Proof.REFUTED
    lines = [line for line in ended.text.splitlines() if line.startswith(script.MARK)]
    assert [json.loads(line[len(script.MARK) :])["event"] for line in lines] == [
        *("start", "tensors", "failure")
    ]


# --- what a build does ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", CODES)
def test_every_tensorrt_builds_from_the_cache_and_proves_it(job: Job, version: str) -> None:
    job.use(version)
    ended = job.build(workspace_mib=64, timing_cache=str(job.folder / "timing" / "cache"))
    assert ended.status == 0, ended.text
    assert ended.result.proof is Proof.PROVED
    assert ended.result.used == ("image", "conv", "relu: 0")
    assert set(ended.result.missing or ()) == {"weights", "indices"}  # as the fake's log says
    assert ended.result.unused == ("nobody",)
    assert job.engine.stat().st_size == ended.event("built")["bytes"]
    pool = "workspace" if version < "8.4" and version[:2] != "10" else "MemoryPoolType.WORKSPACE"
    for line in (f"{pool} {64 << 20}", "BuilderFlag.INT8", "BuilderFlag.FP16"):
        assert f"[V] {line}\n" in ended.text
    assert (job.folder / "timing" / "cache").exists() == (version != "7.1.3")
    expected = {"Int8": 4} if version not in {"7.1.3", "8.0.1"} else None
    assert ended.result.precisions == expected


@pytest.mark.parametrize("algorithm", ["MinMaxCalibration", "EntropyCalibration"])
def test_the_header_chooses_the_calibrator(job: Job, algorithm: str) -> None:
    job.cache(algorithm)
    ended = job.build()
    assert ended.result.proof is Proof.PROVED
    assert f"Reading Calibration Cache for calibrator: {algorithm}\n" in ended.text
    before_fusion = "QuantizationFlag.CALIBRATE_BEFORE_FUSION" in ended.text
    assert before_fusion == (algorithm == "EntropyCalibration")


def test_a_legacy_table_brings_its_own_quantile_and_cutoff(job: Job) -> None:
    job.cache("", header="0 3ff0000000000000 3fefffeb074a771d")
    assert job.build().result.proof is Proof.PROVED
    together = b"03ff00000000000003feffffde7210be9\nx: 1\n"
    assert script.read_header(together) == ("LegacyCalibration", 1.0, 0.999999)


@pytest.mark.parametrize(
    ("version", "strong"), [("8.6.1", False), ("10.3.0", True), ("11.4.0", True)]
)
def test_a_network_with_scales_of_its_own_is_strongly_typed_where_that_is_known(
    job: Job, version: str, *, strong: bool
) -> None:
    job.use(version)
    job.network(QUANTIZED)
    ended = job.build(cache_file=None, fp16_layers=("conv",))
    assert ended.status == 0, ended.text
    assert ended.result.proof is Proof.NOT_APPLICABLE
    assert ("BuilderFlag.INT8" not in ended.text) == strong


@pytest.mark.parametrize("version", ["7.1.3", "8.2.1", "10.3.0"])
def test_fp16_needs_no_cache(job: Job, version: str) -> None:
    job.use(version, "no-int8")
    (job.folder / "calibration.cache").unlink()
    ended = job.build(precision="fp16", cache_file=None)
    assert ended.status == 0, ended.text
    assert ended.result.proof is Proof.NOT_APPLICABLE
    assert "BuilderFlag.INT8" not in ended.text
    assert "BuilderFlag.FP16" in ended.text


def test_without_fp16_the_flag_is_left_out(job: Job) -> None:
    assert "BuilderFlag.FP16" not in job.build(fp16=False).text


@pytest.mark.parametrize("fallback", [True, False])
def test_a_dla_gets_its_core_and_the_gpu_only_where_it_may(job: Job, *, fallback: bool) -> None:
    job.use("10.3.0", "dla")
    ended = job.build(dla_core=1, gpu_fallback=fallback, fp16_layers=("conv",))
    assert ended.status == 0, ended.text
    assert "[V] default_device_type DeviceType.DLA\n[V] DLA_core 1\n" in ended.text
    assert ("BuilderFlag.GPU_FALLBACK" in ended.text) == fallback
    assert "BuilderFlag.PREFER_PRECISION_CONSTRAINTS" in ended.text


def test_dynamic_inputs_get_their_shapes_by_name(job: Job) -> None:
    job.network(DYNAMIC)
    name = "a=b: 0"
    shapes = {"shapes": {name: ShapeRange((2, 4), (2, 4), (2, 4))}, "dynamic": frozenset([name])}
    ended = job.build(**shapes)
    assert ended.status == 0, ended.text
    assert "calibration profile [('a=b: 0', (2, 4))]" in ended.text
    spread = ((name, ShapeRange((1, 4), (3, 4), (8, 4))),)
    assert "profile [('a=b: 0', (3, 4))]" in job.build(**shapes, profile=spread).text


@pytest.mark.parametrize(
    ("version", "flag"),
    [
        ("7.1.3", "STRICT_TYPES"),
        ("8.2.1", "OBEY_PRECISION_CONSTRAINTS"),
        ("10.16.1", "OBEY_PRECISION_CONSTRAINTS"),
    ],
)
def test_layers_are_kept_out_of_int8_as_far_as_they_can_be(
    job: Job, version: str, flag: str
) -> None:
    job.use(version)
    odd = "größe\n'$(x)'"
    job.network({**NET, "tensors": [*NET["tensors"], odd]})
    ended = job.build(fp16_layers=("conv", "weights", "indices", "nobody", odd))
    assert ended.status == 0, ended.text
    assert ended.event("kept")["items"] == ["conv", odd]
    assert ended.event("not-kept")["items"] == ["weights", "indices"]
    assert ended.event("unknown")["items"] == ["nobody"]
    assert f"BuilderFlag.{flag}\n" in ended.text
    if version != "7.1.3":
        assert ended.result.precisions == {"Half": 2, "Int8": 3}


def test_a_layer_that_had_to_be_renamed_is_found_by_its_origin(job: Job) -> None:
    job.use("8.6.1")
    job.network({**NET, "layers": {"conv": "conv_1"}})
    assert job.build(fp16_layers=("conv",)).event("kept")["items"] == ["conv_1"]


@pytest.mark.parametrize(
    ("kept", "state"),
    [
        (None, "new"),
        (b"TIMED BY 10.3.0", "read"),
        (b"TIMED BY 8.6.1", "replaced"),
        (b"?", "replaced"),
    ],
)
def test_a_timing_cache_helps_or_is_replaced(job: Job, kept: bytes | None, state: str) -> None:
    path = job.folder / "kept" / "timing"
    if kept is not None:
        path.parent.mkdir()
        path.write_bytes(kept)
    ended = job.build(timing_cache=str(path))
    assert ended.status == 0, ended.text
    assert ended.event("timing-cache")["state"] == state
    assert path.read_bytes() == b"TIMED BY 10.3.0"


def test_a_timing_cache_that_cannot_be_kept_costs_no_engine(job: Job) -> None:
    (job.folder / "file").write_bytes(b"")
    ended = job.build(timing_cache=str(job.folder / "file" / "timing"))
    assert ended.status == 0, ended.text
    assert "[W] the timing cache could not be kept" in ended.text
    assert job.engine.exists()
    assert [path.name for path in job.folder.iterdir() if path.suffix == ".part"] == []


def test_long_lists_stay_below_the_longest_line_that_is_read(job: Job) -> None:
    names = [f"layer {number} " + "ä" * 40 for number in range(2000)]
    job.network({**NET, "tensors": names})
    ended = job.build()
    assert ended.result.missing == tuple(names)


@pytest.mark.parametrize(
    ("minor", "version"), [("3.6", "7.1.3"), ("3.6", "8.2.1"), ("3.8", "8.5.2"), ("3.12", "10.3.0")]
)
def test_the_pythons_of_jetpack_4_to_7_run_it(job: Job, minor: str, version: str) -> None:
    job.python = python_of(minor)
    job.use(version)
    odd = "größe"
    job.network({**NET, "tensors": [*NET["tensors"], odd]})
    ended = job.build(fp16_layers=(odd,))  # in a plain C locale
    assert ended.status == 0, ended.text
    assert ended.result.proof is Proof.PROVED
    assert ended.event("kept")["items"] == [odd]
    make_libcuda(job.folder)
    assert job.run(np.ones((1, 4), np.float32)).status == 0
    assert job.outputs()[0]["prob"].tolist() == [[2, 2, 2, 2]]


def test_the_script_has_the_grammar_of_python_3_6() -> None:
    ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 6))


# --- running --------------------------------------------------------------------------------------


@pytest.fixture
def engine(job: Job) -> Callable[..., Job]:
    """Build an engine of which nothing else is of interest."""

    def make(version: str = "10.3.0", network: dict[str, Any] = NET, **kinds: str) -> Job:
        make_libcuda(job.folder)
        job.use(version)
        name, kind, shape = network["inputs"][0]
        job.network({**network, "inputs": [[name, kinds.get("kind", kind), shape]]})
        ended = job.build(shapes={name: span_of([(2, 4)])}, dynamic=frozenset([name]))
        assert ended.status == 0, ended.text
        return job

    return make


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("run-fails", "the engine failed to run"),
        ("data-dependent", "the shape of prob hangs on the data: (-1, 2)"),
        ("import-error", "cannot import tensorrt"),
    ],
)
def test_an_engine_that_cannot_be_run_says_why(
    engine: Callable[..., Job], mode: str, words: str
) -> None:
    job = engine()
    job.mode = mode
    ended = job.run(np.ones((1, 4), np.float32))
    assert ended.status == script.FAILED
    assert words in ended.text.splitlines()[-1]
    assert not (job.folder / "out").exists()


def test_inputs_that_do_not_fit_the_engine_are_named(engine: Callable[..., Job]) -> None:
    job = engine()
    shape = job.run(np.ones((1, 5), np.float32))
    assert "refuses the shape (1, 5) of image" in shape.text.splitlines()[-1]
    kind = job.run(np.ones((1, 4), np.int32))
    assert "input image is FLOAT for the engine, the file holds <i4" in kind.text.splitlines()[-1]
    name = job.run(np.ones((1, 4), np.float32), name="other")
    assert "inputs are ['image'], the golden ones ['other']" in name.text.splitlines()[-1]


def test_an_engine_of_another_tensorrt_is_not_loaded(engine: Callable[..., Job]) -> None:
    job = engine("8.6.1")
    job.version = "10.3.0"
    ended = job.run(np.ones((1, 4), np.float32))
    assert "cannot load the engine: Serialization assertion" in ended.text.splitlines()[-1]
    job.engine.write_bytes(b"")
    assert job.run(np.ones((1, 4), np.float32)).status == script.FAILED


@pytest.mark.parametrize(
    ("init", "alloc", "words"),
    [(100, 0, "cuInit gave CUDA error 100"), (0, 2, "cuMemAlloc_v2 gave CUDA error 2")],
)
def test_what_the_driver_refuses_is_told_by_its_number(
    engine: Callable[..., Job], init: int, alloc: int, words: str
) -> None:
    job = engine()
    make_libcuda(job.folder, init=init, alloc=alloc)
    assert words in job.run(np.ones((1, 4), np.float32)).text.splitlines()[-1]
    (job.folder / "libcuda.so.1").write_text("no library")
    ended = job.run(np.ones((1, 4), np.float32))
    assert "driver's library cannot be loaded" in ended.text.splitlines()[-1]


@pytest.mark.parametrize("version", ["7.1.3", "8.2.1", "8.5.2", "10.3.0"])
def test_all_golden_inputs_are_run_by_name_or_by_index(
    engine: Callable[..., Job], version: str
) -> None:
    job = engine(version, DYNAMIC)
    first = np.arange(8, dtype=np.float32).reshape(2, 4)
    runs = [first, -first, np.full((1, 4), np.nan, np.float32)]
    ended = job.run(*runs, name="a=b: 0")
    assert ended.status == 0, ended.text
    for run, outputs in zip(runs, job.outputs(), strict=True):
        assert outputs["prob"].dtype == np.float32
        np.testing.assert_array_equal(outputs["prob"], 2 * run)


def test_integers_are_narrowed_for_tensorrt_before_10(engine: Callable[..., Job]) -> None:
    job = engine("8.5.2", kind="INT32")
    assert job.run(np.arange(4, dtype=np.int64).reshape(1, 4)).status == 0
    assert job.outputs()[0]["prob"].tolist() == [[0, 2, 4, 6]]
    beyond = job.run(np.full((1, 4), 2**40, np.int64))
    assert "input image holds numbers beyond INT32" in beyond.text.splitlines()[-1]


def test_many_runs_are_timed(engine: Callable[..., Job]) -> None:
    job = engine()
    ended = job.run(np.ones((1, 4), np.float32), bench=True)
    assert ended.status == 0, ended.text
    data = (job.folder / "out").read_bytes()
    latency = BUILDER.parse_bench(data, source="bench")
    assert latency.runs == 200
    assert 0 < latency.median_ms <= latency.p99_ms
    assert len(job.outputs()) == 1
    assert job.run(np.ones((1, 4), np.float32)).status == 0
    with pytest.raises(BuildError, match="no latencies"):
        BUILDER.parse_bench((job.folder / "out").read_bytes(), source="bench")


# --- what it writes -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x05\x06" + bytes(18)])
def test_outputs_of_another_form_are_an_error(data: bytes) -> None:
    with pytest.raises(BuildError, match="cannot read what the tensorrt builder wrote"):
        BUILDER.parse_outputs(data, source="bench")


@given(
    names=st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), unique=True),
    shape=st.lists(st.integers(0, 3), max_size=3),
)
def test_numpy_reads_what_is_written_without_it(
    names: list[str], shape: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "arrays.npz"
    value = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    given = [("names", *script.text_array(names))]
    one = ("<f4", tuple(shape), value.tobytes())
    given += [(f"0/{position}", *one) for position in range(len(names))]
    script.write_arrays(str(path), given)
    runs = BUILDER.parse_outputs(path.read_bytes(), source="bench")
    assert len(runs) == bool(names)
    for run in runs:
        assert list(run) == names
        for found in run.values():
            assert found.shape == tuple(shape)
            np.testing.assert_array_equal(found, value)


def test_bf16_is_widened() -> None:
    class Tensors:
        def shape(self, _name: str) -> tuple[int, ...]:
            return (2,)

        def kind(self, _name: str) -> str:
            return "BF16"

    class Memory:
        def buffer(self, _name: str, size: int) -> int:
            return size

        def download(self, _address: int, size: int) -> bytes:
            assert size == 4
            return b"\x80\x3f\x20\xc0"

    spelled, shape, data = script.fetch(Tensors(), Memory(), "x")  # type: ignore[arg-type]
    assert np.frombuffer(data, spelled).reshape(shape).tolist() == [1.0, -2.5]
