"""ONNX files as they are met: broken, old, new, with weights elsewhere, or not fit for INT8."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecal.adapters.onnx_model import OnnxModel, raise_opset, read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.core.tensors import activations
from edgecal.errors import ModelError
from tests.networks import OLD_IR, conv_net, floats, network, save, tensor, token_net, vector_net

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEWEST_OPSET = 26
"""The newest opset that is not under development in the oldest onnx and onnxruntime in use."""


def newest_opset() -> int:
    return min(NEWEST_OPSET, onnx.defs.onnx_opset_version())


def refuse(proto: onnx.ModelProto, path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(save(proto, path / "net.onnx"))
    assert caught.value.where == str(path / "net.onnx")
    assert "\n" not in caught.value.what
    return caught.value.what


def one_node(node: onnx.NodeProto, *, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    return network([node], [tensor("x", ["n", 4], kind)], [tensor("y", ["n", 4], kind)])


def identity(kind: int) -> onnx.ModelProto:
    return one_node(helper.make_node("Identity", ["x"], ["y"]), kind=kind)


def wide_net(*, ir: int = 8) -> onnx.ModelProto:
    """A weight of 2000 elements."""
    w = floats(40, 50)
    inputs = [tensor("x", ["n", 40])]
    if ir <= OLD_IR:
        inputs.append(tensor("w", w.shape))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["mm"]),
        helper.make_node("Relu", ["mm"], ["y"]),
    ]
    return network(nodes, inputs, [tensor("y", ["n", 50])], {"w": w}, ir=ir)


def with_external(proto: onnx.ModelProto, path: Path, location: str = "net.weights") -> Path:
    """Move the weights into a file of their own."""
    target = path.parent / location
    target.parent.mkdir(parents=True, exist_ok=True)
    data = b""
    for one in proto.graph.initializer:
        raw = one.raw_data
        one.ClearField("raw_data")
        one.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", len(data)), ("length", len(raw))):
            one.external_data.add(key=key, value=str(value))
        data += raw
    target.write_bytes(data)
    return save(proto, path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b""), "corrupt: the file is empty"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid 1\n"),
            "only a pointer of Git LFS",
        ),
        (lambda path: path.write_bytes(b"\x00" * 500), "corrupt"),
        (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" * 300), "corrupt"),
        (lambda path: path.write_text("this is a README, not a network\n" * 50), "corrupt"),
        (lambda path: path.write_text('{"irVersion": "8", "graph": {}}'), "corrupt"),
        (lambda path: path.mkdir(), "cannot read the model: Is a directory"),
        (lambda _path: None, "cannot read the model: No such file or directory"),
        (lambda path: path.symlink_to("loop.onnx"), "cannot read the model"),
    ],
)
def test_what_is_no_network_is_refused_by_its_path(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "loop.onnx"
    make(path)
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert said in caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.remedy


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95, 0.999])
def test_a_file_that_was_cut_off_is_corrupt(tmp_path: Path, share: float) -> None:
    data = conv_net().SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match="corrupt"):
        read_model(path)


def test_any_flipped_bit_gives_a_network_or_a_refusal_and_nothing_else(tmp_path: Path) -> None:
    data = conv_net().SerializeToString()
    path = tmp_path / "net.onnx"
    refused = 0
    for position in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            read_model(path)
        except ModelError:
            refused += 1
    assert refused


@pytest.mark.parametrize("opset", [*range(7, 14), 17, 21, newest_opset()])
def test_every_opset_from_7_on_is_read_and_simulated(tmp_path: Path, opset: int) -> None:
    old = opset < 9
    model = read_model(save(conv_net(opset=opset, ir=3 if old else 8), tmp_path / "net.onnx"))
    assert model.graph.opset == opset
    assert [one.name for one in model.graph.inputs] == ["image"]
    backend = OrtBackend(model)
    names = activations(model.graph)
    assert names == ("image", "conv", "relu", "pool", "flat", "scores")
    feeds = {"image": floats(2, 3, 8, 8)}
    plain = backend.expose(names).run(feeds)
    simulated = backend.simulate(dict.fromkeys(names, 0.05)).run(feeds)
    assert np.allclose(plain["scores"], simulated["scores"], atol=1.0)


def test_an_opset_too_new_for_the_runtime_is_said_to_be_that(tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    if newest <= NEWEST_OPSET:
        pytest.skip(f"this onnx knows no opset after {newest}")
    model = read_model(save(conv_net(opset=newest, ir=8), tmp_path / "net.onnx"))
    with pytest.raises(ModelError) as caught:
        OrtBackend(model).expose(())
    assert f"Opset {newest}" in caught.value.what
    assert "onnxruntime_src" not in caught.value.what


def test_an_opset_that_cannot_be_raised_names_the_way_out(tmp_path: Path) -> None:
    names = ["scale", "bias", "mean", "var"]
    proto = network(
        [helper.make_node("BatchNormalization", ["x", *names], ["y"], spatial=0)],  # gone in 9
        [tensor("x", ["n", 4])],
        [tensor("y", ["n", 4])],
        {name: floats(4) for name in names},
        opset=7,
    )
    model = read_model(save(proto, tmp_path / "net.onnx"))
    with pytest.raises(ModelError, match="opset 7 cannot be raised to 13") as caught:
        raise_opset(model, 13)
    assert "\n" not in caught.value.what
    assert "opset 13 or later" in caught.value.remedy


@pytest.mark.parametrize("op_type", ["If", "Loop", "Scan"])
def test_control_flow_is_refused(tmp_path: Path, op_type: str) -> None:
    body = helper.make_graph([], "body", [], [])
    node = helper.make_node(op_type, ["x"], ["y"], "branch", then_branch=body)
    assert f"node 'branch' ({op_type}) is control flow" in refuse(one_node(node), tmp_path)


def test_control_flow_inside_a_function_of_the_file_is_found(tmp_path: Path) -> None:
    body = helper.make_graph([], "body", [], [])
    branch = helper.make_node("If", ["a"], ["b"], "branch", then_branch=body, else_branch=body)
    proto = one_node(helper.make_node("Choose", ["x"], ["y"], domain="own"))
    proto.opset_import.add(domain="own", version=1)
    proto.functions.append(
        helper.make_function("own", "Choose", ["a"], ["b"], [branch], proto.opset_import)
    )
    assert "'branch' (If)" in refuse(proto, tmp_path)


def test_many_nodes_of_control_flow_are_named_and_counted(tmp_path: Path) -> None:
    body = helper.make_graph([], "body", [], [])
    nodes = [
        helper.make_node("Loop", ["", "", "x"], [f"y{number}"], body=body) for number in range(5)
    ]
    proto = network(nodes, [tensor("x", ["n"])], [tensor("y4", ["n"])])
    assert "nodes 'y0' (Loop), 'y1' (Loop), 'y2' (Loop) and 2 more are" in refuse(proto, tmp_path)


@pytest.mark.parametrize("op_type", ["QuantizeLinear", "QLinearConv", "DynamicQuantizeLinear"])
def test_a_quantized_network_is_refused(tmp_path: Path, op_type: str) -> None:
    node = helper.make_node(op_type, ["x"], ["y"], "q")
    assert f"node 'q' is a {op_type}: the network is already quantized" in refuse(
        one_node(node), tmp_path
    )
    nameless = helper.make_node(op_type, ["x"], ["y"])
    assert f"node 'y' is a {op_type}" in refuse(one_node(nameless), tmp_path)


@pytest.mark.parametrize(
    ("kind", "word"),
    [(TensorProto.STRING, "object"), (TensorProto.BFLOAT16, "bfloat16")],
)
def test_inputs_that_no_sample_could_fill_are_refused(tmp_path: Path, kind: int, word: str) -> None:
    assert f"input 'x' is of type {word}" in refuse(identity(kind), tmp_path)


def test_an_input_of_no_type_is_refused(tmp_path: Path) -> None:
    proto = identity(TensorProto.FLOAT)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UNDEFINED
    assert "input 'x' is of type unknown" in refuse(proto, tmp_path)


def test_an_input_that_is_a_sequence_is_refused(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2]))
    proto = network(
        [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)],
        [helper.make_value_info("s", kind)],
        [tensor("y", [None])],
    )
    assert "input 's' is a sequence_type" in refuse(proto, tmp_path)


def test_a_network_without_inputs_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["c"], ["y"])
    proto = network([node], [], [tensor("y", [2])], {"c": floats(2)})
    assert "no inputs" in refuse(proto, tmp_path)


def test_an_operator_newer_than_the_opset_is_told_to_be_that(tmp_path: Path) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"])
    assert "an operator that its opset does not have" in refuse(one_node(node), tmp_path)


def test_a_huge_message_of_the_checker_stays_one_short_line(tmp_path: Path) -> None:
    proto = one_node(helper.make_node("Relu", ["gone\n" + "z" * 50_000], ["y"]))
    assert len(refuse(proto, tmp_path)) < 500


def test_outputs_without_a_declared_shape_are_no_corruption(tmp_path: Path) -> None:
    proto = vector_net()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    before = proto.SerializeToString()
    model = read_model(save(proto, tmp_path / "net.onnx"))
    assert model.proto.SerializeToString() == before
    assert OrtBackend(model).expose(()).run({"x": floats(2, 4)})["y"].shape == (2, 4)


def test_integer_inputs_and_outputs_are_no_activations(tmp_path: Path) -> None:
    model = read_model(save(token_net(), tmp_path / "net.onnx"))
    assert [one.dtype for one in model.graph.inputs] == ["int64"]
    assert activations(model.graph) == ("embedded", "mm")


def test_initializers_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = read_model(save(conv_net(ir=3), tmp_path / "net.onnx"))
    assert [one.name for one in model.graph.inputs] == ["image"]
    assert [one.name for one in model.record().inputs] == ["image"]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (
            helper.make_node(
                "Constant", [], ["c"], value=numpy_helper.from_array(np.full(4, 2.0, np.float32))
            ),
            [2.0] * 4,
        ),
        (helper.make_node("Constant", [], ["c"], value_float=2.0), 2.0),
        (helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0, 4.0]), [1, 2, 3, 4]),
    ],
)
def test_constant_nodes_are_constants_and_no_activations(
    tmp_path: Path, node: onnx.NodeProto, expected: object
) -> None:
    nodes = [node, helper.make_node("Mul", ["x", "c"], ["y"])]
    proto = network(nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])])
    model = read_model(save(proto, tmp_path / "net.onnx"))
    assert model.graph.constants["c"].tolist() == expected
    assert activations(model.graph) == ("x", "y")


def test_the_manifest_has_the_file_as_it_was_when_read(tmp_path: Path) -> None:
    path = save(vector_net(), tmp_path / "net.onnx")
    size = path.stat().st_size
    model = read_model(path)
    path.unlink()
    record = model.record()
    assert (record.source.path, record.source.size) == (str(path), size)
    assert record.inputs[0].shape == (-1, 4)
    assert record.opset == 13


class TestLargeWeights:
    """They are left out where onnx would copy them."""

    @pytest.mark.parametrize("ir", [3, 8])
    def test_shapes_are_inferred_and_weights_are_no_inputs(self, tmp_path: Path, ir: int) -> None:
        model = read_model(save(wide_net(ir=ir), tmp_path / "net.onnx"))
        assert [one.name for one in model.graph.inputs] == ["x"]
        assert model.graph.tensors["mm"].shape == (None, 50)
        assert model.graph.tensors["w"].shape == (40, 50)
        assert model.graph.constants["w"].shape == (40, 50)
        assert activations(model.graph) == ("x", "mm", "y")

    def test_one_that_is_cut_off_is_corrupt(self, tmp_path: Path) -> None:
        proto = wide_net()
        proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
        assert "corrupt" in refuse(proto, tmp_path)

    def test_one_that_does_not_fit_its_reader_is_refused_when_it_runs(self, tmp_path: Path) -> None:
        proto = wide_net()
        proto.graph.initializer[0].dims[:] = [50, 40]
        model = read_model(save(proto, tmp_path / "net.onnx"))
        with pytest.raises(ModelError):
            OrtBackend(model).expose(()).run({"x": floats(1, 40)})


class TestDigests:
    def digests(self, proto: onnx.ModelProto, folder: Path) -> tuple[str, str]:
        model = read_model(save(proto, folder / "net.onnx"))
        return model.digest, model.canonical_digest

    def test_words_about_the_network_change_only_the_digest_of_the_file(
        self, tmp_path: Path
    ) -> None:
        plain = self.digests(vector_net(), tmp_path)
        proto = vector_net()
        proto.doc_string = proto.graph.doc_string = "a model"
        proto.producer_name, proto.producer_version = "pytorch", "3.0"
        proto.metadata_props.add(key="author", value="somebody")
        for part in (proto.graph.node[0], proto.graph.initializer[0], proto.graph.input[0]):
            part.doc_string = "a part"
            part.metadata_props.add(key="stack_trace", value="/home/somebody/train.py")
        described = self.digests(proto, tmp_path)
        assert described[0] != plain[0]
        assert described[1] == plain[1]

    @pytest.mark.parametrize("make", [conv_net, token_net, wide_net, lambda: conv_net(ir=3)])
    def test_the_canonical_one_is_of_the_message_without_its_words(
        self, tmp_path: Path, make: Callable[[], onnx.ModelProto]
    ) -> None:
        proto = make()
        proto.graph.initializer[0].doc_string = "a weight"
        proto.producer_name = proto.doc_string = proto.graph.doc_string = "words"
        found = self.digests(proto, tmp_path)[1]
        proto.graph.initializer[0].ClearField("doc_string")
        proto.graph.ClearField("doc_string")
        for field in ("doc_string", "producer_name", "producer_version"):
            proto.ClearField(field)
        whole = proto.SerializeToString(deterministic=True)
        assert found == f"sha256:{hashlib.sha256(whole).hexdigest()}"

    def test_one_bit_of_a_weight_changes_both(self, tmp_path: Path) -> None:
        plain = self.digests(vector_net(), tmp_path)
        proto = vector_net()
        raw = bytearray(proto.graph.initializer[0].raw_data)
        raw[0] ^= 1
        proto.graph.initializer[0].raw_data = bytes(raw)
        changed = self.digests(proto, tmp_path)
        assert changed[0] != plain[0]
        assert changed[1] != plain[1]

    def test_where_the_weights_lie_does_not_change_what_the_network_computes(
        self, tmp_path: Path
    ) -> None:
        plain = self.digests(vector_net(), tmp_path)
        outside = read_model(with_external(vector_net(), tmp_path / "net.onnx"))
        assert outside.digest != plain[0]
        assert outside.canonical_digest == plain[1]


class TestExternalData:
    def read(self, folder: Path, location: str = "net.weights") -> OnnxModel:
        return read_model(with_external(conv_net(), folder / "net.onnx", location))

    @pytest.mark.parametrize("location", ["net.weights", "sub/folder/w.bin"])
    def test_weights_are_taken_in(self, tmp_path: Path, location: str) -> None:
        model = self.read(tmp_path, location)
        assert model.external_data == (location,)
        assert np.array_equal(model.graph.constants["w"], floats(4, 3, 3, 3))
        assert OrtBackend(model).expose(()).run({"image": floats(1, 3, 8, 8)})

    def test_a_location_is_spelled_as_a_path_inside_a_bundle(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, "./w.bin").external_data == ("w.bin",)

    def test_the_digest_covers_the_weights(self, tmp_path: Path) -> None:
        before = self.read(tmp_path).digest
        weights = tmp_path / "net.weights"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        assert read_model(tmp_path / "net.onnx").digest != before

    def test_a_missing_weight_file_is_named(self, tmp_path: Path) -> None:
        path = with_external(conv_net(), tmp_path / "net.onnx")
        (tmp_path / "net.weights").unlink()
        with pytest.raises(ModelError, match=r"'net\.weights', which is not there"):
            read_model(path)

    def test_a_weight_file_too_short_is_corruption(self, tmp_path: Path) -> None:
        path = with_external(conv_net(), tmp_path / "net.onnx")
        weights = tmp_path / "net.weights"
        weights.write_bytes(weights.read_bytes()[:-4])
        with pytest.raises(ModelError, match="too short"):
            read_model(path)

    @pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "/etc/hostname", ""])
    def test_weights_outside_the_folder_are_not_looked_at(
        self, tmp_path: Path, location: str
    ) -> None:
        (tmp_path / "w.bin").write_bytes(b"x" * 10_000)
        (tmp_path / "model").mkdir()
        path = with_external(conv_net(), tmp_path / "model" / "net.onnx")
        proto = onnx.load_model_from_string(path.read_bytes())
        for one in proto.graph.initializer:
            one.external_data[0].value = location
        assert "outside the model's folder" in refuse(proto, tmp_path / "model")

    @pytest.mark.parametrize(
        ("position", "value"), [(1, "-5"), (1, "many"), (2, "x"), (1, "9" * 30)]
    )
    def test_nonsense_about_their_place_is_corruption(
        self, tmp_path: Path, position: int, value: str
    ) -> None:
        path = with_external(conv_net(), tmp_path / "net.onnx")
        proto = onnx.load_model_from_string(path.read_bytes())
        proto.graph.initializer[0].external_data[position].value = value
        refuse(proto, tmp_path)

    def test_weights_cannot_take_the_name_of_another_file_of_a_bundle(self, tmp_path: Path) -> None:
        path = with_external(conv_net(), tmp_path / "net.onnx", "calibration.cache")
        with pytest.raises(ModelError, match="name of another file"):
            read_model(path)
