"""Calibration with the real ONNX Runtime: the same bits however it is done, and honest accounts."""

from __future__ import annotations

import gc
import json
import tracemalloc
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.core.amax import ALGORITHMS, AUTO_CANDIDATES
from edgecal.core.cache import parse_cache
from edgecal.core.golden import parse_golden
from edgecal.core.manifest import digest_of, parse_manifest, serialize_manifest
from edgecal.core.statistics import parse_histograms
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import DatasetError, InputError, ModelError
from edgecal.ports import Sample
from edgecal.workflows.calibrate import Calibration, calibrate, make_manifest
from edgecal.workflows.collect import AUTO, CalibrateOptions, Statistics
from edgecal.workflows.evaluate import top1
from tests.networks import (
    conv_net,
    floats,
    network,
    rng,
    save,
    tensor,
    token_net,
    two_input_net,
    vector_net,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import onnx

Array = npt.NDArray[Any]

JETPACK_5 = parse_tensorrt("8.5.2")
JETPACK_6 = parse_tensorrt("10.3.0")


NOT_FINITE = "non-finite-activation"


@dataclass
class Given:
    """Samples from memory, made only when they are asked for."""

    arrays: dict[str, Array]
    kind: str = "arrays"
    preprocess: None = None
    skipped: Sequence[str] = ()
    excluded: Sequence[str] = ()
    groups: dict[str, int] = field(default_factory=dict)
    limit: int | None = None
    read: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __iter__(self) -> Iterator[Sample]:
        for number in range(len(self)):
            arrays = {name: np.array(values[number]) for name, values in self.arrays.items()}
            self.read.append(str(number))
            whole = b"".join(value.tobytes() for value in arrays.values())
            yield Sample(name=str(number), digest=digest_of(whole), arrays=arrays)


@dataclass
class Bench:
    """A folder in which networks are calibrated."""

    folder: Path
    told: list[tuple[str, int, int]] = field(default_factory=list)

    def backend(self, proto: onnx.ModelProto) -> OrtBackend:
        return OrtBackend(read_model(save(proto, self.folder / "net.onnx")))

    def run(
        self,
        proto: onnx.ModelProto,
        *arrays: Array,
        names: Sequence[str] = ("x",),
        algorithm: str = AUTO,
        batch_size: int | None = None,
        workers: int = 1,
    ) -> tuple[Statistics, Calibration]:
        given = Given(dict(zip(names, arrays, strict=True)))
        statistics, (made,) = calibrate(
            self.backend(proto),
            given,
            [JETPACK_5],
            CalibrateOptions(algorithm=algorithm, batch_size=batch_size, workers=workers),
            lambda *step: self.told.append(step),
        )
        assert given.read == [str(number) for number in range(len(given))]  # one pass
        return statistics, made


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def cache_of(made: Calibration) -> dict[str, float]:
    return parse_cache(made.files["calibration.cache"]).scales()


def rules(made: Calibration) -> list[str]:
    return [finding.rule for finding in made.findings]


def same(left: Statistics, right: Statistics) -> bool:
    assert list(left.histograms) == list(right.histograms)
    return all(
        one.range_end == two.range_end
        and np.array_equal(one.counts, two.counts)
        and (one.minimum, one.maximum) == (two.minimum, two.maximum)
        for one, two in zip(left.histograms.values(), right.histograms.values(), strict=True)
    )


class TestTheSameBits:
    def images(self, count: int = 40) -> Array:
        # later batches reach further than the first one: ranges must double on the way
        growing = np.linspace(0.2, 30, count, dtype=np.float32)[:, None, None, None]
        return floats(count, 3, 8, 8) * growing

    def test_come_from_any_number_of_workers(self, bench: Bench) -> None:
        results = [
            bench.run(conv_net(), self.images(), names=["image"], workers=workers, batch_size=3)
            for workers in (1, 2, 5, 1)
        ]
        first_statistics, first = results[0]
        for statistics, made in results[1:]:
            assert same(statistics, first_statistics)
            assert made.files == first.files
            assert made.record == first.record

    def test_come_from_one_run_after_the_other(self, bench: Bench) -> None:
        left, right = (bench.run(conv_net(), self.images(), names=["image"])[1] for _ in range(2))
        assert left.files == right.files

    def test_do_not_come_from_data_in_another_order(self, bench: Bench) -> None:
        _, left = bench.run(conv_net(), self.images(), names=["image"])
        _, right = bench.run(conv_net(), self.images()[::-1], names=["image"])
        assert left.files["calibration.cache"] != right.files["calibration.cache"]

    def test_come_from_the_histograms_of_the_bundle(self, bench: Bench) -> None:
        statistics, made = bench.run(conv_net(), self.images(), names=["image"])
        read = parse_histograms(made.files["histograms.npz"], source="h")
        assert same(statistics, replace(statistics, histograms=read))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 40, 64])
def test_every_sample_counts_whatever_the_batch_size(bench: Bench, batch_size: int) -> None:
    statistics, made = bench.run(vector_net(), floats(40, 4), batch_size=batch_size)
    measured = 40 - statistics.held_out_samples
    assert all(one.samples == measured * 4 for one in statistics.histograms.values())
    assert (statistics.samples, statistics.dropped) == (40, 0)
    assert statistics.batch_size == batch_size
    assert cache_of(made).keys() == {"x", "mm", "y"}


def test_python_looks_for_cycles_as_before_once_the_pass_is_over(bench: Bench) -> None:
    bench.run(vector_net(), floats(20, 4))
    assert gc.get_freeze_count() == 0
    with pytest.raises(DatasetError):
        bench.run(vector_net(batch=4), floats(10, 4), batch_size=3)
    assert gc.get_freeze_count() == 0


class TestAFixedBatch:
    def test_drops_an_incomplete_last_one(self, bench: Bench) -> None:
        statistics, made = bench.run(vector_net(batch=4), floats(10, 4))
        assert (statistics.samples, statistics.dropped, statistics.batch_size) == (10, 2, 4)
        assert statistics.histograms["x"].samples == 8 * 4
        assert made.golden.batch == 4

    def test_fills_up_when_there_is_no_complete_one(self, bench: Bench) -> None:
        x = floats(1, 4)
        statistics, made = bench.run(vector_net(batch=4), x)
        assert (statistics.samples, statistics.dropped) == (1, 0)
        assert statistics.histograms["x"].samples == 4 * 4
        (golden,) = parse_golden(made.files["golden.npz"], source="g")
        assert np.array_equal(golden.inputs["x"], np.repeat(x, 4, axis=0))
        assert "few-samples" in rules(made)

    def test_cannot_be_contradicted(self, bench: Bench) -> None:
        with pytest.raises(DatasetError, match="fixed to 4, and --batch-size says 3"):
            bench.run(vector_net(batch=4), floats(10, 4), batch_size=3)
        statistics, _ = bench.run(vector_net(batch=4), floats(10, 4), batch_size=4)
        assert statistics.batch_size == 4


class TestHeldOutSamples:
    @pytest.mark.parametrize(
        ("count", "held"), [(15, 0), (16, 4), (24, 5), (40, 7), (200, 27), (400, 32)]
    )
    def test_judge_and_do_not_measure(self, bench: Bench, count: int, held: int) -> None:
        x = floats(count, 4)
        statistics, made = bench.run(vector_net(), x)
        assert statistics.held_out_samples == held
        assert statistics.held_out == made.quality.held_out == made.golden.held_out == (held > 0)
        assert statistics.histograms["x"].samples == (count - held) * 4
        judged = len(statistics.runs)
        assert judged == (held or count)
        assert made.golden.runs == min(8, judged)

    def test_are_never_of_the_first_batch(self, bench: Bench) -> None:
        x = floats(40, 4)
        x[:8] *= 100
        statistics, _ = bench.run(vector_net(), x, batch_size=8)
        assert statistics.held_out
        assert all(np.abs(run.inputs["x"]).max() < 50 for run in statistics.runs)
        assert statistics.histograms["x"].largest == np.abs(x).max()

    def test_serve_for_both_and_that_is_said_when_there_are_few(self, bench: Bench) -> None:
        _, made = bench.run(vector_net(), floats(9, 4), algorithm="auto")
        assert "too few to hold any out" in made.record.chosen_by
        warning = next(one for one in made.findings if one.rule == "few-samples")
        assert warning.severity.value == "warning"
        assert warning.message.startswith("calibrated on 9 samples;")

    def test_have_the_plain_network_s_outputs_in_the_bundle(self, bench: Bench) -> None:
        statistics, made = bench.run(conv_net(), floats(40, 3, 8, 8), names=["image"])
        assert statistics.held_out
        plain = bench.backend(conv_net()).expose(())
        runs = parse_golden(made.files["golden.npz"], source="g")
        assert len(runs) == 7
        for run in runs:
            assert np.allclose(plain.run(run.inputs)["scores"], run.fp32["scores"], atol=1e-5)
            assert run.int8["scores"].shape == run.fp32["scores"].shape
            assert not np.array_equal(run.int8["scores"], run.fp32["scores"])


@pytest.mark.parametrize("count", [1, 2, 15, 16])
@pytest.mark.parametrize("algorithm", [AUTO, *ALGORITHMS])
def test_one_sample_is_enough_for_every_algorithm(bench: Bench, algorithm: str, count: int) -> None:
    statistics, made = bench.run(
        conv_net(), floats(count, 3, 8, 8), names=["image"], algorithm=algorithm
    )
    assert statistics.samples == count
    assert made.coverage.covered == 6
    assert "few-samples" in rules(made)


def test_auto_takes_the_algorithm_with_the_least_error(bench: Bench) -> None:
    x = floats(64, 4)
    x[5, 0] = 4000.0  # an outlier that minmax falls for
    _, made = bench.run(vector_net(), x)
    best = min(made.record.candidates, key=lambda name: made.record.candidates[name])
    assert made.record.algorithm == best != "minmax"
    # those were so bad on a few runs that they did no others
    assert "; on 4 of them entropy2 1.0000, minmax 1.0000" in made.record.chosen_by
    assert all(f"{name} " in made.record.chosen_by for name in AUTO_CANDIDATES)
    _, alone = bench.run(vector_net(), x, algorithm=best)
    assert alone.files["calibration.cache"] == made.files["calibration.cache"]
    assert alone.record.chosen_by == "given"


def test_auto_takes_the_first_of_those_it_cannot_tell_apart_and_says_so(bench: Bench) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (64, 3, 8, 8)).astype(np.float32)
    _, made = bench.run(conv_net(), x, names=("image",))
    found, chosen = made.record.candidates, made.record.algorithm
    least = min(found.values())
    assert chosen == next(name for name in AUTO_CANDIDATES if found.get(name, 1) <= 1.05 * least)
    assert found[chosen] > least
    told = f"; within 5% all count as equal, and {chosen} comes first"
    assert made.record.chosen_by.endswith(told)
    _, clear = bench.run(conv_net(), floats(64, 3, 8, 8), names=("image",))
    assert clear.record.candidates[clear.record.algorithm] == min(clear.record.candidates.values())
    assert "count as equal" not in clear.record.chosen_by


def test_one_pass_serves_every_tensorrt(bench: Bench) -> None:
    given = Given({"image": floats(40, 3, 8, 8)})
    statistics, (old, new) = calibrate(
        bench.backend(conv_net()),
        given,
        [JETPACK_5, JETPACK_6],
        CalibrateOptions(),
        lambda *_: None,
    )
    assert len(given.read) == statistics.samples == 40
    assert old.files["calibration.cache"].startswith(b"TRT-8502-EntropyCalibration2\n")
    assert new.files["calibration.cache"].startswith(b"TRT-100300-EntropyCalibration2\n")
    assert old.coverage.constants == 0
    assert set(cache_of(new)) - set(cache_of(old)) == {"fw_output", "fb_output"}


def test_several_inputs_come_from_an_archive(bench: Bench) -> None:
    left, right = floats(20, 3), floats(20, 4, seed=1)
    np.savez(bench.folder / "data.npz", left=left, right=right)
    backend = bench.backend(two_input_net())
    dataset = open_dataset(str(bench.folder / "data.npz"), backend.graph.inputs, preprocess=None)
    statistics, (made,) = calibrate(
        backend, dataset, [JETPACK_5], CalibrateOptions(batch_size=2), lambda *_: None
    )
    assert list(cache_of(made)) == ["left", "right", "mm", "sum"]
    held = [3, 7, 11, 15]
    judged = np.concatenate([run.inputs["right"] for run in statistics.runs])
    assert np.array_equal(judged, right[held])
    measured = np.delete(right, held, axis=0)
    assert statistics.histograms["right"].largest == np.abs(measured).max()
    again, _ = bench.run(two_input_net(), left, right, names=["left", "right"], batch_size=2)
    assert same(statistics, again)


def test_whole_numbers_go_in_and_come_out_without_a_scale(bench: Bench) -> None:
    ids = rng().integers(0, 10, (40, 6))
    _, made = bench.run(token_net(), ids, names=["ids"])
    assert set(cache_of(made)) == {"embedded", "mm"}
    assert set(made.quality.outputs) == {"mm"}
    (run, *_) = parse_golden(made.files["golden.npz"], source="g")
    assert run.fp32["best"].dtype == np.int64
    assert run.inputs["ids"].dtype == np.int64


class TestOddTensors:
    def test_that_are_always_zero_stay_out_of_the_cache_and_are_named(self, bench: Bench) -> None:
        nodes = [
            helper.make_node("Mul", ["x", "nothing"], ["dead"]),
            helper.make_node("MatMul", ["dead", "w"], ["deader"]),
            helper.make_node("MatMul", ["x", "w"], ["mm"]),
            helper.make_node("Add", ["mm", "deader"], ["y"]),
        ]
        proto = network(
            nodes,
            [tensor("x", ["n", 4])],
            [tensor("y", ["n", 4])],
            {"w": floats(4, 4), "nothing": np.zeros(4, np.float32)},
        )
        _, made = bench.run(proto, floats(40, 4))
        assert set(cache_of(made)) == {"x", "mm", "y"}
        assert made.coverage.missing == ("dead", "deader")
        dead = [one.subject for one in made.findings if one.rule == "no-range"]
        assert dead == ["dead", "deader"]

    def test_that_hold_no_numbers_now_and_then_are_counted(self, bench: Bench) -> None:
        nodes = [
            helper.make_node("Log", ["x"], ["log"]),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ]
        outputs = [tensor("log", ["n", 4]), tensor("y", ["n", 4])]
        proto = network(nodes, [tensor("x", ["n", 4])], outputs, {"w": floats(4, 4)})
        x = floats(40, 4)
        statistics, made = bench.run(proto, x)
        assert statistics.histograms["log"].non_finite > 0
        assert "non-finite-activation" in rules(made)
        assert all(np.isfinite(scale) and scale > 0 for scale in cache_of(made).values())
        assert all(np.isfinite(error) for error in made.record.candidates.values())
        json.dumps(dict(made.quality.outputs), allow_nan=False)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_with_one_broken_sample_held_out_are_judged_by_the_others(
        self, bench: Bench, value: float
    ) -> None:
        x = floats(40, 4)
        _, clean = bench.run(vector_net(), x)
        x[7, 2] = value
        statistics, made = bench.run(vector_net(), x)
        assert statistics.held_out_samples - len(statistics.runs) == 1
        assert made.quality.samples == clean.quality.samples - 1
        assert all(
            np.isfinite(value).all()
            for run in parse_golden(made.files["golden.npz"], source="g")
            for value in (*run.inputs.values(), *run.fp32.values())
        )
        told = {one.subject: one.message for one in made.findings if one.rule == NOT_FINITE}
        assert told["x"] == "1 value was NaN or infinite in samples that INT8 is judged by"
        assert set(told) == {"x", *(one.name for one in vector_net().graph.output)}
        assert NOT_FINITE not in rules(clean)

    def test_with_nothing_but_broken_samples_to_judge_by_are_judged_all_the_same(
        self, bench: Bench
    ) -> None:
        x = floats(40, 4)
        held = [index for index in range(40) if index % (4 if index < 16 else 8) in {3, 7}]
        x[held, 0] = np.nan
        statistics, made = bench.run(vector_net(), x)
        assert len(statistics.runs) == statistics.held_out_samples
        assert NOT_FINITE in rules(made)

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e-42])
    def test_in_all_places_leave_nothing_to_calibrate(self, bench: Bench, value: float) -> None:
        with pytest.raises(InputError, match="no tensor has a usable range"):
            bench.run(vector_net(), np.full((20, 4), value, np.float32))

    def test_of_words_or_sequences_are_not_judged_and_do_no_harm(self, bench: Bench) -> None:
        kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("SplitToSequence", ["y"], ["parts"]),
            helper.make_node("Cast", ["y"], ["words"], to=TensorProto.STRING),
        ]
        outputs = [
            helper.make_value_info("parts", kind),
            tensor("words", ["n", 4], TensorProto.STRING),
            tensor("y", ["n", 4]),
        ]
        proto = network(nodes, [tensor("x", ["n", 4])], outputs, {"w": floats(4, 4)})
        _, made = bench.run(proto, floats(20, 4))
        (run, *_) = parse_golden(made.files["golden.npz"], source="g")
        assert list(run.fp32) == list(run.int8) == ["y"]
        assert set(cache_of(made)) == {"x", "y"}

    def test_whose_shape_depends_on_the_data_are_compared_where_they_can_be(
        self, bench: Bench
    ) -> None:
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("Greater", ["y", "zero"], ["found"]),
            helper.make_node("NonZero", ["found"], ["boxes"]),
            helper.make_node("Cast", ["boxes"], ["places"], to=TensorProto.FLOAT),
        ]
        outputs = [
            tensor("boxes", [2, None], TensorProto.INT64),
            tensor("places", [2, None]),
            tensor("y", ["n", 4]),
        ]
        constants = {"w": floats(4, 4), "zero": np.float32(0).reshape(())}
        proto = network(nodes, [tensor("x", ["n", 4])], outputs, constants)
        x = floats(300, 4) * 0.02
        x[0] = 9.0  # coarse steps: boxes come and go
        statistics, made = bench.run(proto, x, algorithm="minmax")
        int8 = parse_golden(made.files["golden.npz"], source="g")
        shapes = [run.int8["boxes"].shape == run.fp32["boxes"].shape for run in int8]
        assert not all(shapes)
        assert statistics.held_out
        assert made.quality.outputs["places"]["cosine_min"] == 0.0
        assert made.record.candidates["minmax"] > 0


class TestRefusals:
    def test_come_before_the_data_is_read(self, bench: Bench) -> None:
        given = Given({"x": floats(20, 4)})
        for options, where in (
            (CalibrateOptions(algorithm="entropy9"), "--algorithm"),
            (CalibrateOptions(percentile=0.0), "--percentile"),
            (CalibrateOptions(percentile=100.5), "--percentile"),
            (CalibrateOptions(percentile=float("nan")), "--percentile"),
        ):
            with pytest.raises(InputError) as caught:
                calibrate(bench.backend(vector_net()), given, [JETPACK_5], options, lambda *_: None)
            assert caught.value.where == where
        assert given.read == []

    def test_of_data_without_a_sample(self, bench: Bench) -> None:
        with pytest.raises(DatasetError, match="no sample"):
            bench.run(vector_net(), floats(0, 4))

    @pytest.mark.parametrize("number", [0, 1, 3, 21])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_of_a_sample_that_the_network_cannot_run_on_name_it(
        self, bench: Bench, number: int, workers: int
    ) -> None:
        ids = np.zeros((40, 6), np.int64)
        ids[number, 2] = 10  # one more than the table has; 3 is held out
        with pytest.raises(ModelError, match="cannot run on this data") as caught:
            bench.run(token_net(), ids, names=["ids"], workers=workers)
        assert caught.value.where.endswith(f"net.onnx on sample {number}")

    def test_of_a_network_without_float32(self, bench: Bench) -> None:
        kind = TensorProto.DOUBLE
        node = helper.make_node("Relu", ["x"], ["y"])
        proto = network([node], [tensor("x", ["n", 4], kind)], [tensor("y", ["n", 4], kind)])
        with pytest.raises(ModelError, match="no float32 tensor"):
            bench.run(proto, floats(20, 4).astype(np.float64))

    def test_of_samples_that_do_not_stack_name_the_way_out(self, bench: Bench) -> None:
        node = helper.make_node("Relu", ["x"], ["y"])
        proto = network([node], [tensor("x", ["n", None])], [tensor("y", ["n", None])])
        ragged = np.empty(20, object)
        ragged[:] = [np.ones(2 + number % 2, np.float32) for number in range(20)]
        with pytest.raises(DatasetError, match="different shapes") as caught:
            bench.run(proto, ragged, batch_size=2)
        assert "--batch-size 1" in caught.value.remedy

    @pytest.mark.parametrize("workers", [1, 4])
    def test_of_a_run_in_the_middle_stop_everything(self, bench: Bench, workers: int) -> None:
        ids = np.zeros((40, 6), np.int64)
        ids[21] = 99
        given = Given({"ids": ids})
        with pytest.raises(ModelError, match="idx=99"):
            calibrate(
                bench.backend(token_net()),
                given,
                [JETPACK_5],
                CalibrateOptions(workers=workers),
                lambda *_: None,
            )

    def test_by_the_data_come_through_unchanged(self, bench: Bench) -> None:
        class Broken(Given):
            def __iter__(self) -> Iterator[Sample]:
                yield from list(super().__iter__())[:7]
                raise DatasetError("gone", where="photo 8", remedy="find it")

        broken = Broken({"x": floats(20, 4)})
        with pytest.raises(DatasetError, match="gone"):
            calibrate(
                bench.backend(vector_net()),
                broken,
                [JETPACK_5],
                CalibrateOptions(),
                lambda *_: None,
            )


def test_pictures_of_different_sizes_go_one_by_one(bench: Bench) -> None:
    proto = conv_net()
    for position in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[position].dim_param = f"size{position}"
    images = np.empty(20, object)
    images[:] = [floats(3, 5 + number % 3, 6, seed=number) for number in range(20)]
    _, made = bench.run(proto, images, names=["image"])
    assert made.coverage.covered == 6


def test_progress_is_told_and_comes_to_its_end(bench: Bench) -> None:
    bench.run(vector_net(), floats(20, 4))
    counted = [step for step in bench.told if step[0] == "calibrating"]
    assert [total for _, _, total in counted] == [20] * len(counted)
    done = [number for _, number, _ in counted]
    assert done == sorted(done)
    assert done[-1] == 20
    name, last, total = bench.told[-1]
    assert name != "calibrating"
    assert last == total


def test_memory_does_not_grow_with_the_number_of_samples(bench: Bench) -> None:
    inputs = (tensor("x", ["n", 16, 1024]),)
    node = helper.make_node("Relu", ["x"], ["y"])
    backend = bench.backend(network([node], inputs, [tensor("y", ["n", 16, 1024])]))

    class Endless(Given):
        def __init__(self, count: int) -> None:
            super().__init__({})
            self.count = count

        def __len__(self) -> int:
            return 0

        def __iter__(self) -> Iterator[Sample]:
            for number in range(self.count):
                value = np.full((16, 1024), number + 1, np.float32)  # 64 kB
                yield Sample(name=str(number), digest=digest_of(b""), arrays={"x": value})

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            statistics, _ = calibrate(
                backend,
                Endless(count),
                [JETPACK_5],
                CalibrateOptions(algorithm="minmax", workers=2),
                lambda *_: None,
            )
            assert statistics.samples == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)
    small, large = peak(300), peak(1200)  # 32 held-out ones are kept; from 240 on there are no more
    assert large < small * 1.3
    assert large < 1200 * 64 * 1024 / 4


def test_the_manifest_tells_what_was_done_and_survives_the_round_trip(bench: Bench) -> None:
    statistics, made = bench.run(vector_net(batch=4), floats(42, 4), algorithm="percentile")
    written = make_manifest(
        made,
        statistics,
        Given({"x": floats(1, 4)}, skipped=("broken.png",)),
        name="net-v1",
        model=read_model(bench.folder / "net.onnx").record(),
        data="data.npz",
        now=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc),
        version="0.1",
    )
    assert parse_manifest(serialize_manifest(written), source="m") == written
    assert written.calibration.parameters == {"percentile": 99.99}
    assert (written.data.samples, written.data.dropped) == (42, statistics.dropped)
    assert written.data.first == tuple(str(number) for number in range(15))
    assert written.data.skipped == ("broken.png",)
    assert written.counter == written.created.timestamp() == 1767323045


class TestTop1:
    def labels(self, bench: Bench, x: Array) -> dict[str, int]:
        scores = bench.backend(vector_net()).expose(()).run({"x": x})["y"]
        return {str(number): int(row.argmax()) for number, row in enumerate(scores)}

    @pytest.mark.parametrize("batch", [1, 3, 20, 50])
    def test_counts_the_right_ones(self, bench: Bench, batch: int) -> None:
        x = floats(20, 4)
        labels = self.labels(bench, x)
        network_ = bench.backend(vector_net()).expose(())
        assert top1(network_, Given({"x": x}), labels, batch=batch) == 1.0
        wrong = {**labels, "3": (labels["3"] + 1) % 4}
        assert top1(network_, Given({"x": x}), wrong, batch=batch) == 0.95

    def test_wants_a_label_for_every_sample_and_at_least_one(self, bench: Bench) -> None:
        network_ = bench.backend(vector_net()).expose(())
        with pytest.raises(DatasetError, match="no label") as caught:
            top1(network_, Given({"x": floats(2, 4)}), {"0": 1}, batch=1)
        assert caught.value.where == "1"
        with pytest.raises(DatasetError, match="no sample"):
            top1(network_, Given({"x": floats(0, 4)}), {}, batch=1)
