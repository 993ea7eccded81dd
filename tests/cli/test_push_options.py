"""What `edgecal push` makes of its options before it asks a target anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgecal.cli import app
from edgecal.cli.building import choose_options
from edgecal.core.build import BuildOptions
from edgecal.core.project import PushDefaults, parse_project

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.core.project import Project

SILENT: dict[str, Any] = dict.fromkeys(
    ("dla_core", "gpu_fallback", "fp16", "precision", "workspace_mib", "layout")
)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    return end.value.code if isinstance(end.value.code, int) else 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_profile_of_another_form_is_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("push", "--target", "x", "--profile", "x=1x3") == 2
    assert "expected three shapes" in capsys.readouterr().err
    (folder / "edgecal.toml").write_text('[push.profile]\nx = "1x3,1x2,1x3"\n')
    assert run("push", "--target", "x") == 2
    heard = capsys.readouterr().err
    assert "do not grow" in heard
    assert "[push.profile]" in heard


@pytest.mark.parametrize(
    "words",
    [
        ("--precision", "int4"),
        ("--workspace", "0"),
        ("--build-timeout", "0"),
        ("--layout", "triton"),
    ],
)
def test_a_value_that_cannot_be_is_exit_2(
    folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.is_dir()
    assert run("push", "net.edgecal", "--target", "x", *words) == 2
    assert words[0] in capsys.readouterr().err


def test_an_nvinfer_configuration_is_judged_before_anything_is_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["push", "net.edgecal", "--target", "x", "--nvinfer-config", "pgie.txt"]
    assert run(*words) == 2
    assert "add --layout deepstream" in capsys.readouterr().err
    words += ["--layout", "deepstream"]
    assert run(*words) == 2
    assert "cannot be read" in capsys.readouterr().err
    (folder / "pgie.txt").write_text("[property]\ncustom-network-config=yolo.cfg\n")
    assert run(*words) == 3
    assert "by the API names its tensors otherwise" in capsys.readouterr().err
    (folder / "pgie.txt").write_text("[property]\nonnx-file=net.onnx\n")
    assert run(*words) == 2  # the configuration is fine, and the bundle is not there
    assert "net.edgecal" in capsys.readouterr().err


def project(**push: object) -> Project:
    targets = {"nano": {"precision": "fp16", "workspace_mib": 256}, "orin": {"dla": 1}}
    return parse_project({"push": push, "targets": targets}, source="edgecal.toml")


def test_the_command_line_outweighs_the_target_and_the_target_the_project() -> None:
    plain = project()
    nano, orin = plain.targets["nano"], plain.targets["orin"]
    assert plain.push == PushDefaults()
    assert choose_options(plain, nano, SILENT) == BuildOptions(precision="fp16", workspace_mib=256)
    assert choose_options(plain, orin, SILENT) == BuildOptions(dla_core=1)
    full = project(dla=0, workspace_mib=512, precision="int8", fp16=False, layout="deepstream")
    assert choose_options(full, orin, SILENT) == BuildOptions(
        dla_core=1, workspace_mib=512, fp16=False, layout="deepstream"
    )
    said = {**SILENT, "precision": "int8", "workspace_mib": 64, "gpu_fallback": False}
    assert choose_options(full, nano, said) == BuildOptions(
        dla_core=0, workspace_mib=64, fp16=False, gpu_fallback=False, layout="deepstream"
    )


def test_the_help_names_what_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    run("push", "--help")
    heard = capsys.readouterr().out
    for word in ("--precision", "--workspace", "--bench", "--build-timeout", "--profile"):
        assert word in heard
