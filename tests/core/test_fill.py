from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import CalibrationCache, Entry, Header, entry_of_scale
from edgecal.core.fill import Filled, fill_cache
from edgecal.core.graph import Graph, Node
from edgecal.core.usable import LEVELS, amax_of, is_usable
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InputError
from tests.graphs import graph, node, small_classifier, weight
from tests.strategies import scale_bits

ONE = "3c010a14"  # what TensorRT writes for a tensor bounded by 1


def cache(**amaxes: float | str) -> CalibrationCache:
    """A cache by amax, or by bits as text."""
    return CalibrationCache(
        header=Header(code=8502, algorithm="EntropyCalibration2"),
        entries=tuple(
            Entry(name, value) if isinstance(value, str) else entry_of_scale(name, value / LEVELS)
            for name, value in amaxes.items()
        ),
    )


def filled(
    network: Graph | list[Node],
    given_cache: CalibrationCache,
    *,
    tensorrt: str = "8.5.2",
    dla: bool = True,
    replace_unusable: bool = False,
) -> Filled:
    return fill_cache(
        given_cache,
        network if isinstance(network, Graph) else graph(network),
        parse_tensorrt(tensorrt),
        dla=dla,
        replace_unusable=replace_unusable,
        source="a.cache",
    )


def rules(found: Filled) -> dict[str, tuple[str, str]]:
    return {one.name: (one.rule, one.source) for one in found.changes}


def amaxes(found: Filled) -> dict[str, float]:
    return {one.tensor: round(amax_of(one), 6) for one in found.cache.entries}


def holes(found: Filled) -> set[str]:
    return {one.name for one in found.remaining}


def test_the_cache_of_another_network_is_refused() -> None:
    with pytest.raises(InputError, match="none of its 1 entries") as caught:
        filled([node("Relu", "x", "y")], cache(images=1.0))
    assert "--model" in caught.value.remedy


def test_what_only_measuring_tells_stays_a_hole_and_is_listed() -> None:
    for op in ("Add", "Mul", "Sub", "Div", "Conv", "MatMul", "BatchNormalization", "Exp"):
        found = filled([node(op, "x w", "y")], cache(x=1.0))
        assert found.changes == ()
        assert [(one.name, one.reason) for one in found.remaining] == [
            ("y", f"given by {op}: nothing known determines its range")
        ]


@pytest.mark.parametrize(
    "op",
    [
        *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"),
        *("DepthToSpace", "MaxPool", "AveragePool", "Resize", "Neg", "Abs"),
    ],
)
def test_what_moves_values_has_one_range_on_both_sides_to_the_bit(op: str) -> None:
    nodes = [node("Conv", "x w", "a"), node(op, "a", "b"), node("Conv", "b w", "c")]
    for known, hole in (("a", "b"), ("b", "a")):
        bits = "3c7ffff1"
        found = filled(nodes, cache(x=1.0, c=1.0, **{known: bits}))
        assert {one.tensor: one.bits for one in found.cache.entries}[hole] == bits
        assert rules(found)[hole][1] == known


def test_a_global_pool_is_bounded_by_its_input_and_tells_nothing_of_it() -> None:
    nodes = [node("Conv", "x w", "a"), node("GlobalAveragePool", "a", "b")]
    assert rules(filled(nodes, cache(a=3.0)))["b"] == ("never-beyond-input", "a")
    assert "a" in holes(filled(nodes, cache(x=1.0, b=3.0)))
    # before 8.0 it was a pooling layer, whose output TensorRT gave the input's scale
    before = filled(nodes, cache(x=1.0, b=3.0), tensorrt="7.1.3")
    assert rules(before)["a"] == ("pool", "b")


@pytest.mark.parametrize("op", ["Slice", "Gather", "Relu", "ReduceMean"])
def test_a_part_is_bounded_by_the_whole_and_does_not_bound_it(op: str) -> None:
    nodes = [node("Conv", "x w", "a"), node("Conv", "a w", "other"), node(op, "a", "b")]
    assert amaxes(filled(nodes, cache(a=3.0)))["b"] == 3.0
    assert "a" in holes(filled(nodes, cache(x=1.0, b=3.0)))


def test_a_concat_takes_the_largest_input_once_all_are_known() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Conv", "x w", "b"),
        node("Concat", "a b k", "cat", axis=1),
    ]
    network = graph(nodes, constants={"k": np.asarray([-4.0, 1.0], np.float32)})
    found = filled(network, cache(a=1.0, b=3.0, x=9.0))
    assert (amaxes(found)["cat"], rules(found)["cat"]) == (4.0, ("largest-part", "a, b, k"))
    assert holes(filled(network, cache(a=1.0, x=9.0))) == {"b", "cat"}


def test_inputs_of_a_concat_take_the_outputs_range_and_up_to_8_0_before_all_else() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "r"),
        node("Conv", "x w", "b"),
        node("Concat", "r b", "cat", axis=1),
    ]
    given_cache = cache(x=9.0, a=1.0, cat=3.0)
    new = filled(nodes, given_cache)
    assert rules(new) == {"r": ("never-beyond-input", "a"), "b": ("part-of-whole", "cat")}
    old = filled(nodes, given_cache, tensorrt="8.0.1")
    assert rules(old) == {"r": ("concat-copy", "cat"), "b": ("concat-copy", "cat")}


def test_a_split_is_as_large_as_its_largest_part() -> None:
    nodes = [node("Conv", "x w", "a"), node("Split", "a", "b c", axis=1)]
    assert amaxes(filled(nodes, cache(b=1.0, c=3.0, x=9.0)))["a"] == 3.0
    assert amaxes(filled(nodes, cache(a=2.0)))["c"] == 2.0
    assert "a" in holes(filled(nodes, cache(b=1.0, x=9.0)))


@pytest.mark.parametrize("op", ["Sigmoid", "Softmax", "HardSigmoid", "Tanh"])
def test_what_is_bounded_by_one_reads_as_in_real_caches(op: str) -> None:
    found = filled([node("Conv", "x w", "a"), node(op, "a", "b")], cache(x=9.0, a=20.0))
    assert {one.tensor: one.bits for one in found.cache.entries}["b"] == ONE


def test_a_tanh_of_little_is_little() -> None:
    found = filled([node("Tanh", "x", "y")], cache(x=0.25))
    assert amaxes(found)["y"] == 0.25


def test_a_sigmoids_input_follows_from_an_output_that_does_not_reach_one() -> None:
    silu = [
        node("Conv", "x w", "a"),
        node("Sigmoid", "a", "s"),
        node("Mul", "a s", "out"),
    ]
    found = filled(silu, cache(x=9.0, s=0.9, out=1.0))
    assert math.isclose(amaxes(found)["a"], math.log(9.0), rel_tol=1e-5)
    assert rules(found)["a"] == ("sigmoid-input", "s")
    for saturated in (cache(x=9.0, s=ONE, out=1.0), cache(x=9.0, s=0.5), cache(x=9.0)):
        assert "a" in holes(filled(silu, saturated))
    read_elsewhere = [*silu, node("Conv", "a w", "other")]
    assert "a" in holes(filled(read_elsewhere, cache(x=9.0, s=0.9)))


def test_what_only_a_relu_reads_takes_the_relus_range() -> None:
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b")]
    assert rules(filled(nodes, cache(x=9.0, b=2.0)))["a"] == ("read-by-relu-only", "b")
    also_an_output = graph(nodes, outputs=["a", "b"])
    assert "a" in holes(filled(also_an_output, cache(x=9.0, b=2.0)))


@pytest.mark.parametrize(
    ("attributes", "known", "amax"),
    [
        ({"min": 0.0, "max": 6.0}, 20.0, 6.0),
        ({"min": 0.0, "max": 6.0}, 2.0, 2.0),
        ({"min": 0.0, "max": 6.0}, None, 6.0),
        ({"min": -8.0, "max": 6.0}, None, 8.0),
        ({"min": 3.0, "max": 6.0}, 1.0, 3.0),
        ({"max": 6.0}, 20.0, 20.0),
        ({"max": 6.0}, None, None),
    ],
)
def test_a_clip_clips_its_inputs_range(
    attributes: dict[str, float], known: float | None, amax: float | None
) -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Conv", "a w", "z"),
        node("Clip", "a", "b", **attributes),
    ]
    found = filled(nodes, cache(x=9.0, **({} if known is None else {"a": known})))
    assert amaxes(found).get("b") == amax


def test_the_ends_of_a_clip_may_be_constants_and_must_be_known() -> None:
    nodes = [node("Conv", "x w", "a"), node("Clip", "a low high", "b")]
    ends = {"low": np.float32(0), "high": np.float32(6)}
    constants = {name: np.asarray(value) for name, value in ends.items()}
    assert amaxes(filled(graph(nodes, constants=constants), cache(x=9.0)))["b"] == 6.0
    only_one = graph(nodes, constants={"low": constants["low"]}, inputs=["x", "high"])
    assert "b" in holes(filled(only_one, cache(x=9.0, a=2.0)))


def test_padding_with_a_value_counts_and_cutting_is_not_followed() -> None:
    def net(pads: list[int], *more: str, mode: str = "constant") -> Graph:
        return graph(
            [node("Conv", "x w", "a"), node("Pad", f"a pads {' '.join(more)}", "b", mode=mode)],
            constants={"pads": np.asarray(pads), "five": np.asarray(-5.0, np.float32)},
            inputs=["x", "unknown"],
        )

    assert amaxes(filled(net([0, 1]), cache(a=3.0)))["b"] == 3.0
    assert amaxes(filled(net([0, 1], "five"), cache(a=3.0)))["b"] == 5.0
    assert amaxes(filled(net([0, 1], "five", mode="edge"), cache(a=3.0)))["b"] == 3.0
    assert amaxes(filled(net([0, 1]), cache(b=3.0, x=9.0)))["a"] == 3.0
    for network in (net([0, -1]), net([0, 1], "unknown")):
        assert "b" in holes(filled(network, cache(a=3.0)))


def test_a_resize_is_followed_where_it_stays_between_its_values() -> None:
    def net(**attributes: str) -> list[Node]:
        return [node("Conv", "x w", "a"), node("Resize", "a", "b", **attributes)]

    assert amaxes(filled(net(mode="linear"), cache(a=3.0)))["b"] == 3.0
    assert "a" in holes(filled(net(mode="linear"), cache(b=3.0, x=9.0)))
    assert "b" in holes(filled(net(mode="cubic"), cache(a=3.0)))
    crop = net(coordinate_transformation_mode="tf_crop_and_resize")
    assert "b" in holes(filled(crop, cache(a=3.0)))


def test_constants_of_tensorrt_10_are_measured_in_the_model_for_dla_only() -> None:
    network = graph(
        [node("MatMul", "x w", "a"), node("Add", "a zeros", "b"), node("Mul", "b odd", "c")],
        constants={
            "w": np.asarray([[-3.0, 1.0]], np.float32),
            "zeros": np.zeros(4, np.float32),
            "odd": np.asarray([np.nan, 1.0], np.float32),
        },
    )
    measured = cache(x=1.0, a=1.0, b=1.0, c=1.0)
    found = filled(network, measured, tensorrt="10.3.0")
    assert rules(found) == {"w_output": ("constant", "w")}
    assert amaxes(found)["w_output"] == 3.0
    assert holes(found) == {"zeros_output", "odd_output"}
    assert filled(network, measured, tensorrt="10.3.0", dla=False).changes == ()
    assert filled(network, measured, tensorrt="8.5.2").changes == ()


def test_an_embedding_is_bounded_by_its_table() -> None:
    network = graph(
        [node("Gather", "table ids", "y"), node("MatMul", "y w", "z")],
        inputs=["ids"],
        constants={"table": np.asarray([[1.0], [-7.0]], np.float32)},
        types={"ids": "int64"},
    )
    assert amaxes(filled(network, cache(z=1.0)))["y"] == 7.0


def test_without_dla_only_what_the_gpu_may_run_in_int8_is_filled() -> None:
    nodes = [
        node("Exp", "x", "a"),
        node("Sqrt", "a", "b"),
        node("Conv", "b w", "c"),
        node("Relu", "c", "d"),
    ]
    given_cache = cache(x=1.0, c=1.0)
    assert holes(filled(nodes, given_cache, dla=False)) == {"b"}
    assert holes(filled(nodes, given_cache, dla=True)) == {"a", "b"}


def test_operators_of_other_domains_are_not_known() -> None:
    strange = Node(name="n", op_type="Relu", inputs=("x",), outputs=("y",), domain="com.example")
    assert holes(filled([strange], cache(x=1.0))) == {"y"}


@pytest.mark.parametrize("odd", ["0", "7f800000", "7fc00000", "bf800000", "1"])
def test_unusable_scales_are_no_source_and_are_replaced_only_if_asked(odd: str) -> None:
    nodes = [node("Conv", "x w", "a"), node("Flatten", "a", "b"), node("Conv", "b w", "c")]
    kept = filled(nodes, cache(x=1.0, a=odd, b=2.0, c=1.0))
    assert kept.changes == ()
    assert "--replace-unusable" in kept.remaining[0].reason
    assert filled(nodes, cache(x=1.0, a=odd, c=1.0)).changes == ()
    replaced = filled(nodes, cache(x=1.0, a=odd, b=2.0, c=1.0), replace_unusable=True)
    assert [(one.name, one.before) for one in replaced.changes] == [("a", odd)]
    assert list(amaxes(replaced)) == ["x", "a", "b", "c"]
    assert amaxes(replaced)["a"] == 2.0


def test_rules_that_make_no_difference_go_before_bounds() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "b"),
        node("Reshape", "b s", "c"),
    ]
    assert rules(filled(nodes, cache(a=9.0, c=2.0)))["b"] == ("same-values", "c")


def test_a_long_chain_is_filled_from_its_end_in_no_time() -> None:
    count = 20_000
    nodes = [node("Reshape", f"t{i} s", f"t{i + 1}") for i in range(count)]
    network = graph(nodes, inputs=["t0"])
    begun = time.monotonic()
    found = filled(network, cache(**{f"t{count}": 2.0}))
    assert len(found.changes) == count
    assert time.monotonic() - begun < 10


def test_a_wide_concat_is_filled_in_no_time() -> None:
    names = [f"t{i}" for i in range(20_000)]
    nodes = [node("Reshape", f"{name} s", f"r{name}") for name in names]
    nodes.append(node("Concat", " ".join(f"r{name}" for name in names), "cat", axis=0))
    begun = time.monotonic()
    found = filled(graph(nodes, inputs=names), cache(**dict.fromkeys(names, 2.0)))
    assert rules(found)["cat"][0] == "largest-part"
    assert time.monotonic() - begun < 10


CLASSIFIER = small_classifier()
TENSORS = ["images", "conv", "bn", "relu", "pool", "left", "sum", "cat", "scaled", "kept"]
TENSORS += ["mean_out", "flat", "scores"]


def classifier_caches() -> st.SearchStrategy[CalibrationCache]:
    usual = st.floats(0.01, 100).map(lambda amax: entry_of_scale("", amax / LEVELS).bits)
    return st.dictionaries(st.sampled_from(TENSORS), st.one_of(usual, scale_bits())).map(
        lambda bits: cache(**bits)
    )


@given(
    before=classifier_caches(),
    tensorrt=st.sampled_from(["7.1.3", "8.0.1", "8.5.2", "10.3.0"]),
    dla=st.booleans(),
    replace_unusable=st.booleans(),
)
def test_filling_keeps_what_is_there_and_a_second_time_finds_nothing(
    *, before: CalibrationCache, tensorrt: str, dla: bool, replace_unusable: bool
) -> None:
    found = filled(
        CLASSIFIER, before, tensorrt=tensorrt, dla=dla, replace_unusable=replace_unusable
    )
    for old, new in zip(before.entries, found.cache.entries, strict=False):
        assert old == new or (replace_unusable and not is_usable(old) and is_usable(new))
    added = found.cache.entries[len(before.entries) :]
    assert all(is_usable(one) for one in added)
    assert {one.name for one in found.changes}.isdisjoint(holes(found))
    again = filled(
        CLASSIFIER, found.cache, tensorrt=tensorrt, dla=dla, replace_unusable=replace_unusable
    )
    assert (again.cache, again.changes) == (found.cache, ())
    assert holes(again) == holes(found)


@given(st.permutations(TENSORS), st.sets(st.sampled_from(TENSORS), max_size=6))
def test_the_order_of_the_file_does_not_matter(order: list[str], missing: set[str]) -> None:
    values = {name: float(place + 1) for place, name in enumerate(TENSORS)}
    plain = filled(CLASSIFIER, cache(**{k: v for k, v in values.items() if k not in missing}))
    mixed = filled(CLASSIFIER, cache(**{k: values[k] for k in order if k not in missing}))
    assert amaxes(plain) == amaxes(mixed)
    assert plain.changes == mixed.changes


def test_an_empty_cache_gets_what_needs_no_source() -> None:
    network = graph(
        [node("Conv", "x w", "a"), node("Sigmoid", "a", "y")], constants={"w": weight(4)}
    )
    assert rules(filled(network, cache())) == {"y": ("bounded-by-one", "the operator")}


@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid", "Softmax"])
def test_a_gated_tensor_reaches_no_further_than_without_its_gate(gate: str) -> None:
    nodes = [node("Conv", "x w", "a"), node(gate, "a", "g"), node("Mul", "g a", "y")]
    found = filled(nodes, cache(x=1.0, a=3.0))
    assert rules(found)["y"] == ("gated", "a")
    assert amaxes(found)["y"] == 3.0
    both_known = filled([*nodes[:2], node("Mul", "a other", "y")], cache(x=1.0, a=3.0, other=9.0))
    assert "y" in holes(both_known)
