from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.access import check_access
from edgecal.core.platforms import parse_platforms
from edgecal.core.probes import facts_to_json, has_answer, no_way_in, parse_probe
from edgecal.core.rules.visit import Visit
from edgecal.core.target import BuilderFact, ClosedNode, Target
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
ASKED = datetime(2026, 11, 21, 8, tzinfo=timezone.utc)
SMALLEST = ("schema=1", "root=/home/me/.edgecal")


def answer(*lines: str) -> str:
    return "".join(f"edgecal:{line}\n" for line in (*lines, "probe=complete"))


def parse(text: str) -> TargetFacts:
    return parse_probe(text, PLATFORMS, source="jet")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_every_board_is_read_as_what_it_is(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    facts = parse(path.read_text("utf-8"))
    document = facts_to_json(facts)
    assert {key: document[key] for key in expected["facts"]} == expected["facts"]
    json.dumps(document, allow_nan=False)
    visit = Visit(target=Target(name="jet", host="jet.local"), facts=facts, at=ASKED)
    findings = check_access(visit)
    assert {one.rule: one.severity.value for one in findings} == expected["findings"]


def test_every_expectation_has_its_answer() -> None:
    answers = {path.stem for path in GOLDEN.glob("*.txt")}
    assert {path.stem for path in GOLDEN.glob("*.json")} == answers


def test_the_boards_of_every_generation_are_among_them() -> None:
    socs = {parse(path.read_text("utf-8")).soc for path in GOLDEN.glob("*.txt")}
    assert socs >= {"tegra210", "tegra186", "tegra194", "tegra234", "tegra264", None}


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
    known = {key for key, value in document.items() if value not in (None, [], False)}
    assert known == {"root"}


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


def test_one_closed_gpu_node_is_no_access_and_is_named_with_its_group() -> None:
    nodes = ("gpu_node=/dev/nvhost-ctrl-gpu yes", "gpu_node=/dev/nvmap no video")
    facts = parse(answer(*SMALLEST, *nodes, "gpu_node=/dev/nvidia0 absent"))
    assert facts.gpu_access is False
    assert facts.closed_nodes == (ClosedNode(path="/dev/nvmap", group="video"),)
    assert parse(answer(*SMALLEST, "gpu_node=/dev/nvmap yes")).gpu_access is True


def test_a_folder_on_a_read_only_file_system_is_not_writable_whatever_the_shell_says() -> None:
    # busybox calls everything writable for root
    facts = parse(answer(*SMALLEST, "root_writable=yes", "root_mount=ext4 ro,noexec"))
    assert facts.root_writable is False
    assert (facts.root_filesystem, facts.root_mount_options) == ("ext4", ("ro", "noexec"))
    assert parse(answer(*SMALLEST, "root_writable=yes", "root_mount=ext4")).root_writable is True


def test_a_library_without_a_deb_is_known_by_its_file() -> None:
    file = "libnvinfer_file=/usr/lib/libnvinfer.so.10.3.0"
    assert parse(answer(*SMALLEST, file)).tensorrt == TensorRTVersion(10, 3)
    deb = "libnvinfer=libnvinfer10 10.3.0.30-1+cuda12.5"
    assert parse(answer(*SMALLEST, deb, file)).libraries == (TensorRTVersion(10, 3, 0, 30),)
    other = "libnvinfer=libnvinfer8 8.6.2.3-1+cuda12.2"
    both = (TensorRTVersion(8, 6, 2, 3), TensorRTVersion(10, 3))
    assert (
        parse(answer(*SMALLEST, other, file, "libnvinfer_file=/x/libnvinfer.so")).libraries == both
    )


def test_a_trtexec_that_does_not_start_builds_nothing() -> None:
    said = f"{TRTEXEC}: error while loading shared libraries: libnvinfer.so.8: cannot open"
    facts = parse(answer(*SMALLEST, f"trtexec={TRTEXEC}\t{said}"))
    assert facts.builders == ()
    assert facts.broken_trtexecs == ((TRTEXEC, said),)


def test_a_silent_trtexec_is_never_that_of_a_later_library() -> None:
    facts = parse(
        answer(
            *SMALLEST,
            f"trtexec={TRTEXEC}\t&&&& RUNNING TensorRT.trtexec # {TRTEXEC} --help",
            "libnvinfer=libnvinfer7 7.1.3-1+cuda10.2",
            "libnvinfer=libnvinfer8 8.2.1-1+cuda10.2",
        )
    )
    assert facts.builders[0].tensorrt == parse_tensorrt("7.1.3")
    assert facts.silent_trtexecs == (TRTEXEC,)


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [("0", datetime(1970, 1, 1, tzinfo=timezone.utc)), ("9" * 18, None), ("", None)],
)
def test_any_clock_is_read(seconds: str, clock: datetime | None) -> None:
    assert parse(answer(*SMALLEST, f"clock={seconds}")).clock == clock


@pytest.mark.parametrize(
    ("words", "status", "said", "found", "remedy"),
    [
        (("docker", "exec", "app"), 0, "", "no input", '["docker", "exec", "-i", "app"]'),
        (("enter",), 0, "", "no input", '["enter", "-i"]'),
        (
            ("docker", "exec", "-it", "app"),
            1,
            "the input device is not a TTY\n",
            "not a TTY",
            "leave out -t",
        ),
        (
            ("docker", "exec", "-i", "app"),
            1,
            "permission denied while trying to connect to the Docker daemon socket",
            "permission denied",
            "usermod -aG docker",
        ),
        (
            ("docker", "exec", "-i", "app"),
            1,
            "Error: No such container: app\n",
            "No such container: app",
            "'ssh -p 2222 edge@jet.local docker exec -i app true'",
        ),
        (("docker", "exec", "-i", "app"), 127, "", "it says nothing", "true"),
    ],
)
def test_words_that_lead_nowhere_are_explained(
    words: tuple[str, ...], status: int, said: str, found: str, remedy: str
) -> None:
    target = Target(name="jet", host="jet.local", user="edge", port=2222, exec=words)
    error = no_way_in(target, status=status, said=said)
    assert found in error.what
    assert remedy in error.remedy
    assert error.where == "jet"


def test_noise_is_no_answer() -> None:
    assert not has_answer("Welcome\nprobe=complete\n")
    assert has_answer("Welcome\nedgecal:schema=1\n")


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
        *("disk_free_bytes", "root", "schema", "unheard_of", "root_mount", "clock", "gpu"),
        *("libnvinfer_file", "container_runs", "groups", "swap_bytes", "trtexec_on_path"),
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
    check_access(Visit(target=Target(name="jet", host="jet"), facts=facts, at=ASKED))
