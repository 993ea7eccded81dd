"""A bundle for TensorRT 11 from the command line to a target on a real sshd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from tests.e2e.test_push_command import Desk
from tests.networks import conv_net, floats, save

if TYPE_CHECKING:
    from edgecal.adapters.loopback import LoopbackServer

DATA = ("net.onnx", "--data", "data.npy", "--algorithm", "minmax")


class ExplicitDesk(Desk):
    """A user's working directory with a network, data, and a target called `bench`."""

    def prepare(self) -> None:
        save(conv_net(), self.folder / "net.onnx")
        np.save(self.folder / "data.npy", floats(24, 3, 8, 8))
        self.write_project()

    def file(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)


@pytest.fixture
def desk(tmp_path: Path, sshd: LoopbackServer) -> ExplicitDesk:
    class Nothing:
        path = Path("net-11.0.edgecal")

    made = ExplicitDesk(tmp_path, sshd, Nothing())  # type: ignore[arg-type]  # not made yet
    made.prepare()
    return made


def calibrate(desk: ExplicitDesk, *words: str) -> dict[str, Any]:
    code, document = desk.ask("calibrate", *words)
    assert code == 0, document
    return document


def test_one_pass_makes_bundles_of_both_forms_and_the_right_one_goes_out(
    desk: ExplicitDesk,
) -> None:
    made = calibrate(desk, *DATA, "-o", "net.edgecal", "--tensorrt", "8.5", "--tensorrt", "11.0")
    assert made["bundles"] == ["net-8.5.edgecal", "net-11.0.edgecal"]
    assert made["forms"] == ["cache", "qdq"]
    bundle = desk.file("net-11.0.edgecal")
    assert (bundle / "model.onnx").read_bytes() == desk.file("net.onnx").read_bytes()
    assert not (bundle / "calibration.cache").exists()
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["explicit"]["minimum_tensorrt"] == "10.0.0"

    code, document = desk.ask("push", "net-11.0.edgecal", "--target", "bench")
    (target,) = document["targets"]
    assert (code, target["state"]) == (0, "active"), target
    assert target["build"]["proof"] == "proved"
    assert target["verification"]["passed"]
    current = desk.root / "models" / "net-11.0" / "current"
    engine = (current / "model.int8.onnx").read_bytes()
    assert engine == (bundle / "model.qdq.onnx").read_bytes()
    pairs = [one for one in onnx.load_from_string(engine).graph.node if "quantize" in one.name]
    assert pairs

    code, document = desk.ask("rebuild", "--target", "bench")
    assert code == 0, document
    code, document = desk.ask("audit", "--bundle", "net-11.0.edgecal")
    assert code == 0, document


def test_what_the_story_tells_of_such_a_bundle(desk: ExplicitDesk) -> None:
    for words, typed in (((), "FP16; for TensorRT 10.0"), (("--no-fp16",), "FP32; for TensorRT")):
        done = desk.run("calibrate", *DATA, "-o", "n.edgecal", "--tensorrt", "11.0", *words)
        assert done.returncode == 0, done.stderr
        assert "Q/DQ pairs for 3 activations and 2 weights" in done.stdout
        assert typed in done.stdout


def test_the_cache_commands_point_at_the_network(desk: ExplicitDesk) -> None:
    calibrate(desk, *DATA, "-o", "n.edgecal", "--tensorrt", "11.0")
    for words in (
        ("show", "n.edgecal"),
        ("check", "n.edgecal"),
        ("convert", "n.edgecal", "--to", "json", "-o", "x.json"),
        ("edit", "n.edgecal", "--set", "relu=1", "-o", "x.edgecal"),
        ("restamp", "n.edgecal", "--tensorrt", "8.5", "-o", "x.edgecal"),
    ):
        code, document = desk.ask("cache", *words)
        assert code == 2, words
        assert "convert n.edgecal/model.qdq.onnx --to json" in document["error"]["remedy"]
    code, document = desk.ask(
        "cache", "convert", "n.edgecal/model.qdq.onnx", "--to", "json", "-o", "x.json"
    )
    assert (code, document["tensors"]) == (0, 3)


def test_a_bundle_for_tensorrt_8_is_derived_from_it(desk: ExplicitDesk) -> None:
    calibrate(desk, *DATA, "-o", "n.edgecal", "--tensorrt", "8.5", "--tensorrt", "11.0")
    refused = desk.run("check", "n-11.0.edgecal", "--tensorrt", "8.5.2", "--device", "agx-xavier")
    assert refused.returncode == 3
    words = ("--from", "n-11.0.edgecal", "--tensorrt", "8.5", "--algorithm", "minmax")
    assert calibrate(desk, *words, "-o", "again.edgecal")["forms"] == ["cache"]
    first, again = desk.file("n-8.5.edgecal"), desk.file("again.edgecal")
    for name in ("calibration.cache", "histograms.npz", "golden.npz"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    fits = desk.run("check", "again.edgecal", "--tensorrt", "8.5.2", "--device", "agx-xavier")
    assert fits.returncode == 0, fits.stderr
