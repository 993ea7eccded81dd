"""Each kind of evidence by itself; whole caches are held against networks in tests/workflows."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.findings import Finding, Severity
from edgecal.core.staleness import find_staleness
from edgecal.core.tensors import activations
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from tests.graphs import graph, node, small_classifier, weight
from tests.strategies import tensor_names

if TYPE_CHECKING:
    from edgecal.core.graph import Graph

FIRST_8, LATE_8, TEN = map(parse_tensorrt, ("8.0.1", "8.5.2", "10.3.0"))
WARNING, ERROR = Severity.WARNING, Severity.ERROR

LONG: Final = graph([node("Conv", f"t{i} w", f"t{i + 1}") for i in range(20)], inputs=["t0"])
RANGES: Final = {f"t{i}": 1.5**i for i in range(21)}


def judge(
    network: Graph,
    amax: dict[str, float],
    *,
    tensorrt: TensorRTVersion | None = LATE_8,
    algorithm: str = "EntropyCalibration2",
    observed: dict[str, float] | None = None,
) -> tuple[Finding, ...]:
    scales = {name: value / 127 for name, value in amax.items()}
    return find_staleness(
        scales, network, tensorrt=tensorrt, algorithm=algorithm, observed=observed
    )


def severities(findings: tuple[Finding, ...]) -> list[Severity]:
    return [finding.severity for finding in findings]


class TestPools:
    NETWORK = graph([node("MaxPool", "x", "p"), node("Relu", "p", "r"), node("MaxPool", "r", "q")])

    def test_that_differ_from_their_inputs_prove_it(self) -> None:
        found = judge(self.NETWORK, {"x": 1, "p": 2, "r": 3, "q": 4})
        assert severities(found) == [ERROR]
        assert "2 of 2 max pools" in found[0].message

    def test_of_which_one_differs_are_suspicious_for_it_may_be_edited(self) -> None:
        assert severities(judge(self.NETWORK, {"x": 1, "p": 1, "r": 3, "q": 4})) == [WARNING]

    def test_that_are_equal_are_no_evidence(self) -> None:
        assert judge(self.NETWORK, {"x": 1, "p": 1, "r": 3, "q": 3.001}) == ()

    def test_without_an_entry_are_no_evidence(self) -> None:
        assert judge(self.NETWORK, {"x": 1, "r": 3}) == ()
        assert judge(self.NETWORK, {"x": 1, "p": 0, "r": 3, "q": float("inf")}) == ()

    def test_of_a_legacy_table_or_an_unknown_tensorrt_copy_nothing(self) -> None:
        wrong = {"x": 1.0, "p": 2.0, "r": 3.0, "q": 4.0}
        assert judge(self.NETWORK, wrong, algorithm="LegacyCalibration") == ()
        assert judge(self.NETWORK, wrong, tensorrt=None) == ()

    def test_that_take_an_average_may_be_other_layers(self) -> None:
        network = graph([node("AveragePool", "x", "p"), node("GlobalAveragePool", "p", "q")])
        assert judge(network, {"x": 1, "p": 2, "q": 3}) == ()

    def test_whose_input_a_concat_overwrote_later_are_no_evidence(self) -> None:
        network = graph([node("MaxPool", "x", "p"), node("Concat", "x y", "c")], inputs=["x", "y"])
        amax = {"x": 3.0, "y": 3.0, "p": 1.0, "c": 3.0}
        assert judge(network, amax, tensorrt=FIRST_8) == ()
        assert severities(judge(network, amax, tensorrt=TEN)) == [WARNING]


class TestConcats:
    NETWORK = graph([node("Concat", "x y z", "c", axis=1)], inputs=["x", "y", "z"])

    def test_are_evidence_up_to_8_0_alone(self) -> None:
        apart = {"x": 1.0, "y": 2.0, "z": 3.0, "c": 4.0}
        assert severities(judge(self.NETWORK, apart, tensorrt=FIRST_8)) == [WARNING]
        assert judge(self.NETWORK, apart, tensorrt=LATE_8) == ()
        assert judge(self.NETWORK, apart, tensorrt=TEN) == ()

    def test_of_which_two_are_apart_prove_it(self) -> None:
        network = graph(
            [node("Concat", "x y", "c"), node("Concat", "v w", "d")], inputs=["x", "y", "v", "w"]
        )
        amax = {"x": 1.0, "y": 2.0, "c": 4.0, "v": 1.0, "w": 2.0, "d": 5.0}
        assert severities(judge(network, amax, tensorrt=FIRST_8)) == [ERROR]

    def test_that_feed_another_are_compared_as_the_last_one_left_them(self) -> None:
        network = graph(
            [node("Concat", "x y", "c"), node("Concat", "c z", "d")], inputs=["x", "y", "z"]
        )
        amax = {"x": 1.0, "y": 1.0, "c": 2.0, "z": 2.0, "d": 2.0}
        assert judge(network, amax, tensorrt=FIRST_8) == ()


class TestReshapes:
    def test_hold_the_same_values_and_so_the_same_range(self) -> None:
        network = graph([node("Flatten", "x", "f"), node("Transpose", "y", "t")], inputs=["x", "y"])
        assert severities(judge(network, {"x": 1, "f": 2, "y": 3, "t": 4})) == [ERROR]
        assert judge(network, {"x": 1, "f": 1, "y": 3, "t": 3}) == ()

    def test_keep_a_pools_own_range_where_its_entry_was_overwritten(self) -> None:
        network = graph([node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "f")])
        assert judge(network, {"x": 5, "p": 5, "f": 1}) == ()

    def test_of_inputs_of_a_concat_are_compared_from_10_on(self) -> None:
        network = graph([node("Reshape", "x", "r"), node("Concat", "r y", "c")], inputs=["x", "y"])
        amax = {"x": 1.0, "r": 3.0, "y": 3.0, "c": 3.0}
        assert judge(network, amax, tensorrt=FIRST_8) == ()
        assert judge(network, amax, tensorrt=LATE_8) == ()
        assert severities(judge(network, amax, tensorrt=TEN)) == [WARNING]


class TestBounds:
    @pytest.mark.parametrize("op", ["Sigmoid", "Softmax", "Tanh", "HardSigmoid"])
    def test_of_one_hold_for_every_doubling_of_a_histogram(self, op: str) -> None:
        network = graph([node(op, "x", "y")])
        assert judge(network, {"x": 50, "y": 2048.5 / 2048 * 1.9999}) == ()
        assert severities(judge(network, {"x": 50, "y": 2.01})) == [WARNING]

    def test_are_passed_on_by_what_only_chooses_values(self) -> None:
        network = graph(
            [
                node("Sigmoid", "x", "s"),
                node("MaxPool", "s", "p"),
                node("Relu", "p", "r"),
                node("Concat", "r s", "c"),
                node("Conv", "c w", "y"),
            ]
        )
        found = judge(network, {"s": 5, "p": 5, "r": 5, "c": 5, "y": 5}, tensorrt=TEN)
        assert severities(found) == [ERROR]
        assert "4 of 4" in found[0].message

    def test_of_a_clip_are_its_ends_in_either_form(self) -> None:
        network = graph(
            [
                node("Clip", "x low high", "a"),
                node("Clip", "x", "b", min=-8.0, max=6.0),
                node("Clip", "x low", "open"),
                node("Clip", "x low other", "unknown"),
            ],
            inputs=["x", "other"],
            constants={"low": np.asarray(0, np.float32), "high": np.asarray(6, np.float32)},
        )
        amax = {"a": 12.1, "b": 16.1, "open": 1e9, "unknown": 1e9}
        found = judge(network, amax)
        assert "2 of 2" in found[0].message
        assert judge(network, {**amax, "a": 11.9, "b": 15.9}) == ()

    def test_do_not_hold_for_inputs_of_a_concat_that_took_its_scale(self) -> None:
        network = graph(
            [node("Sigmoid", "x", "s"), node("Concat", "s x", "c")],
        )
        amax = {"x": 50.0, "s": 50.0, "c": 50.0}
        assert judge(network, amax, tensorrt=FIRST_8) == ()
        assert judge(network, amax, tensorrt=None) == ()
        assert severities(judge(network, amax, tensorrt=TEN)) == [WARNING]


class TestConstants:
    NETWORK = graph(
        [node("Mul", "x a", "y"), node("Add", "y b", "z"), node("Sub", "z none", "u")],
        constants={
            "a": np.asarray([2, -8], np.float32),
            "b": np.asarray([1], np.float32),
            "none": np.asarray([], np.float32),
        },
    )

    def test_tell_their_range_themselves(self) -> None:
        found = judge(self.NETWORK, {"a_output": 1, "b_output": 8, "none_output": 1}, tensorrt=TEN)
        assert severities(found) == [WARNING]
        assert "1 of 2 constants" in found[0].message
        found = judge(self.NETWORK, {"a_output": 0.4, "b_output": 8}, tensorrt=TEN)
        assert severities(found) == [ERROR]

    @pytest.mark.parametrize("amax", [8, 8 * 2048.5 / 2048, 8 * 128.5 / 2048, 3])
    def test_may_be_clipped_as_far_as_entropy2_does(self, amax: float) -> None:
        assert judge(self.NETWORK, {"a_output": amax, "b_output": 1}, tensorrt=TEN) == ()

    def test_of_zeros_have_no_range(self) -> None:
        network = graph([node("Add", "x o", "y")], constants={"o": np.zeros(4, np.float32)})
        assert judge(network, {"o_output": 0}, tensorrt=TEN) == ()
        assert severities(judge(network, {"o_output": 1}, tensorrt=TEN)) == [WARNING]


class TestNeedlessEntries:
    def test_of_computed_integers_and_constants_prove_it(self) -> None:
        network = small_classifier()
        full = dict.fromkeys(activations(network), 1.0)
        assert judge(network, full) == ()
        assert severities(judge(network, {**full, "size": 1})) == [WARNING]
        some = {"images": 1.0, "conv": 1.0, "bn": 1.0}
        assert severities(judge(network, {**some, "size": 1, "half": 1})) == [ERROR]

    def test_of_doubles_do_occur_for_the_parser_makes_floats_of_them(self) -> None:
        network = graph([node("Relu", "x", "r"), node("Cast", "r", "d")], types={"d": "float64"})
        assert judge(network, {"x": 1, "r": 1, "d": 1}) == ()

    def test_of_integer_inputs_do_occur(self) -> None:
        assert judge(small_classifier(), {"images": 1, "mask": 2}) == ()


class TestCountedNames:
    def chain(self, first: int, count: int = 6, stem: str = "") -> Graph:
        names = ["image", *(f"{stem}{first + number}" for number in range(count))]
        return graph(
            [node("Conv", f"{left} w", right) for left, right in pairwise(names)],
            inputs=["image"],
            constants={"w": weight(1)},
        )

    @pytest.mark.parametrize("stem", ["", "input.", "onnx::Conv_"])
    @pytest.mark.parametrize("step", [-3, 1, 2, 40])
    def test_that_all_moved_by_one_number_prove_it(self, stem: str, step: int) -> None:
        old = dict.fromkeys(activations(self.chain(100, stem=stem)), 1.0)
        found = judge(self.chain(100 + step, stem=stem), old)
        assert severities(found) == [ERROR]
        assert f"moved by {step:+d}" in found[0].message

    def test_that_moved_otherwise_are_suspicious(self) -> None:
        old = dict.fromkeys(activations(self.chain(100, count=8)), 1.0)
        assert severities(judge(self.chain(103), old)) == [WARNING]

    def test_that_all_fit_or_are_only_left_over_or_only_missing_are_no_evidence(self) -> None:
        names = activations(self.chain(100))
        for have in (names, (*names, "200"), names[:-2]):
            assert judge(self.chain(100), dict.fromkeys(have, 1.0)) == ()

    def test_are_not_names_that_people_gave(self) -> None:
        network = graph([node("Relu", "x", "conv2"), node("Relu", "conv2", "conv3")])
        assert judge(network, {"x": 1, "conv1": 1, "conv2": 1}) == ()


class TestWhatWasObserved:
    def test_far_off_on_many_tensors_proves_it(self) -> None:
        observed = {name: amax * 20 for name, amax in list(RANGES.items())[:8]}
        found = judge(LONG, RANGES, observed={**RANGES, **observed})
        assert severities(found) == [ERROR]
        assert "8 of 21 tensors" in found[0].message

    def test_far_off_on_some_is_suspicious_and_on_one_nothing_for_entropy_clips(self) -> None:
        names = list(RANGES)
        for count, expected in ((1, []), (5, [WARNING])):
            observed = {name: RANGES[name] * 5 for name in names[:count]}
            found = judge(LONG, RANGES, observed={**RANGES, **observed})
            assert severities(found) == expected

    @pytest.mark.parametrize("factor", [0.01, 0.3, 3.5, 100])
    def test_off_by_the_same_factor_everywhere_proves_it(self, factor: float) -> None:
        observed = {name: amax * factor for name, amax in RANGES.items()}
        assert severities(judge(LONG, RANGES, observed=observed)) == [ERROR]

    def test_in_another_order_proves_it(self) -> None:
        turned = dict(zip(RANGES, [1.1**i for i in range(21)][::-1], strict=True))
        ranges = {name: 1.1**i for i, name in enumerate(RANGES)}
        found = judge(LONG, ranges, observed=turned)
        assert severities(found) == [ERROR]
        assert "rank correlation -1.00" in found[0].message

    @given(st.lists(st.floats(0.4, 1.6), min_size=21, max_size=21))
    def test_within_what_clipping_and_few_samples_do_is_no_evidence(
        self, noise: list[float]
    ) -> None:
        observed = {
            name: amax * one for (name, amax), one in zip(RANGES.items(), noise, strict=True)
        }
        assert judge(LONG, RANGES, observed=observed) == ()


def test_one_edited_entry_is_suspicious_however_many_relations_it_breaks() -> None:
    network = graph(
        [
            node("Relu", "x", "r"),
            node("MaxPool", "r", "p"),
            node("MaxPool", "r", "q"),
            node("Flatten", "r", "f"),
            node("Transpose", "r", "t"),
        ]
    )
    amax = {"x": 1.0, "r": 9.0, "p": 1.0, "q": 1.0, "f": 1.0, "t": 1.0}
    assert severities(judge(network, amax)) == [WARNING, WARNING]


def test_three_kinds_that_have_no_tensor_in_common_prove_it_together() -> None:
    network = graph(
        [
            node("MaxPool", "x", "p"),
            node("Conv", "p w", "c"),
            node("Flatten", "c", "f"),
            node("Gemm", "f w", "g"),
            node("Sigmoid", "g", "s"),
        ],
        constants={"w": weight(1)},
    )
    amax = {"x": 1.0, "p": 2.0, "c": 1.0, "f": 2.0, "g": 1.0, "s": 9.0}
    assert severities(judge(network, amax)) == [ERROR, ERROR, ERROR]
    assert severities(judge(network, {**amax, "s": 1.0})) == [WARNING, WARNING]


@given(
    st.dictionaries(tensor_names(), st.floats(width=32), max_size=10),
    st.dictionaries(tensor_names(), st.floats(width=32), max_size=10),
    st.sampled_from([FIRST_8, LATE_8, TEN, None]),
)
def test_any_numbers_can_be_judged(
    scales: dict[str, float], observed: dict[str, float], tensorrt: TensorRTVersion | None
) -> None:
    names = dict.fromkeys(activations(small_classifier()), 1.0)
    find_staleness(
        {**names, **scales}, small_classifier(), tensorrt=tensorrt, observed={**names, **observed}
    )
