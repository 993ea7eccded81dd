from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.platforms import parse_platforms
from edgecal.core.probes import facts_to_json, parse_probe
from edgecal.core.target import BuilderFact
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import CommandError

if TYPE_CHECKING:
    from edgecal.core.target import TargetFacts

GOLDEN = Path(__file__).parents[1] / "golden" / "probes"
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
PLATFORMS = parse_platforms(
    {
        path.name: path.read_text("utf-8")
        for path in (Path(__file__).parents[2] / "targets").glob("*.csv")
    }
)
SMALLEST = ("schema=1", "root=/home/me/.edgecal")


def facts_of(name: str) -> TargetFacts:
    return parse_probe((GOLDEN / f"{name}.txt").read_text("utf-8"), PLATFORMS, source=name)


def answer(*lines: str) -> str:
    return "".join(f"edgecal:{line}\n" for line in (*lines, "probe=complete"))


def parse(text: str) -> TargetFacts:
    return parse_probe(text, PLATFORMS, source="jet")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "agx-xavier-jetpack-5.1.2",
            {
                "tensorrt": "8.5.2.2",
                "builders": [{"name": "trtexec", "path": TRTEXEC, "tensorrt": "8.5.2.2"}],
                "l4t": "35.4.1",
                "jetpack": "5.1.2",
                "module": "agx-xavier",
                "soc": "tegra194",
                "compute_capability": "7.2",
                "dla_cores": 2,
                "cuda": "11.4.19",
                "gpu_access": True,
                "disk_free_bytes": 14713520128,
                "memory_bytes": 32004329472,
                "memory_available_bytes": 29196328960,
                "power_mode": "MODE_15W",
                "root": "/home/nvidia/.edgecal",
                "root_writable": True,
                "is_jetson": True,
                "arch": "aarch64",
                "user": "nvidia",
                "missing_tools": [],
            },
        ),
        (
            "xavier-nx-jetpack-4.6.1",
            {
                "tensorrt": "8.2.1.8",
                "l4t": "32.7.1",
                "jetpack": "4.6.1",
                "module": "xavier-nx-8gb",
                "dla_cores": 2,
                "cuda": "10.2",
                "gpu_access": False,
            },
        ),
        (
            "orin-nx-16gb-jetpack-6.2",
            {
                "tensorrt": "10.3.0.30",
                "builders": [
                    {"name": "trtexec", "path": TRTEXEC, "tensorrt": "10.3.0.30"},
                    {"name": "onnxruntime", "path": "/usr/bin/python3", "tensorrt": None},
                ],
                "l4t": "36.4.3",
                "jetpack": "6.2",
                "module": "orin-nx-16gb",
                "soc": "tegra234",
                "compute_capability": "8.7",
                "dla_cores": 2,
            },
        ),
        (
            "agx-thor-jetpack-7.0",
            {
                "tensorrt": "10.13.3.9",
                "l4t": "38.2.1",
                "jetpack": "7.0",
                "module": "agx-thor-t5000",
                "compute_capability": "11.0",
                "dla_cores": 0,
                "gpu_access": True,
            },
        ),
        (
            "nano-jetpack-4.6",
            {
                "tensorrt": "8.0.1",
                "l4t": "32.6.1",
                "jetpack": "4.6",
                "module": "nano",
                "compute_capability": "5.3",
                "dla_cores": 0,
            },
        ),
        (
            "agx-xavier-jetpack-4.5",
            {
                "tensorrt": "7.1.3",
                "builders": [{"name": "trtexec", "path": TRTEXEC, "tensorrt": "7.1.3"}],
                "l4t": "32.5.0",
                "jetpack": "4.5",
                "module": "agx-xavier",
            },
        ),
        (
            "x86-host",
            {
                "tensorrt": None,
                "builders": [{"name": "onnxruntime", "path": "/usr/bin/python3", "tensorrt": None}],
                "l4t": None,
                "jetpack": None,
                "module": None,
                "soc": None,
                "compute_capability": None,
                "dla_cores": None,
                "cuda": None,
                "gpu_access": None,
                "power_mode": None,
                "is_jetson": False,
                "python": {
                    "path": "/usr/bin/python3",
                    "version": "3.11.2",
                    "numpy": "2.1.0",
                    "onnx": "1.17.0",
                    "onnxruntime": "1.20.1",
                    "tensorrt": None,
                },
            },
        ),
    ],
)
def test_every_board_is_read_as_what_it_is(name: str, expected: dict[str, object]) -> None:
    document = facts_to_json(facts_of(name))
    assert {key: document[key] for key in expected} == expected
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_every_golden_answer_names_its_board_first_and_survives_noise(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("# ")
    assert "not captured from a device" in text.partition("\n")[0]
    facts = parse(text)
    noisy = "Welcome to Ubuntu\nprobe=complete\n\n" + text.replace("\n", "\r\n") + "logout\n"
    assert parse(noisy) == facts


def test_the_least_answer_gives_unknowns_and_no_guess() -> None:
    facts = parse(answer(*SMALLEST))
    assert facts.root == "/home/me/.edgecal"
    assert not facts.is_jetson
    document = facts_to_json(facts)
    known = {key for key, value in document.items() if value is not None}
    assert known == {"root", "is_jetson", "builders", "missing_tools"}


def test_the_builder_found_first_decides_and_each_keeps_its_own_version() -> None:
    facts = parse(
        answer(
            *SMALLEST,
            "trtexec=/opt/trt/bin/trtexec\t[TensorRT v100700]",
            f"trtexec={TRTEXEC}\t[TensorRT v100300]",
            "libnvinfer=libnvinfer10 10.3.0.30-1+cuda12.5",
        )
    )
    assert facts.tensorrt == TensorRTVersion(10, 7)
    assert facts.builders == (
        BuilderFact(name="trtexec", path="/opt/trt/bin/trtexec", tensorrt=TensorRTVersion(10, 7)),
        BuilderFact(name="trtexec", path=TRTEXEC, tensorrt=TensorRTVersion(10, 3, 0, 30)),
    )


def test_a_silent_trtexec_outside_usr_has_no_version_of_the_system() -> None:
    facts = parse(
        answer(*SMALLEST, "trtexec=/opt/trtexec\t", "libnvinfer=libnvinfer8 8.2.1-1+cuda10.2")
    )
    assert facts.builders[0].tensorrt is None
    assert facts.tensorrt == parse_tensorrt("8.2.1")


def test_two_build_numbers_for_one_patch_leave_it_open() -> None:
    facts = parse(
        answer(
            *SMALLEST,
            f"trtexec={TRTEXEC}\t[TensorRT v100300]",
            "libnvinfer=libnvinfer10 10.3.0.30-1+cuda12.5",
            "python=/usr/bin/python3",
            "python_version=3.10.12",
            "python_tensorrt=10.3.0.26",
        )
    )
    assert facts.tensorrt == TensorRTVersion(10, 3)


def test_without_a_release_file_the_deb_tells_l4t() -> None:
    facts = parse(answer(*SMALLEST, "l4t_core=39.2.1-20260806224157"))
    assert (facts.l4t, facts.jetpack) == ("39.2.1", "7.2.1")


def test_an_unknown_l4t_and_module_degrade_to_unknown() -> None:
    facts = parse(
        answer(
            *SMALLEST,
            "nv_tegra_release=# R99 (release), REVISION: 1.0, GCID: 1",
            "compatible=nvidia,p9999-0000 nvidia,tegra999",
            "trtexec=/usr/bin/trtexec\t[TensorRT v120000]",
        )
    )
    assert facts.is_jetson
    assert (facts.l4t, facts.jetpack, facts.module) == ("99.1.0", None, None)
    assert (facts.soc, facts.compute_capability, facts.dla_cores) == ("tegra999", None, None)
    assert facts.tensorrt == TensorRTVersion(12, 0)


@pytest.mark.parametrize(
    ("version", "missing", "able"),
    [("3.10.12", "", True), ("3.8.10", "", False), ("3.12.3", "onnx", False), ("?", "", False)],
)
def test_the_reference_builder_wants_a_new_python_with_three_packages(
    *, version: str, missing: str, able: bool
) -> None:
    packages = [
        f"python_{name}=1.0" for name in ("numpy", "onnx", "onnxruntime") if name != missing
    ]
    facts = parse(answer(*SMALLEST, "python=/usr/bin/py", f"python_version={version}", *packages))
    assert [one.name for one in facts.builders] == ["onnxruntime"] * able


def test_one_closed_gpu_node_is_no_access() -> None:
    nodes = ("gpu_node=/dev/nvhost-ctrl-gpu yes", "gpu_node=/dev/nvmap no")
    assert parse(answer(*SMALLEST, *nodes)).gpu_access is False


def test_missing_tools_are_all_named() -> None:
    facts = parse(answer(*SMALLEST, "missing_tool=setsid", "missing_tool=mv -T"))
    assert facts.missing_tools == ("setsid", "mv -T")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "''"),
        ("bash: no such file", "no such file"),
        ("edgecal:schema=1\nedgecal:root=/r\nedgecal:us", "'edgecal:us'"),
        ("edgecal:schema=1\nedgecal:root=/r\n", "'edgecal:root=/r'"),
        (answer("root=/r"), "schema"),
        (answer("schema=2", "root=/r"), "'2'"),
        (answer("schema=1"), "absolute path"),
        (answer("schema=1", "root=.edgecal"), "'.edgecal'"),
        (answer(*SMALLEST, "nonsense"), "nonsense"),
        (answer(*SMALLEST, "disk_free_bytes=lots"), "'lots'"),
        (answer(*SMALLEST, "memory_bytes=-1"), "'-1'"),
    ],
)
def test_a_broken_answer_is_refused_with_what_was_found(text: str, found: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse(text)
    assert found in caught.value.what
    assert caught.value.where == "jet"
    assert caught.value.remedy


KEYS = st.sampled_from(
    [
        *("nv_tegra_release", "l4t_core", "compatible", "model", "libnvinfer", "cuda", "cuda_nvcc"),
        *("trtexec", "python", "python_version", "python_tensorrt", "gpu_node", "memory_bytes"),
        *("disk_free_bytes", "root", "schema", "unheard_of"),
    ]
)


@given(st.lists(st.tuples(KEYS, st.text(max_size=20))))
def test_whatever_a_target_says_is_facts_or_a_command_error(lines: list[tuple[str, str]]) -> None:
    text = answer(*SMALLEST, *(f"{key}={value}" for key, value in lines))
    try:
        facts = parse(text)
    except CommandError:
        return
    json.dumps(facts_to_json(facts), allow_nan=False)
