"""`edgecal.toml` on disk: the nearest one counts, and a broken one is named."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from edgecal.adapters.project import find_project, read_project, read_toml
from edgecal.errors import InventoryError
from tests.users import nobody


def test_the_nearest_one_upwards_counts(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "edgecal.toml").write_text("[calibrate]\nmodel = 'far.onnx'\n")
    assert find_project(below, warn=pytest.fail).calibrate.model == str(tmp_path / "far.onnx")
    (tmp_path / "a" / "edgecal.toml").write_text("[calibrate]\nmodel = 'near.onnx'\n")
    assert find_project(below, warn=pytest.fail).calibrate.model == str(
        tmp_path / "a" / "near.onnx"
    )
    (below / "edgecal.toml").mkdir()  # a folder of that name is none
    assert find_project(below, warn=pytest.fail).source == str(tmp_path / "a" / "edgecal.toml")


@pytest.mark.parametrize("content", [b"[calibrate", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_one_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "edgecal.toml").write_bytes(content)
    with pytest.raises(InventoryError, match="cannot read the settings") as caught:
        find_project(tmp_path, warn=pytest.fail)
    assert caught.value.where == str(tmp_path / "edgecal.toml")


@pytest.mark.parametrize(("name", "said"), [("none.toml", "No such file"), ("", "Is a directory")])
def test_one_that_is_no_file_is_told_without_numbers(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InventoryError) as caught:
        read_toml(tmp_path / name)
    assert caught.value.what.startswith(f"cannot read the settings: {said}")
    assert "path" in caught.value.remedy


def test_folders_that_may_not_be_looked_into_have_none() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        below = base / "closed" / "mine"
        below.mkdir(parents=True)
        (base / "edgecal.toml").write_text("[calibrate]\nmodel = 'far.onnx'\n")
        base.chmod(0o755)
        (base / "closed").chmod(0)
        with nobody():
            found = find_project(below, warn=pytest.fail)
        (base / "closed").chmod(0o755)
    assert found.calibrate.model == str(base / "far.onnx")


def test_one_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "edgecal.toml").write_text("[calibrate]\n")
        (base / "edgecal.toml").chmod(0)
        with nobody(), pytest.raises(InventoryError, match="Permission denied"):
            find_project(base, warn=pytest.fail)


WITH_EXEC = '[targets.box]\nhost = "box"\nuser = "me"\nexec = ["docker", "exec", "-i", "app"]\n'


def test_a_command_counts_in_a_file_that_only_its_owner_or_group_can_change(
    tmp_path: Path,
) -> None:
    file = tmp_path / "edgecal.toml"
    file.write_text(WITH_EXEC)
    file.chmod(0o664)  # as a umask of 002 leaves it
    found = read_project(file, warn=pytest.fail)
    assert found.targets["box"].exec == ("docker", "exec", "-i", "app")


def test_a_command_in_a_file_that_anyone_can_change_is_ignored_and_said_to_be(
    tmp_path: Path,
) -> None:
    file = tmp_path / "edgecal.toml"
    file.write_text(WITH_EXEC)
    file.chmod(0o666)
    heard: list[str] = []
    found = find_project(tmp_path, warn=heard.append)
    assert found.targets["box"].exec == ()
    assert found.targets["box"].user == "me"
    assert len(heard) == 1
    assert "chmod o-w" in heard[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_command_in_another_users_file_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "edgecal.toml"
    file.write_text(WITH_EXEC)
    os.chown(file, 12345, 12345)
    heard: list[str] = []
    assert read_project(file, warn=heard.append).targets["box"].exec == ()
    assert "belongs to another user" in heard[0]


@pytest.mark.parametrize("line", ['trt_python = "p"', 'trt_container = "image"'])
def test_a_place_of_tensorrt_is_a_command_too(tmp_path: Path, line: str) -> None:
    file = tmp_path / "edgecal.toml"
    file.write_text(f'[calibrate]\nbackend = "tensorrt"\n{line}\n')
    file.chmod(0o666)
    heard: list[str] = []
    found = read_project(file, warn=heard.append).calibrate
    assert (found.backend, found.trt_python, found.trt_container) == ("tensorrt", None, None)
    assert f"'{line.partition(' ')[0]}' is ignored" in heard[0]
    file.chmod(0o644)
    found = read_project(file, warn=pytest.fail).calibrate
    assert (found.trt_python or found.trt_container) in {str(tmp_path / "p"), "image"}


def test_all_that_is_ignored_is_named(tmp_path: Path) -> None:
    file = tmp_path / "edgecal.toml"
    file.write_text(WITH_EXEC + '[calibrate]\ntrt_container = "image"\n')
    file.chmod(0o666)
    heard: list[str] = []
    read_project(file, warn=heard.append)
    assert "'exec' and 'trt_container' are ignored" in heard[0]


def test_what_a_rollout_would_run_or_write_is_ignored_too(tmp_path: Path) -> None:
    file = tmp_path / "edgecal.toml"
    file.write_text('[rollout]\nhook = ["notify"]\nmetrics = "x.prom"\nsoak = "1m"\n')
    file.chmod(0o666)
    heard: list[str] = []
    found = read_project(file, warn=heard.append).rollout
    assert (found.hook, found.metrics, found.soak_ms) == ((), None, 60_000)
    assert "'hook' and 'metrics' are ignored" in heard[0]
    file.chmod(0o644)
    found = read_project(file, warn=pytest.fail).rollout
    assert (found.hook, found.metrics) == (("notify",), str(tmp_path / "x.prom"))


def test_settings_without_commands_count_whoever_wrote_them(tmp_path: Path) -> None:
    file = tmp_path / "edgecal.toml"
    file.write_text('[targets.box]\nhost = "box"\n')
    file.chmod(0o666)
    assert "box" in read_project(file, warn=pytest.fail).targets
