"""`edgecal.toml` on disk: the nearest one counts, and a broken one is named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from edgecal.adapters.project import find_project
from edgecal.errors import InventoryError
from tests.users import nobody


def test_the_nearest_one_upwards_counts(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "edgecal.toml").write_text("[calibrate]\nmodel = 'far.onnx'\n")
    assert find_project(below).calibrate.model == str(tmp_path / "far.onnx")
    (tmp_path / "a" / "edgecal.toml").write_text("[calibrate]\nmodel = 'near.onnx'\n")
    assert find_project(below).calibrate.model == str(tmp_path / "a" / "near.onnx")
    (below / "edgecal.toml").mkdir()  # a folder of that name is none
    assert find_project(below).source == str(tmp_path / "a" / "edgecal.toml")


@pytest.mark.parametrize("content", [b"[calibrate", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_one_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "edgecal.toml").write_bytes(content)
    with pytest.raises(InventoryError, match="cannot read the settings") as caught:
        find_project(tmp_path)
    assert caught.value.where == str(tmp_path / "edgecal.toml")


def test_folders_that_may_not_be_looked_into_have_none() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        below = base / "closed" / "mine"
        below.mkdir(parents=True)
        (base / "edgecal.toml").write_text("[calibrate]\nmodel = 'far.onnx'\n")
        base.chmod(0o755)
        (base / "closed").chmod(0)
        with nobody():
            found = find_project(below)
        (base / "closed").chmod(0o755)
    assert found.calibrate.model == str(base / "far.onnx")


def test_one_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "edgecal.toml").write_text("[calibrate]\n")
        (base / "edgecal.toml").chmod(0)
        with nobody(), pytest.raises(InventoryError, match="Permission denied"):
            find_project(base)
