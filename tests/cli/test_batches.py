"""`edgecal batches` as a user meets it: what is written, what is said, what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2  # noqa: TID253 - the pictures are made with it
import numpy as np
import pytest
import typer

from edgecal.adapters.batches import BatchFiles
from edgecal.adapters.datasets import open_dataset
from edgecal.cli.batches import batches
from edgecal.core.graph import TensorInfo
from edgecal.errors import DatasetError, EdgecalError, InputError
from tests.networks import conv_net, floats, save, token_net, two_input_net, vector_net

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = (TensorInfo(name="image", dtype="float32", shape=(None, 3, 8, 8)),)


@dataclass
class Desk:
    """A working directory with networks and data."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def run(self, *words: str) -> str:
        """Run the command; gives what it wrote to stdout, or raises what it raised."""
        app = typer.Typer()
        app.command()(batches)
        self.capture.readouterr()
        app(list(words), standalone_mode=False)
        return self.capture.readouterr().out

    def document(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*words, "--json"))
        return found

    def left(self) -> set[str]:
        return {one.name for one in self.folder.iterdir()}


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    monkeypatch.chdir(tmp_path)
    save(conv_net(), tmp_path / "net.onnx")
    save(conv_net(batch=4), tmp_path / "four.onnx")
    np.save(tmp_path / "data.npy", floats(7, 3, 8, 8))
    return Desk(tmp_path, capsys)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("--data", "data.npy"), InputError, "MODEL is missing"),
        (("net.onnx",), InputError, "--data is missing"),
        (("net.onnx", "--data", "none"), DatasetError, "no such file"),
        (("net.onnx", "--data", "data.npy", "--prefix", "b0"), DatasetError, "found again"),
        (("net.onnx", "--data", "data.npy", "--suffix", "/x"), DatasetError, "found again"),
        (("net.onnx", "--data", "data.npy", "--batch-size", "8"), DatasetError, "one batch of 8"),
        (("four.onnx", "--data", "data.npy", "--batch-size", "2"), DatasetError, "fixed to 4"),
        (("two.onnx", "--data", "data.npy"), DatasetError, "2 inputs"),
        (("token.onnx", "--data", "data.npy"), DatasetError, "of int64"),
        (("net.onnx", "--data", "taken"), DatasetError, "data to read lies there"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_left(
    desk: Desk, words: tuple[str, ...], error: type[EdgecalError], said: str
) -> None:
    save(two_input_net(), desk.folder / "two.onnx")
    save(token_net(), desk.folder / "token.onnx")
    before = desk.left()
    out = "taken" if "taken" in words else "out"
    with pytest.raises(error, match=said):
        desk.run(*words, "-o", out)
    assert desk.left() == before


def test_pictures_for_a_network_that_is_not_planar_are_refused(desk: Desk) -> None:
    folder = desk.folder / "photos"
    folder.mkdir()
    done, data = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
    assert done
    (folder / "a.png").write_bytes(data.tobytes())
    with pytest.raises(DatasetError, match="takes nhwc"):
        desk.run("net.onnx", "--data", "photos", "--layout", "nhwc", "-o", "out")
    found = desk.document("net.onnx", "--data", "photos", "-o", "out")
    assert [one["rule"] for one in found["findings"]] == ["preprocess-assumed"]
    assert found["shape"] == [1, 3, 8, 8]


def test_whole_batches_are_written_and_the_rest_is_said(desk: Desk) -> None:
    words = ("net.onnx", "--data", "data.npy", "--batch-size", "3", "-o", "out")
    assert desk.document(*words) == {
        "schema": "edgecal.batches/1",
        "folder": "out",
        "files": 2,
        "batch_size": 3,
        "shape": [3, 3, 8, 8],
        "samples": 6,
        "dropped": 1,
        "skipped": [],
        "excluded": [],
        "findings": [],
    }
    said = desk.run(*words)
    assert "out: 2 files of 3 x 3 x 8 x 8, from batch0.batch on" in said
    assert "6, 1 of an incomplete batch dropped" in said


def test_the_networks_own_batch_size_is_taken(desk: Desk) -> None:
    assert desk.document("four.onnx", "--data", "data.npy", "-o", "out")["batch_size"] == 4
    assert desk.document("net.onnx", "--data", "data.npy", "-o", "out")["files"] == 7


def test_what_was_written_is_data_again(desk: Desk) -> None:
    desk.run(
        *("net.onnx", "--data", "data.npy", "--samples", "4", "--batch-size", "2"),
        *("--prefix", "batch_calibration", "--suffix", "", "-o", "out"),
    )
    assert {"batch_calibration0", "batch_calibration1"} < {
        one.name for one in (desk.folder / "out").iterdir()
    }
    dataset = open_dataset("out", IMAGE, preprocess=None)
    assert isinstance(dataset, BatchFiles)
    found = np.stack([sample.arrays["image"] for sample in dataset])
    assert np.array_equal(found, floats(7, 3, 8, 8)[:4])
    # a folder of batch files comes prepared: nothing is assumed of how pictures are
    again = desk.document("net.onnx", "--data", "out", "--batch-size", "4", "-o", "again")
    assert (again["samples"], again["findings"]) == (4, [])


def test_vectors_are_written_as_channels(desk: Desk) -> None:
    save(vector_net(), desk.folder / "vector.onnx")
    np.save(desk.folder / "vectors.npy", floats(3, 4))
    found = desk.document("vector.onnx", "--data", "vectors.npy", "-o", "out")
    assert found["shape"] == [1, 4, 1, 1]
