"""`edgecal doctor` on this machine, and on machines we can only make up."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.cli import app
from edgecal.cli.wiring import machine, remote
from edgecal.core.hosts import GpuFact, HostFacts

if TYPE_CHECKING:
    from pathlib import Path

BARE = HostFacts(arch="x86_64", python="3.11.7", cores=2, onnxruntime="1.20.0")
V100 = replace(
    BARE, gpus=(GpuFact(name="Tesla V100", compute_capability="7.0", memory_bytes=2**34),)
)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    return end.value.code if isinstance(end.value.code, int) else 0


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and a user of whom nothing is remembered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


def on(monkeypatch: pytest.MonkeyPatch, host: HostFacts) -> None:
    monkeypatch.setattr(machine, "host_facts", lambda: host)


def test_a_target_that_never_answered_and_cannot_be_reached_is_exit_4(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("doctor", "--for", "127.0.0.1:1", "--json") == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "connect"


def test_this_machine_as_it_is_can_calibrate_on_its_cpu(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert "On this CPU ONNX Runtime" in shown
    assert "edgecal calibrate MODEL.onnx --data DATA --tensorrt X.Y -o NAME-X.Y.edgecal" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert run("doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)["host"]["onnxruntime"]


def test_without_a_gpu_only_v_tells_of_other_hosts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on(monkeypatch, BARE)
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert shown.count("no: there is no GPU") == 9
    assert "on such a host" not in shown
    assert run("doctor", "-v") == 0
    assert "on such a host: docker run" in capsys.readouterr().out


def test_a_gpu_host_is_told_what_to_install_and_where_it_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on(monkeypatch, replace(V100, tensorrt_package="8.6.1", docker="27.0", docker_gpus=True))
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines() if line[:1].isdigit()}
    assert lines["8.6"].rstrip().endswith("yes")
    assert lines["10.3"].rstrip().endswith("once TensorRT is there")
    assert lines["10.13"].rstrip().endswith("no: not with this GPU")
    assert "  python3 -m pip install tensorrt==10.3.0" in shown
    assert "nvcr.io/nvidia/tensorrt:23.01-py3   (not confirmed: " in shown
    assert "tensorrt==8.5" not in shown
    assert "--tensorrt 8.6 --backend tensorrt -o NAME-8.6.edgecal" in shown
    assert "--tensorrt 10.3 --trt-python python3 -o NAME-10.3.edgecal" in shown
    assert "--tensorrt 8.5 --trt-container nvcr.io/nvidia/tensorrt:23.01-py3 -o" in shown
    assert "--tensorrt 10.13 --" not in shown


def test_every_command_that_is_told_is_one_that_edgecal_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on(monkeypatch, replace(V100, tensorrt_package="8.6.1", tensorrt_library="8.5.2"))
    assert run("doctor", "--json") == 0
    native = json.loads(capsys.readouterr().out)["native"]
    commands = [command for way in native for command in way["commands"]]
    assert any("--trt-python PYTHON" in one for one in commands)  # a library is no Python package
    for command in commands:
        program, *words = command.split()
        assert program == "edgecal"
        assert run(*words) == 2
        said = capsys.readouterr().err
        assert "MODEL.onnx" in said  # which is not there: the options were understood
        assert "No such option" not in said


def test_the_inventory_is_named_with_what_it_last_said(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on(monkeypatch, V100)
    (desk / "fleet.toml").write_text('[targets.xavier]\nhost = "10.0.0.1"\n[targets.other]\n')
    answer = (
        "edgecal:schema=1\nedgecal:root=/home/n/.edgecal\n"
        "edgecal:nv_tegra_release=# R35 (release), REVISION: 4.1, GCID: 1\n"
        "edgecal:libnvinfer=libnvinfer8 8.5.2-1+cuda11.4\nedgecal:probe=complete\n"
    )
    remote.facts_cache().store("xavier", answer, machine.now(), address="10.0.0.1")
    assert run("doctor", "--inventory", "fleet.toml") == 0
    shown = capsys.readouterr().out
    (xavier,) = [line for line in shown.splitlines() if line.startswith("xavier")]
    assert xavier.split()[2:6] == ["5.1.2", "8.5.2", "just", "now"]
    assert "edgecal doctor --for other" in shown
    assert run("doctor", "--inventory", "fleet.toml", "--json") == 0
    targets = json.loads(capsys.readouterr().out)["targets"]
    assert [one["native"] and one["native"]["verdict"] for one in targets] == ["installable", None]


def test_an_inventory_that_is_not_there_is_the_users_mistake(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("doctor", "--inventory", "nowhere.toml") == 2
    assert "nowhere.toml" in capsys.readouterr().err
