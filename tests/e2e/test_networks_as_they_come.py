"""`edgecal calibrate` on networks as users have them: half floats, integers, dynamic, foreign."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.reference_builder import ReferenceBuilder
from edgecal.cli import app
from edgecal.core.cache import parse_cache
from edgecal.core.golden import GoldenRun, parse_golden
from edgecal.core.manifest import CACHE_FILE, GOLDEN_FILE
from tests.networks import (
    conv_net,
    floats,
    half_net,
    masked_token_net,
    network,
    picture_net,
    plugin_net,
    save,
    tensor,
)

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.core.manifest import Manifest


@dataclass
class Desk:
    """A working directory, and the command run in it."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def calibrate(self, *words: str, data: str = "data.npz") -> tuple[int, dict[str, Any]]:
        self.capture.readouterr()
        code: object = 0
        try:
            app.main(
                [
                    *("calibrate", "net.onnx", "--data", data, "--tensorrt", "10.3"),
                    *("-o", "net.edgecal", "--json", *words),
                ]
            )
        except SystemExit as end:
            code = end.code
        said = self.capture.readouterr()
        assert "Traceback" not in said.out + said.err
        document: dict[str, Any] = json.loads(said.out)
        return (code if isinstance(code, int) else 0), document

    def refused(self, *words: str, data: str = "data.npz") -> str:
        """Give what was said, with the remedy; nothing may have been written."""
        code, document = self.calibrate(*words, data=data)
        assert code == 2
        assert not (self.folder / "net.edgecal").exists()
        return f"{document['error']['what']} | {document['error']['remedy']}"

    def write(self, proto: onnx.ModelProto, **arrays: object) -> None:
        save(proto, self.folder / "net.onnx")
        np.savez(self.folder / "data.npz", **arrays)  # type: ignore[arg-type]

    def manifest(self) -> Manifest:
        return read_bundle(self.folder / "net.edgecal").manifest

    def tensors(self) -> set[str]:
        data = (self.folder / "net.edgecal" / CACHE_FILE).read_bytes()
        return {entry.tensor for entry in parse_cache(data).entries}

    def golden(self) -> tuple[GoldenRun, ...]:
        return parse_golden(
            (self.folder / "net.edgecal" / GOLDEN_FILE).read_bytes(), source="golden"
        )


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, capsys)


IMAGES = floats(24, 3, 8, 8)


class TestFloat16:
    @pytest.mark.parametrize("edges", [True, False])
    def test_it_is_calibrated_as_its_float32_twin_is(self, desk: Desk, *, edges: bool) -> None:
        desk.write(conv_net(), image=IMAGES)
        assert desk.calibrate("--algorithm", "minmax")[0] == 0
        plain = parse_cache((desk.folder / "net.edgecal" / CACHE_FILE).read_bytes()).scales()
        desk.write(half_net(edges=edges), image=IMAGES)
        assert desk.calibrate("--algorithm", "minmax")[0] == 0
        half = parse_cache((desk.folder / "net.edgecal" / CACHE_FILE).read_bytes()).scales()
        assert set(plain) <= set(half)
        assert all(np.isclose(half[name], scale, rtol=5e-3) for name, scale in plain.items())

    def test_the_bundle_holds_the_bytes_and_types_that_were_given(self, desk: Desk) -> None:
        desk.write(half_net(), image=IMAGES)
        assert desk.calibrate()[0] == 0
        assert (desk.folder / "net.edgecal" / "model.onnx").read_bytes() == (
            desk.folder / "net.onnx"
        ).read_bytes()
        assert desk.manifest().model.inputs[0].dtype == "float16"
        for run in desk.golden():
            for arrays in (run.inputs, run.fp32, run.int8):
                assert {value.dtype for value in arrays.values()} == {np.dtype(np.float16)}

    def test_the_reference_builder_makes_an_engine_that_takes_its_golden_runs(
        self, desk: Desk
    ) -> None:
        desk.write(half_net(), image=IMAGES)
        assert desk.calibrate("--algorithm", "minmax")[0] == 0
        folder = desk.folder / "net.edgecal"
        ((name, data),) = ReferenceBuilder().support_files().items()
        (desk.folder / name).write_bytes(data)
        run = desk.golden()[0]
        run.inputs["image"].tofile(desk.folder / "image.raw")
        spec = [{"name": "image", "file": "image.raw", "dtype": "<f2", "shape": [1, 3, 8, 8]}]
        (desk.folder / "spec.json").write_text(json.dumps([spec]))
        for words in (
            ["build", str(folder / "model.onnx"), "engine.onnx", str(folder / CACHE_FILE)],
            ["run", "engine.onnx", "spec.json", "out.npz"],
        ):
            subprocess.run(
                [sys.executable, name, *words], cwd=desk.folder, check=True, capture_output=True
            )
        (found,) = ReferenceBuilder().parse_outputs(
            (desk.folder / "out.npz").read_bytes(), source="out"
        )
        assert found["scores"].dtype == np.float16
        assert np.allclose(found["scores"], run.int8["scores"], atol=0.05)


class TestInputs:
    def test_whole_numbers_and_floats_feed_one_network(self, desk: Desk) -> None:
        ids = np.random.default_rng(0).integers(0, 10, (20, 6))
        desk.write(masked_token_net(), ids=ids, weights=floats(20, 6, 1))
        assert desk.calibrate()[0] == 0
        assert {"weights", "embedded", "weighted", "mm"} <= desk.tensors()
        assert "ids" not in desk.tensors()
        assert desk.golden()[0].inputs["ids"].dtype == np.int64

    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float64"])
    def test_an_input_of_any_kind_of_number_is_fed_as_it_is(self, desk: Desk, dtype: str) -> None:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        nodes = [
            helper.make_node("Cast", ["x"], ["f"], "cast", to=onnx.TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "w"], ["y"], "mm"),
        ]
        x = np.random.default_rng(0).integers(0, 2, (20, 4)).astype(dtype)
        desk.write(
            network(
                nodes, [tensor("x", ["n", 4], kind)], [tensor("y", ["n", 4])], {"w": floats(4, 4)}
            ),
            x=x,
        )
        assert desk.calibrate()[0] == 0
        assert desk.golden()[0].inputs["x"].dtype == np.dtype(dtype)
        assert {"f", "y"} <= desk.tensors()

    def test_numbers_that_do_not_fit_are_named(self, desk: Desk) -> None:
        desk.write(masked_token_net(), ids=floats(20, 6), weights=floats(20, 6, 1))
        assert "'ids' wants int64" in desk.refused()


class TestShapes:
    def test_what_contradicts_network_or_data_leaves_no_bundle(self, desk: Desk) -> None:
        desk.write(picture_net(), image=IMAGES)
        assert "?x3x?x?" in desk.refused("--shape", "image=1x4x8x8")
        assert "'image' of ?x3x?x?" in desk.refused("--shape", "picture=1x3x8x8")
        assert "1x3x640x640" in desk.refused("--shape", "image")
        assert "wants samples of 3x16x16, found 3x8x8" in desk.refused("--shape", "image=1x3x16x16")
        assert "fixed to 4" in desk.refused("--shape", "image=4x3x8x8", "--batch-size", "2")

    def test_it_settles_the_batch_too_and_stands_in_the_manifest(self, desk: Desk) -> None:
        desk.write(picture_net(), image=IMAGES[:23])
        assert desk.calibrate("--shape", "image=4x3x8x8")[0] == 0
        manifest = desk.manifest()
        assert manifest.model.settled == {"image": (4, 3, 8, 8)}
        assert manifest.model.inputs[0].shape == (-1, 3, -1, -1)
        assert manifest.data.batch_size == 4
        assert {run.inputs["image"].shape for run in desk.golden()} == {(4, 3, 8, 8)}

    def test_a_project_may_say_it_and_the_command_line_outweighs_it(self, desk: Desk) -> None:
        desk.write(picture_net(), image=IMAGES)
        project = desk.folder / "edgecal.toml"
        project.write_text('[calibrate.shapes]\nimage = "2x3x8x8"\n')
        assert desk.calibrate()[0] == 0
        assert desk.manifest().model.settled == {"image": (2, 3, 8, 8)}
        assert desk.calibrate("--shape", "image=1x3x8x8")[0] == 0
        assert desk.manifest().model.settled == {"image": (1, 3, 8, 8)}

    def test_without_it_the_data_decides_and_the_manifest_says_nothing(self, desk: Desk) -> None:
        desk.write(picture_net(), image=IMAGES)
        assert desk.calibrate()[0] == 0
        assert not desk.manifest().model.settled
        assert "settled" not in (desk.folder / "net.edgecal" / "manifest.json").read_text()

    def test_a_derived_bundle_keeps_it_and_none_can_be_chosen_for_one(self, desk: Desk) -> None:
        desk.write(picture_net(), image=IMAGES)
        assert desk.calibrate("--shape", "image=1x3x8x8")[0] == 0
        words = ["calibrate", "--from", "net.edgecal", "-o", "other.edgecal", "-q"]
        with pytest.raises(SystemExit) as end:
            app.main([*words, "--shape", "image=1x3x8x8"])
        assert end.value.code == 2
        assert "--shape belongs to a pass" in desk.capture.readouterr().err
        with pytest.raises(SystemExit):
            app.main(words)
        derived = read_bundle(desk.folder / "other.edgecal").manifest
        assert derived.model.settled == {"image": (1, 3, 8, 8)}


class TestFiles:
    def test_weights_in_a_file_of_their_own_go_into_the_bundle(self, desk: Desk) -> None:
        desk.write(conv_net(), image=IMAGES)
        onnx.save_model(
            conv_net(),
            "net.onnx",
            save_as_external_data=True,
            location="net.weights",
            size_threshold=0,
        )
        assert desk.calibrate()[0] == 0
        assert (desk.folder / "net.edgecal" / "net.weights").read_bytes() == (
            desk.folder / "net.weights"
        ).read_bytes()
        (desk.folder / "net.edgecal").rename(desk.folder / "old")
        (desk.folder / "net.weights").unlink()
        assert "'net.weights', which is not there" in desk.refused()

    @pytest.mark.parametrize("opset", [7, 11])
    def test_old_opsets_are_calibrated(self, desk: Desk, opset: int) -> None:
        desk.write(conv_net(opset=opset, ir=3), image=IMAGES)
        assert desk.calibrate()[0] == 0
        assert desk.manifest().model.opset == opset
        assert "conv" in desk.tensors()


class TestRefused:
    def test_control_flow(self, desk: Desk) -> None:
        branches = {
            name: helper.make_graph(
                [helper.make_node("Relu", ["image"], [name])], name, [], [tensor(name, None)]
            )
            for name in ("then_branch", "else_branch")
        }
        node = helper.make_node("If", ["yes"], ["y"], "choice")
        node.attribute.extend(helper.make_attribute(*one) for one in branches.items())
        proto = network(
            [node],
            [tensor("image", ["n", 3, 8, 8]), tensor("yes", [1], onnx.TensorProto.BOOL)],
            [tensor("y", None)],
        )
        desk.write(proto, image=IMAGES, yes=np.ones((24, 1), bool))
        said = desk.refused()
        assert "'choice' (If)" in said
        assert "traced instead of scripted" in said

    def test_plugins_of_tensorrt(self, desk: Desk) -> None:
        desk.write(plugin_net(), image=IMAGES)
        said = desk.refused()
        assert "'nms' (EfficientNMS_TRT)" in said
        assert '["boxes", "scores"]' in said

    @pytest.mark.parametrize(
        ("name", "data", "way"),
        [
            ("net.pb", b"\x0a\x14\x0a\x05image\x12\x0bPlaceholder", "--graphdef net.pb"),
            ("net.pt", b"PK\x03\x04", "torch.onnx.export"),
            ("net.engine", b"ptrt", "the ONNX file that it was built from"),
        ],
    )
    def test_networks_of_others(self, desk: Desk, name: str, data: bytes, way: str) -> None:
        desk.write(conv_net(), image=IMAGES)
        (desk.folder / name).write_bytes(data)
        words = ["calibrate", name, "--data", "data.npz", "--tensorrt", "10.3", "-o", "n.edgecal"]
        with pytest.raises(SystemExit) as end:
            app.main([*words, "--json"])
        assert end.value.code == 2
        assert way in json.loads(desk.capture.readouterr().out)["error"]["remedy"]
