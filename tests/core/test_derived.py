from __future__ import annotations

import numpy as np
import pytest

from edgecal.core.derived import View, views
from edgecal.core.graph import Graph, Node
from edgecal.core.histogram import UNCLAMPED, Clamp
from edgecal.core.sweep import MOST_GRIDS
from edgecal.core.tensors import activations
from tests.graphs import graph, node, small_classifier

LARGEST = float(np.finfo(np.float32).max)
BOUNDS = {
    "zero": np.asarray(0, np.float32),
    "one": np.asarray(1, np.float32),
    "six": np.asarray([6], np.float32),
    "several": np.asarray([1, 2], np.float32),
    "nan": np.asarray(np.nan, np.float32),
    "infinite": np.asarray(np.inf, np.float32),
}


def net(*nodes: Node, opset: int = 17) -> Graph:
    made = graph(nodes, constants=BOUNDS, inputs=["x", "s"])
    return Graph(
        inputs=made.inputs,
        outputs=made.outputs,
        nodes=made.nodes,
        tensors=made.tensors,
        constants=made.constants,
        opset=opset,
    )


def test_every_activation_is_shown_by_one_that_shows_itself() -> None:
    network = small_classifier()
    shown = views(network)
    assert tuple(shown) == activations(network)
    assert all(shown[view.source] == View(view.source) for view in shown.values())
    assert {name: view for name, view in shown.items() if view != View(name)} == {
        "relu": View("bn", Clamp(low=0.0)),
        "kept": View("scaled"),
        "flat": View("mean_out"),
    }


@pytest.mark.parametrize(
    "op_type", ["Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout"]
)
def test_what_moves_values_shows_its_input(op_type: str) -> None:
    assert views(net(node(op_type, "x", "y")))["y"] == View("x")


@pytest.mark.parametrize(
    "op_type", ["Conv", "MaxPool", "AveragePool", "Resize", "Concat", "Slice", "LeakyRelu", "Abs"]
)
def test_what_changes_leaves_out_or_repeats_values_is_looked_at(op_type: str) -> None:
    assert views(net(node(op_type, "x", "y")))["y"] == View("y")


@pytest.mark.parametrize(
    ("clip", "clamp"),
    [
        (node("Clip", "x zero six", "y"), Clamp(0.0, 6.0)),
        (node("Clip", "x - six", "y"), Clamp(-LARGEST, 6.0)),
        (node("Clip", "x zero", "y"), Clamp(0.0, LARGEST)),
        (node("Clip", "x", "y"), Clamp(-LARGEST, LARGEST)),
        (node("Clip", "x", "y", min=0.0, max=6.0), Clamp(0.0, 6.0)),
        (node("Relu", "x", "y"), Clamp(low=0.0)),
    ],
)
def test_what_cuts_values_off_is_a_clamp(clip: Node, clamp: Clamp) -> None:
    assert views(net(clip))["y"] == View("x", clamp)


@pytest.mark.parametrize(
    "clip",
    [
        node("Clip", "x zero s", "y"),
        node("Clip", "x several", "y"),
        node("Clip", "x nan", "y"),
        node("Clip", "x zero infinite", "y"),
        node("Clip", "x six zero", "y"),
        node("Clip", "x", "y", min="0"),
        node("Clip", "", "y"),
    ],
)
def test_a_clip_whose_bounds_are_unknown_or_odd_is_looked_at(clip: Node) -> None:
    assert views(net(clip))["y"] == View("y")


def test_chains_are_followed_to_what_shows_itself() -> None:
    network = net(
        node("Relu", "x", "a"),
        node("Reshape", "a s", "b"),
        node("Clip", "b one six", "c"),
        node("Identity", "c", "d"),
        node("Abs", "d", "e"),
        node("Relu", "e", "f"),
        node("Relu", "zero", "g"),
    )
    assert views(network) == {
        "x": View("x"),
        "s": View("s"),
        "a": View("x", Clamp(low=0.0)),
        "b": View("x", Clamp(low=0.0)),
        "c": View("x", Clamp(1.0, 6.0)),
        "d": View("x", Clamp(1.0, 6.0)),
        "e": View("e"),
        "f": View("e", Clamp(low=0.0)),
        "g": View("g"),
    }


def test_a_dropout_that_may_drop_is_looked_at() -> None:
    assert views(net(node("Dropout", "x", "y"), opset=6))["y"] == View("y")
    assert views(net(node("Dropout", "x one s", "y")))["y"] == View("y")
    assert views(net(node("Dropout", "x one", "y")))["y"] == View("x")


def test_an_operator_of_somebody_else_is_looked_at() -> None:
    foreign = Node(name="r", op_type="Relu", inputs=("x",), outputs=("y",), domain="com.example")
    assert views(net(foreign))["y"] == View("y")


def test_only_so_many_clamps_of_one_tensor_are_derived() -> None:
    clips = [node("Clip", "x", f"y{number}", max=float(number)) for number in range(20)]
    shown = views(net(*clips, node("Relu", "y19", "z"), node("Clip", "x", "again", max=0.0)))
    of_x = {view.clamp for view in shown.values() if view.source == "x"}
    assert len(of_x) == MOST_GRIDS
    assert UNCLAMPED in of_x
    assert shown["y19"] == View("y19")
    assert shown["z"] == View("y19", Clamp(low=0.0))
    assert shown["again"] == shown["y0"]
