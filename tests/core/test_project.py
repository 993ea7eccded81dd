from __future__ import annotations

from typing import Any

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.project import parse_project
from edgecal.core.target import Target
from edgecal.core.targets import parse_target
from edgecal.core.versions import parse_tensorrt
from edgecal.core.wanted import wanted_versions
from edgecal.errors import InputError, InventoryError

PLATFORMS = load_platforms()


def test_paths_mean_the_folder_of_the_file() -> None:
    project = parse_project(
        {
            "calibrate": {"model": "net.onnx", "data": "/data/photos", "tensorrt": "8.5"},
            "preprocess": {"resize": [8, 8], "color": "gray"},
            "push": {"bundle": "net.edgecal", "fp16": False, "dla": 0},
            "verify": {"margin": 0.01},
            "targets": {
                "xavier": {"host": "xavier.local", "known_hosts": "~/hosts"},
                "orin": {"exec": ["docker", "exec", "-i", "app"], "require_signature": True},
            },
        },
        source="/project/edgecal.toml",
    )
    assert project.calibrate.model == "/project/net.onnx"
    assert project.calibrate.data == "/data/photos"
    assert project.calibrate.tensorrt == ("8.5",)
    assert project.push.bundle == ("/project/net.edgecal",)
    assert project.push.fp16 is False
    assert project.push.dla == 0
    assert project.thresholds.margin == 0.01
    assert project.targets["xavier"].known_hosts == "~/hosts"
    assert project.targets["orin"].host == "orin"
    assert project.targets["orin"].exec == ("docker", "exec", "-i", "app")
    assert project.targets["xavier"].exec == ()
    assert project.targets["orin"].require_signature
    assert not project.targets["xavier"].require_signature


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"calibrat": {}}, "calibrat"),
        ({"calibrate": {"modle": "x"}}, "modle"),
        ({"calibrate": {"samples": 0}}, "samples"),
        ({"calibrate": {"samples": True}}, "samples"),
        ({"calibrate": []}, "calibrate"),
        ({"calibrate": {"tensorrt": 10.10}}, "quotes"),
        ({"push": {"fp16": "no"}}, "fp16"),
        ({"push": {"precision": "int4"}}, "int8, fp16"),
        ({"push": {"precision": 8}}, "int8, fp16"),
        ({"push": {"layout": "triton"}}, "plain, deepstream"),
        ({"push": {"workspace_mib": 0}}, "workspace_mib"),
        ({"push": {"build_timeout_minutes": "2h"}}, "build_timeout_minutes"),
        ({"push": {"profile": "x"}}, "profile"),
        ({"targets": {"x": {"precision": []}}}, "precision"),
        ({"targets": {"x": 1}}, "table"),
        ({"targets": {"x": {"port": "22"}}}, "port"),
        ({"preprocess": {"color": "cmyk"}}, "color"),
        ({"targets": {"x": {"exec": "docker exec app"}}}, "list of words"),
        ({"targets": {"x": {"exec": []}}}, "list of words"),
        ({"targets": {"x": {"exec": [""]}}}, "list of words"),
        ({"targets": {"x": {"exec": ["docker", 1]}}}, "list of words"),
        ({"targets": {"x": {"exec": ["a\0b"]}}}, "list of words"),
    ],
)
def test_what_is_not_understood_is_named(document: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_project(document, source="/project/edgecal.toml")


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("xavier.local", "xavier.local", None, None),
        ("nvidia@10.0.0.2:2222", "10.0.0.2", "nvidia", 2222),
        ("[fe80::1%eth0]:22", "fe80::1%eth0", None, 22),
    ],
)
def test_a_target_may_be_an_address(
    text: str, host: str, user: str | None, port: int | None
) -> None:
    assert parse_target(text, {}) == Target(name=text, host=host, user=user, port=port)


def test_a_name_of_the_project_comes_first() -> None:
    known = Target(name="xavier", host="10.0.0.2")
    assert parse_target("xavier", {"xavier": known}) is known


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a b", "host:0", "host:70000", "a@b@c"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InventoryError):
        parse_target(text, {})


def test_a_minor_means_the_patch_of_its_newest_jetpack() -> None:
    found = wanted_versions(PLATFORMS, tensorrt=["8.5", "10.4", "8.5.3"])
    assert found == (parse_tensorrt("8.5.3"), parse_tensorrt("10.4.0"))
    assert wanted_versions(PLATFORMS, tensorrt=["8.5"]) == (parse_tensorrt("8.5.2"),)


def test_a_jetpack_means_its_tensorrt() -> None:
    (found,) = wanted_versions(PLATFORMS, jetpack=["6.2"])
    assert found.major_minor == "10.3"
    with pytest.raises(InputError, match=r"JetPack '9\.9'"):
        wanted_versions(PLATFORMS, jetpack=["9.9"])


def test_nothing_wanted_shows_the_jetpacks() -> None:
    with pytest.raises(InputError, match=r"JetPack 5\.1 - 5\.1\.6 +TensorRT 8\.5"):
        wanted_versions(PLATFORMS)


def test_tensorrt_11_is_refused_where_a_cache_is_wanted_and_else_taken() -> None:
    with pytest.raises(InputError, match="no calibration caches") as caught:
        wanted_versions(PLATFORMS, tensorrt=["11.4"])
    assert "edgecal calibrate --tensorrt 11.4" in caught.value.remedy
    both = wanted_versions(PLATFORMS, tensorrt=["8.5", "11.0.0"], explicit=True)
    assert [one.major_minor for one in both] == ["8.5", "11.0"]
