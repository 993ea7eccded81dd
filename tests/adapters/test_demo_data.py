"""What ships with edgecal for the demo: unpacked whole, and only where it belongs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from edgecal.adapters.demo_data import unpack_demo
from edgecal.adapters.onnx_model import read_model
from edgecal.errors import InputError
from tests.users import nobody


def test_every_picture_for_testing_has_a_label_and_the_network_is_whole(tmp_path: Path) -> None:
    data = unpack_demo(tmp_path / "deep" / "demo")
    assert len(list(data.calibration.glob("*.png"))) == 256
    pictures = sorted(data.test.rglob("*.png"))
    assert len(pictures) == 1000
    labelled = {Path(name).name for name in data.labels}
    assert {one.name for one in pictures} <= labelled
    assert set(data.labels.values()) == set(range(10))
    assert read_model(data.model).graph.inputs[0].shape == (None, 1, 28, 28)


def test_it_may_be_unpacked_again_over_what_was_damaged(tmp_path: Path) -> None:
    data = unpack_demo(tmp_path / "demo")
    data.model.write_bytes(b"")
    first = next(data.calibration.iterdir())
    first.unlink()
    (data.calibration / "stray.png").touch()
    unpack_demo(tmp_path / "demo")
    assert data.model.stat().st_size > 1000
    assert first.exists()
    assert not (data.calibration / "stray.png").exists()


def test_it_does_not_go_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty") as caught:
        unpack_demo(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(InputError, match="cannot write the demo's files"):
        unpack_demo(tmp_path / "demo")
    assert (tmp_path / "demo").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        with nobody(), pytest.raises(InputError, match="Permission denied"):
            unpack_demo(Path(name) / "demo")
        Path(name).chmod(0o755)
