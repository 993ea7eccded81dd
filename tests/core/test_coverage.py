from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.coverage import COSTS, Coverage, check_coverage, some
from edgecal.core.findings import Severity
from edgecal.core.tensors import activations, constant_entries
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from tests.graphs import graph, node, small_classifier
from tests.strategies import tensor_names

LATE_8, TEN, ELEVEN = map(parse_tensorrt, ("8.5.2", "10.3.0", "11.0.0"))
NETWORK = small_classifier()
FULL = dict.fromkeys(activations(NETWORK), 0.5)


def without(*names: str) -> dict[str, float]:
    return {name: scale for name, scale in FULL.items() if name not in names}


def check(
    scales: dict[str, float],
    *,
    tensorrt: TensorRTVersion | None = LATE_8,
    dla: bool = False,
    gpu_fallback: bool = True,
    fp16: bool = True,
) -> Coverage:
    return check_coverage(
        scales, NETWORK, tensorrt=tensorrt, dla=dla, gpu_fallback=gpu_fallback, fp16=fp16
    )


def verdicts(coverage: Coverage) -> list[tuple[str, Severity]]:
    return [(one.rule, one.severity) for one in coverage.findings]


COVERAGE_ERROR = ("tensor-coverage", Severity.ERROR)
COVERAGE_WARNING = ("tensor-coverage", Severity.WARNING)
COVERAGE_NOTE = ("tensor-coverage", Severity.NOTE)


class TestItIsAnError:
    def test_if_the_cache_is_empty(self) -> None:
        assert verdicts(check({})).count(COVERAGE_ERROR) == 2

    def test_if_no_network_input_is_covered(self) -> None:
        found = check(without("images"))
        assert COVERAGE_ERROR in verdicts(found)
        assert "'images'" in found.findings[0].message

    def test_not_if_one_of_two_inputs_is_covered(self) -> None:
        network = graph([node("Add", "a b", "c")], inputs=["a", "b"])
        assert verdicts(check_coverage({"a": 1.0, "c": 1.0}, network, tensorrt=LATE_8)) == [
            COVERAGE_WARNING
        ]

    @pytest.mark.parametrize(("covered", "refused"), [(6, True), (7, False)])
    def test_if_under_half_of_the_activations_are_covered(
        self, covered: int, *, refused: bool
    ) -> None:
        assert len(FULL) == 13
        found = check(dict(list(FULL.items())[:covered]))
        assert (COVERAGE_ERROR in verdicts(found)) is refused

    @pytest.mark.parametrize("gpu_fallback", [True, False])
    @pytest.mark.parametrize("fp16", [True, False])
    def test_for_one_hole_only_on_a_dla_that_may_use_neither_gpu_nor_fp16(
        self, *, gpu_fallback: bool, fp16: bool
    ) -> None:
        holes = without("relu")
        found = check(holes, dla=True, gpu_fallback=gpu_fallback, fp16=fp16)
        strict = not gpu_fallback and not fp16
        assert verdicts(found) == [COVERAGE_ERROR if strict else COVERAGE_WARNING]
        assert "FP16" in found.findings[0].message
        assert verdicts(check(holes, gpu_fallback=gpu_fallback, fp16=fp16)) == [COVERAGE_WARNING]

    def test_for_a_tensorrt_that_reads_no_caches(self) -> None:
        assert verdicts(check(FULL, tensorrt=ELEVEN)) == [("implicit-int8-removed", Severity.ERROR)]


class TestHoles:
    def test_of_a_full_cache_are_integers_and_shapes_which_cost_nothing(self) -> None:
        found = check(FULL)
        assert (found.covered, found.missing, found.findings) == (activations(NETWORK), (), ())
        assert {(hole.name, hole.kind, hole.cost) for hole in found.holes} == {
            ("mask", "integer", "none"),
            ("size", "shape", "none"),
            ("class", "integer", "none"),
        }

    @pytest.mark.parametrize(
        ("name", "cost", "words"),
        [
            ("pool", "high", "Conv Conv_left"),
            ("images", "high", "Conv Conv_conv"),
            ("relu", "medium", "MaxPool MaxPool_pool"),
            ("scores", "medium", "Gemm Gemm_scores writes"),
            ("conv", "low", "one layer with BatchNormalization_bn"),
            ("bn", "low", "one layer with Relu_relu"),
        ],
    )
    def test_cost_what_reads_them(self, name: str, cost: str, words: str) -> None:
        (hole,) = [one for one in check(without(name)).holes if one.kind == "activation"]
        assert (hole.name, hole.cost) == (name, cost)
        assert words in hole.why

    def test_that_feed_no_int8_operator_are_cheap(self) -> None:
        network = graph([node("Exp", "x", "e"), node("Softmax", "e", "s"), node("Log", "s", "l")])
        found = check_coverage({"x": 1.0}, network, tensorrt=LATE_8)
        assert {hole.cost for hole in found.holes} == {"low"}

    def test_that_nothing_reads_are_cheap(self) -> None:
        network = graph([node("LSTM", "x", "y state"), node("Conv", "y w", "z")], outputs=["z"])
        found = check_coverage({"x": 1.0, "z": 1.0}, network, tensorrt=LATE_8)
        assert [(hole.name, hole.cost) for hole in found.holes] == [("y", "high"), ("state", "low")]

    def test_on_a_dla_cost_where_the_dla_has_the_operator(self) -> None:
        network = graph([node("Softmax", "x", "s"), node("Elu", "s", "e")])
        gpu = check_coverage({}, network, tensorrt=LATE_8)
        dla = check_coverage({}, network, tensorrt=LATE_8, dla=True)
        assert {hole.name: hole.cost for hole in gpu.holes} == dict.fromkeys("xse", "low")
        assert {hole.name: hole.cost for hole in dla.holes} == {
            "x": "medium", "s": "medium", "e": "low",
        }  # fmt: skip

    def test_come_costliest_first(self) -> None:
        found = check({})
        assert found.missing[0] in {"images", "pool", "flat"}
        order = [COSTS.index(hole.cost) for hole in found.holes]
        assert all(left <= right for left, right in pairwise(order))

    def test_of_constants_are_known_for_tensorrt_10_alone(self) -> None:
        found = check(FULL, tensorrt=TEN)
        assert verdicts(found) == [COVERAGE_NOTE]
        constants = {hole.name: hole for hole in found.holes if hole.kind == "constant"}
        assert set(constants) == {"half_output", "w3_output", "b3_output"}
        assert constants["w3_output"].node == "Gemm_scores"
        assert found.missing == ()
        assert verdicts(check(FULL, tensorrt=TEN, dla=True)) == [COVERAGE_WARNING]
        assert check(FULL, tensorrt=None).findings == ()

    def test_of_constants_are_filled_by_their_entries(self) -> None:
        scales = {**FULL, **dict.fromkeys(constant_entries(NETWORK, TEN), 1.0)}
        found = check(scales, tensorrt=TEN)
        assert found.findings == ()
        assert [helper.node for helper in found.helpers] == [
            "Mul_scaled", "Gemm_scores", "Gemm_scores",
        ]  # fmt: skip


class TestEntriesThatMatchNothing:
    @pytest.mark.parametrize(
        ("count", "verdict"), [(0, []), (1, [COVERAGE_NOTE]), (2, [COVERAGE_WARNING])]
    )
    def test_are_a_note_up_to_a_tenth_and_a_warning_above(
        self, count: int, verdict: list[tuple[str, Severity]]
    ) -> None:
        old = {f"old{number}": 1.0 for number in range(count)}
        found = check({**FULL, **old})
        assert verdicts(found) == verdict
        assert found.unknown == tuple(old)

    def test_are_not_those_of_the_parser(self) -> None:
        made = {"(Unnamed Layer* 40) [Plugin]_output": 1.0, "ONNXTRT_Broadcast_3_output": 1.0}
        found = check({**FULL, **made})
        assert found.findings == ()
        assert [(one.name, one.node) for one in found.helpers] == [(name, None) for name in made]

    def test_are_not_integers_masks_and_constants_either(self) -> None:
        found = check({**FULL, "class": 1.0, "half": 1.0, "mask": 1.0})
        assert found.needless == ("class", "half", "mask")
        assert found.unknown == ()


class TestUnusableScales:
    @pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
    def test_cover_but_are_told(self, scale: float) -> None:
        found = check({**FULL, "relu": scale})
        assert verdicts(found) == [("scale-suspicious", Severity.WARNING)]
        assert found.findings[0].subject == "relu"
        assert "relu" in found.covered

    def test_of_tensors_nobody_asks_for_are_not(self) -> None:
        assert check({**FULL, "class": 0.0}).findings == ()


def test_a_network_of_integers_alone_misses_nothing() -> None:
    network = graph([node("Add", "i i", "j")], inputs=["i"], types={"i": "int64", "j": "int64"})
    found = check_coverage({}, network, tensorrt=LATE_8)
    assert (found.covered, found.missing, found.findings) == ((), (), ())


def test_a_tensor_of_unknown_type_is_asked_for() -> None:
    network = graph([node("Plugin", "x", "y")])
    known = {name: info for name, info in network.tensors.items() if name != "y"}
    found = check_coverage({"x": 1.0}, replace(network, tensors=known), tensorrt=LATE_8)
    assert found.missing == ("y",)


@given(
    left_out=st.sets(st.sampled_from(sorted(FULL))),
    more=st.dictionaries(tensor_names(), st.floats(width=32), max_size=10),
    dla=st.booleans(),
)
def test_every_activation_is_covered_or_missing_and_every_entry_is_in_one_place(
    left_out: set[str], more: dict[str, float], *, dla: bool
) -> None:
    scales = {**without(*left_out), **more}
    found = check(scales, tensorrt=TEN, dla=dla)
    assert sorted((*found.covered, *found.missing)) == sorted(FULL)
    placed = (
        *found.covered,
        *found.needless,
        *found.unknown,
        *(one.name for one in found.helpers),
    )
    assert sorted(placed) == sorted(scales)


def test_a_few_names_are_quoted_and_the_rest_counted() -> None:
    assert some(["a\nb"]) == r"'a\nb'"
    assert some(["a", "b", "c", "d", "e"]) == "'a', 'b', 'c' and 2 more"
