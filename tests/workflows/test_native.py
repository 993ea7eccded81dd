"""TensorRT's table to a bundle's content, beside the real ONNX Runtime and a made-up TensorRT."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.core.golden import parse_golden
from edgecal.core.overrides import Override
from edgecal.core.tensors import activations
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BackendError, CacheFormatError, DatasetError, InputError, ModelError
from edgecal.ports import TensorRTCalibration
from edgecal.workflows.calibrate import Calibration, calibrate, make_manifest
from edgecal.workflows.collect import CalibrateOptions, Statistics
from edgecal.workflows.native import calibrate_natively
from tests.networks import conv_net, floats, save, token_net, vector_net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt
    import onnx

    from edgecal.core.trt_job import CalibratorOptions

V85 = parse_tensorrt("8.5.2")
FOUND = parse_tensorrt("8.5.3.1")
HEAD = "TRT-8503-EntropyCalibration2"


@dataclass
class Imaginary:
    """A TensorRT that gives a table made beforehand."""

    table: bytes
    log: bytes = b"[V] said\n"
    fed: list[dict[str, npt.NDArray[Any]]] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    told: list[CalibratorOptions] = field(default_factory=list)

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
        self.told.append(options)
        self.shapes = dict(shapes)
        self.fed = [dict(one) for one in samples]
        progress("calibrating", len(self.fed), total)
        whole, left = divmod(len(self.fed), batch_size)
        return TensorRTCalibration(
            cache=self.table,
            tensorrt=FOUND,
            gpu="NVIDIA A10",
            compute_capability="8.6",
            batches=whole,
            samples=whole * batch_size,
            dropped=left,
            log=self.log,
            findings=(),
        )


@dataclass
class Bench:
    """A folder in which networks are calibrated."""

    folder: Path

    def backend(self, proto: onnx.ModelProto) -> OrtBackend:
        return OrtBackend(read_model(save(proto, self.folder / "net.onnx")))

    def run(
        self,
        table: bytes | Imaginary,
        *,
        proto: onnx.ModelProto | None = None,
        data: npt.NDArray[Any] | None = None,
        options: CalibrateOptions | None = None,
        given: tuple[Override, ...] = (),
    ) -> tuple[Statistics, Calibration]:
        backend = self.backend(proto or vector_net())
        np.save(self.folder / "data.npy", floats(40, 4) if data is None else data)
        dataset = open_dataset(
            str(self.folder / "data.npy"),
            backend.graph.inputs,
            preprocess=None,
            skip_unreadable=False,
            limit=None,
        )
        return calibrate_natively(
            backend,
            table if isinstance(table, Imaginary) else Imaginary(table),
            dataset,
            V85,
            options or CalibrateOptions(),
            progress=lambda *_: None,
            overrides=(given,),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def table(head: str = HEAD, **bits: str) -> bytes:
    """Write a table for `vector_net`."""
    found = {"x": "3c010a14", "mm": "3c810a14", "y": "3c810a14", **bits}
    return "\n".join([head, *(f"{name}: {one}" for name, one in found.items()), ""]).encode()


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (HEAD.encode() + b"\nelsewhere: 3c010a14\n", BackendError, "1 entries, and no usable"),
        (table(x="0", mm="7f800000", y="ffc00000"), BackendError, "no usable scale for any"),
        (HEAD.encode() + b"\nx: 3c010a14\nx: 3c010a15\n", CacheFormatError, "x"),
    ],
)
def test_a_table_of_no_use_is_no_bundle(
    bench: Bench, data: bytes, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        bench.run(data)


@pytest.mark.parametrize(
    ("options", "proto", "given", "kind"),
    [
        (CalibrateOptions(algorithm="mse"), None, (), InputError),
        (CalibrateOptions(batch_size=3), vector_net(batch=4), (), DatasetError),
        (None, None, (Override(pattern="nobody", scale=1.0, source="here"),), InputError),
    ],
)
def test_what_cannot_be_is_told_before_tensorrt_starts(
    bench: Bench,
    options: CalibrateOptions | None,
    proto: onnx.ModelProto | None,
    given: tuple[Override, ...],
    kind: type[Exception],
) -> None:
    never = Imaginary(table())
    with pytest.raises(kind):
        bench.run(never, options=options, proto=proto, given=given)
    assert never.told == []


def test_a_network_that_onnx_runtime_cannot_run_is_told_before_tensorrt_starts(
    bench: Bench,
) -> None:
    strange = vector_net()
    strange.graph.node[1].op_type = "Swish_TRT"
    strange.graph.node[1].domain = "plugins"
    never = Imaginary(table())
    with pytest.raises(ModelError):
        bench.run(never, proto=strange)
    assert never.told == []


# --- what comes out -------------------------------------------------------------------------------


def test_the_table_goes_in_as_it_is_and_engines_are_judged_by_its_scales(bench: Bench) -> None:
    coarse = table(x="3f010a14") + b"(Unnamed Layer* 3) [Constant]_output: 3c010a14\n"
    statistics, done = bench.run(coarse)
    assert done.files["calibration.cache"] == coarse
    assert done.files["calibration.log"] == b"[V] said\n"
    assert (done.written_by_tensorrt, done.tensorrt) == (True, FOUND)
    assert done.quality.samples == statistics.held_out_samples
    _, fine = bench.run(table(x="3cc10a14"))
    errors = [one.record.candidates["entropy2"] for one in (done, fine)]
    assert errors[0] > 3 * errors[1]
    runs = [parse_golden(one.files["golden.npz"], source="golden")[0] for one in (done, fine)]
    assert np.array_equal(runs[0].fp32["y"], runs[1].fp32["y"])
    assert not np.array_equal(runs[0].int8["y"], runs[1].int8["y"])


def test_scales_that_edgecal_makes_itself_are_judged_alike_whoever_wrote_them(
    bench: Bench,
) -> None:
    backend = bench.backend(vector_net())
    np.save(bench.folder / "data.npy", floats(40, 4))
    dataset = open_dataset(
        str(bench.folder / "data.npy"),
        backend.graph.inputs,
        preprocess=None,
        skip_unreadable=False,
        limit=None,
    )
    options = CalibrateOptions(algorithm="minmax")
    statistics, (ours,) = calibrate(backend, dataset, [V85], options, lambda *_: None)
    same, theirs = bench.run(ours.files["calibration.cache"], options=options)
    assert theirs.quality == ours.quality
    assert theirs.coverage == ours.coverage
    assert theirs.files["golden.npz"] == ours.files["golden.npz"]
    assert theirs.files["histograms.npz"] == ours.files["histograms.npz"]
    assert same.data_digest == statistics.data_digest


def test_tensorrt_gets_what_is_measured_and_not_what_judges(bench: Bench) -> None:
    fed = Imaginary(table())
    statistics, done = bench.run(fed)
    assert len(fed.fed) == statistics.samples - statistics.held_out_samples == 33
    judging = parse_golden(done.files["golden.npz"], source="golden")
    for run in judging:
        assert not any(np.array_equal(run.inputs["x"][0], one["x"]) for one in fed.fed)


def test_an_incomplete_batch_that_tensorrt_drops_is_in_the_manifest(bench: Bench) -> None:
    statistics, done = bench.run(table(), options=CalibrateOptions(batch_size=8))
    assert statistics.dropped == (40 - statistics.held_out_samples) % 8 > 0
    manifest = make_manifest(
        done,
        statistics,
        open_dataset(
            str(bench.folder / "data.npy"),
            bench.backend(vector_net()).graph.inputs,
            preprocess=None,
            skip_unreadable=False,
            limit=None,
        ),
        name="net",
        model=read_model(bench.folder / "net.onnx").record(),
        data="data.npy",
        now=datetime(2026, 11, 21, tzinfo=timezone.utc),
        version="0",
    )
    assert manifest.data.dropped == statistics.dropped
    assert manifest.written_by_tensorrt
    assert str(manifest.tensorrt) == "8.5.3.1"


@pytest.mark.parametrize(
    ("batch", "shapes"), [("n", {}), (4, {"image": (4, 3, 8, 8)})], ids=["open", "settled"]
)
def test_shapes_are_told_where_the_network_leaves_nothing_open(
    bench: Bench, batch: int | str, shapes: dict[str, tuple[int, ...]]
) -> None:
    proto = conv_net(batch=batch)
    names = activations(bench.backend(proto).graph)
    lines = "\n".join([HEAD, *(f"{name}: 3d010a14" for name in names), ""])
    told = Imaginary(lines.encode())
    bench.run(told, proto=proto, data=floats(20, 3, 8, 8))
    assert told.shapes == shapes


def test_integers_go_in_as_they_are(bench: Bench) -> None:
    ids = np.arange(20 * 6, dtype=np.int64).reshape(20, 6) % 10
    fed = Imaginary(f"{HEAD}\nembedded: 3c810a14\nmm: 3c810a14\n".encode())
    _, done = bench.run(fed, proto=token_net(), data=ids)
    assert {one["ids"].dtype for one in fed.fed} == {np.dtype(np.int64)}
    assert done.coverage.covered == 2


def test_zeros_and_infinities_are_left_out_and_counted(bench: Bench) -> None:
    _, done = bench.run(table(mm="0", y="7f800000"))
    assert (done.coverage.covered, done.coverage.missing) == (1, ("mm", "y"))
    (finding,) = [one for one in done.findings if one.rule == "no-scale-in-table"]
    assert finding.message.endswith(": mm, y")


def test_a_tensor_that_was_zero_on_the_data_is_told_as_that(bench: Bench) -> None:
    _, done = bench.run(table(mm="0", y="0"), data=np.zeros((20, 4), np.float32))
    rules = [one.rule for one in done.findings if one.subject in {"mm", "y"}]
    assert rules == ["no-range", "no-range"]
    assert not [one for one in done.findings if one.rule == "no-scale-in-table"]


def test_given_ranges_are_told_to_tensorrt_and_their_originals_kept(bench: Bench) -> None:
    scale = float(np.uint32(0x3D010A14).view(np.float32))
    given = (Override(pattern="m*", scale=scale, source="ranges.txt"),)
    heard = Imaginary(table(mm="3d010a14"))
    _, done = bench.run(heard, given=given)
    assert heard.told[0].ranges == {"mm": scale * 127}
    (record,) = done.record.overrides
    assert (record.name, record.given, record.source) == ("mm", "3d010a14", "ranges.txt")
    assert record.measured not in {None, "3d010a14"}
    assert not [one for one in done.findings if one.rule == "range-not-in-table"]


def test_a_range_that_tensorrt_did_not_write_is_told(bench: Bench) -> None:
    given = (Override(pattern="mm", scale=0.5, source="ranges.txt"),)
    _, done = bench.run(table(), given=given)
    (finding,) = [one for one in done.findings if one.rule == "range-not-in-table"]
    assert "the given range of mm:" in finding.message
    assert "edgecal cache edit" in finding.remedy


def test_a_log_that_is_lost_is_no_file(bench: Bench) -> None:
    _, done = bench.run(Imaginary(table(), log=b""))
    assert "calibration.log" not in done.files
