"""Networks that only TensorRT's plugins can run: read, refused when they should run, cut."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from onnx import helper

from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.core.tensors import activations
from edgecal.errors import ModelError
from tests.networks import conv_net, floats, network, plugin_net, save, tensor

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def refuse(proto: onnx.ModelProto, folder: Path) -> ModelError:
    model = read_model(save(proto, folder / "net.onnx"))  # reading asks nobody to run it
    with pytest.raises(ModelError) as caught:
        OrtBackend(model)
    assert caught.value.where == str(folder / "net.onnx")
    assert len(caught.value.what) < 500
    assert "\n" not in caught.value.what + caught.value.remedy
    return caught.value


def one_node(node: onnx.NodeProto) -> onnx.ModelProto:
    return network([node], [tensor("x", ["n", 4])], [tensor("y", ["n", 4])])


def test_an_operator_that_nobody_defines_is_named(tmp_path: Path) -> None:
    error = refuse(one_node(helper.make_node("EfficientNMS_TRT", ["x"], ["y"], "nms")), tmp_path)
    assert "node 'nms' (EfficientNMS_TRT) is of no operator that ONNX defines" in error.what
    assert "plugins of TensorRT" in error.remedy


@pytest.mark.parametrize("domains", [{"TRT": 1}, None])
def test_an_operator_of_a_domain_of_its_own_is_named_with_it(
    tmp_path: Path, domains: dict[str, int] | None
) -> None:
    nodes = [
        helper.make_node("Mish_TRT", ["x"], ["m"], domain="TRT"),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    proto = network(nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], domains=domains)
    error = refuse(proto, tmp_path)
    assert "'m' (Mish_TRT of domain 'TRT')" in error.what
    assert "extract_model" not in error.remedy  # what comes behind would be lost


def test_an_operator_that_onnx_defines_and_the_runtime_lacks_is_its_own_to_refuse(
    tmp_path: Path,
) -> None:
    node = helper.make_node("NoSuchThing", ["x"], ["y"], domain="com.microsoft")
    proto = network(
        [node], [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], domains={"com.microsoft": 1}
    )
    backend = OrtBackend(read_model(save(proto, tmp_path / "net.onnx")))
    with pytest.raises(ModelError, match="NoSuchThing"):
        backend.expose(())


def test_a_function_that_the_file_brings_along_is_no_plugin(tmp_path: Path) -> None:
    proto = one_node(helper.make_node("Twice", ["x"], ["y"], domain="own"))
    proto.opset_import.add(domain="own", version=1)
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(
        helper.make_function("own", "Twice", ["a"], ["b"], body, proto.opset_import)
    )
    backend = OrtBackend(read_model(save(proto, tmp_path / "net.onnx")))
    x = floats(2, 4)
    assert (backend.expose(()).run({"x": x})["y"] == 2 * x).all()


def test_a_huge_name_and_many_plugins_stay_one_short_line(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Odd\nname" + "x" * 50_000, ["x"], [f"y{number}"], "n" * 50_000)
        for number in range(9)
    ]
    proto = network(nodes, [tensor("x", ["n", 4])], [tensor("y0", ["n", 4])])
    assert "and 6 more are of no operator" in refuse(proto, tmp_path).what


def test_the_command_shown_cuts_the_plugins_off_and_keeps_names(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "here"'
    folder.mkdir()
    whole = read_model(save(plugin_net(), folder / "net.onnx"))
    error = refuse(plugin_net(), folder)
    words = shlex.split(error.remedy.partition("python ")[2].partition("; then ")[0])
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=60)
    cut = read_model(folder / "net-cut.onnx")
    assert [one.name for one in cut.graph.outputs] == ["boxes", "scores"]
    assert set(activations(cut.graph)) == {"image", "boxes", "scores"}
    assert set(activations(cut.graph)) <= set(activations(whole.graph))
    assert OrtBackend(cut).expose(("boxes",)).run({"image": floats(1, 3, 8, 8)})["scores"].size


def test_a_network_of_onnx_alone_is_not_refused(tmp_path: Path) -> None:
    assert OrtBackend(read_model(save(conv_net(), tmp_path / "net.onnx"))).graph.nodes
