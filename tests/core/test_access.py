from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.project import find_project
from edgecal.core.access import RULES, check_access
from edgecal.core.rules.visit import Visit
from edgecal.core.target import (
    BuilderFact,
    ClosedNode,
    ContainerFact,
    PythonFact,
    Target,
    TargetFacts,
)
from edgecal.core.versions import parse_tensorrt

if TYPE_CHECKING:
    from pathlib import Path

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
NOW = datetime(2026, 11, 21, 8, tzinfo=timezone.utc)
TARGET = Target(name="xavier", host="xavier.local", user="edge")
JETSON = TargetFacts(
    root="/home/edge/.edgecal",
    is_jetson=True,
    root_writable=True,
    root_filesystem="ext4",
    root_mount_options=("rw", "relatime"),
    tensorrt=parse_tensorrt("10.3.0.30"),
    builders=(BuilderFact(name="trtexec", path=TRTEXEC, tensorrt=parse_tensorrt("10.3.0.30")),),
    libraries=(parse_tensorrt("10.3.0.30"),),
    trtexec_on_path=True,
    l4t="36.4.3",
    jetpack="6.2",
    module="orin-nx-16gb",
    model="NVIDIA Jetson Orin NX",
    soc="tegra234",
    gpu_access=True,
    user="edge",
    groups=("edge", "video"),
    memory_bytes=16 << 30,
    memory_available_bytes=12 << 30,
    swap_bytes=8 << 30,
    disk_free_bytes=100 << 30,
    clock=NOW,
    power_mode="MAXN_SUPER",
)
"""A Jetson about which there is nothing to say."""


def verdicts(
    target: Target = TARGET, at: datetime | None = NOW, /, **changes: object
) -> dict[str, str]:
    """Slugs with remedies for a Jetson that differs in these facts."""
    facts = replace(JETSON, **changes)  # type: ignore[arg-type] # the tests' own names
    findings = check_access(Visit(target=target, facts=facts, at=at))
    assert all(one.subject == target.name and one.message and one.remedy for one in findings)
    return {one.rule: f"{one.severity.value}: {one.message}\n{one.remedy}" for one in findings}


def only(expected: str, target: Target = TARGET, /, **changes: object) -> str:
    (found,) = verdicts(target, **changes).items()
    assert found[0] == expected
    return found[1]


def test_about_a_jetson_in_order_nothing_is_said() -> None:
    assert verdicts() == {}


def test_what_nobody_knows_is_no_finding() -> None:
    nothing = TargetFacts(root="/r", is_jetson=False)
    assert check_access(Visit(target=TARGET, facts=nothing)) == ()


def test_every_finding_carries_the_slug_of_its_rule() -> None:
    worst = replace(
        JETSON,
        root_writable=False,
        root_filesystem="tmpfs",
        root_mount_options=("ro", "noexec"),
        missing_tools=("setsid",),
        gpu_access=False,
        closed_nodes=(ClosedNode(path="/dev/nvmap", group="video"),),
        trtexec_on_path=False,
        broken_trtexecs=(("/opt/t/bin/trtexec", "loading shared libraries: libx.so"),),
        silent_trtexecs=(TRTEXEC,),
        libraries=(parse_tensorrt("8.6.2"), parse_tensorrt("10.3.0.30")),
        python=PythonFact(path="/usr/bin/python3", version="3.10.12", tensorrt="10.7.0"),
        memory_available_bytes=1,
        clock=NOW - timedelta(days=1),
        power_mode="15W",
        module=None,
    )
    docker = replace(JETSON, builders=(), libraries=(), container_engines=("docker",))
    found = {
        slug: {
            one.rule
            for facts in (worst, docker)
            for one in rule(Visit(target=TARGET, facts=facts, at=NOW))
        }
        for slug, rule in RULES.items()
    }
    assert found == {slug: {slug} for slug in RULES}


def test_a_root_of_another_user_comes_with_the_command_that_makes_it() -> None:
    said = only("root-writable", root_writable=False, root="/data/o'hara")
    assert said.startswith("error: user edge cannot write in /data/o'hara")
    command = said.split("make it there: '")[1].split("', or name")[0]
    assert shlex.split(command) == ["sudo", "install", "-d", "-o", "edge", "/data/o'hara"]


def test_a_read_only_file_system_is_named_as_what_it_is() -> None:
    said = only("root-writable", root_writable=False, root_mount_options=("ro",))
    assert "read-only" in said
    assert "remount,rw" in said


def test_noexec_alone_refuses_nothing() -> None:
    assert only("root-noexec", root_mount_options=("rw", "noexec")).startswith("note")


def test_a_folder_that_is_lost_is_a_warning_where_it_is_lost() -> None:
    assert "next reboot" in only("root-volatile", root_filesystem="tmpfs")
    assert "with this container" in only(
        "root-volatile", root_filesystem="overlay", container="docker"
    )
    assert verdicts(root_filesystem="overlay") == {}


@pytest.mark.parametrize(
    ("groups", "nodes", "container", "remedy"),
    [
        (
            (),
            {"/dev/nvmap": "video", "/dev/dri/renderD128": "render"},
            None,
            "usermod -aG render,video edge",
        ),
        (("video",), {"/dev/dri/renderD128": "render"}, None, "usermod -aG render edge"),
        ((), {"/dev/nvmap": None}, None, "usermod -aG render,video edge"),
        ((), {"/dev/nvmap": "root"}, None, "udev"),
        ((), {"/dev/nvmap": "UNKNOWN"}, "docker", "--runtime nvidia"),
        (("video",), {"/dev/nvmap": "video"}, None, "udev"),
        ((), {"/dev/nvmap": "video"}, "docker", "--group-add video"),
    ],
)
def test_a_closed_gpu_names_its_nodes_and_the_groups_that_are_missing(
    groups: tuple[str, ...],
    nodes: dict[str, str | None],
    container: str | None,
    remedy: str,
) -> None:
    said = only(
        "gpu-access",
        gpu_access=False,
        groups=groups,
        container=container,
        closed_nodes=tuple(ClosedNode(path=path, group=group) for path, group in nodes.items()),
    )
    assert said.startswith("warning")
    assert all(path in said for path in nodes)
    assert remedy in said


def test_a_jetson_without_gpu_nodes_lacks_a_driver_or_a_containers_runtime() -> None:
    assert "dmesg" in only("gpu-access", gpu_access=None)
    assert "--runtime nvidia" in only("gpu-access", gpu_access=None, container="podman")
    assert verdicts(is_jetson=False, gpu_access=None) == {}
    # nobody builds for the GPU of a host without TensorRT
    assert verdicts(is_jetson=False, builders=(), libraries=(), gpu_access=False) == {}


def test_a_trtexec_off_the_path_is_a_note_with_its_place() -> None:
    said = only("trtexec-path", trtexec_on_path=False)
    assert said.startswith("note")
    assert TRTEXEC in said


def test_an_archive_that_lacks_its_libraries_is_reached_by_exec() -> None:
    said = only(
        "trtexec-broken",
        broken_trtexecs=(
            (
                "/opt/TensorRT-10.7/bin/trtexec",
                "x: error while loading shared libraries: libn.so.10: no",
            ),
        ),
    )
    assert 'exec = ["env", "LD_LIBRARY_PATH=/opt/TensorRT-10.7/lib"]' in said
    system = only(
        "trtexec-broken", broken_trtexecs=((TRTEXEC, "loading shared libraries: libn.so.8: no"),)
    )
    assert "apt install" in system
    assert "--help" in only("trtexec-broken", broken_trtexecs=((TRTEXEC, "Exec format error"),))


def test_a_silent_trtexec_weighs_more_where_nothing_tells_its_version() -> None:
    assert only("trtexec-silent", silent_trtexecs=(TRTEXEC,)).startswith("note")
    unknown = (BuilderFact(name="trtexec", path="/opt/trtexec"),)
    said = only("trtexec-silent", builders=unknown, silent_trtexecs=("/opt/trtexec",))
    assert said.startswith("warning")


def test_several_tensorrts_are_each_named_and_one_by_two_ways_is_one() -> None:
    both = (
        *JETSON.builders,
        BuilderFact(name="trtexec", path="/opt/t", tensorrt=parse_tensorrt("10.7")),
    )
    said = only("tensorrt-several", builders=both)
    assert "/opt/t 10.7.0" in said
    assert f"{TRTEXEC} 10.3.0.30" in said
    assert verdicts(libraries=(parse_tensorrt("10.3.0"),)) == {}


@pytest.mark.parametrize(
    ("wheel", "shadows"),
    [
        ("10.7.0.post1", True),
        ("10.3.1", True),
        ("10.3.0", False),
        ("10.3.0.26", False),
        ("?", False),
    ],
)
def test_a_wheel_shadows_the_system_if_it_is_another_release(wheel: str, *, shadows: bool) -> None:
    python = PythonFact(
        path="/usr/bin/python3", version="3.10.12", tensorrt=wheel, tensorrt_folder="/home/x"
    )
    found = verdicts(python=python)
    assert list(found) == ["tensorrt-shadowed"] * shadows
    if shadows:
        assert "/home/x" in found["tensorrt-shadowed"]


def test_the_way_into_a_container_can_be_pasted_into_the_project_file(tmp_path: Path) -> None:
    app = ContainerFact(engine="docker", name="app", image="registry/app:1")
    bare = {"builders": (), "libraries": (), "tensorrt": None, "container_engines": ("docker",)}
    said = only("tensorrt-in-container", **bare, containers=(app,))
    assert "app (registry/app:1)" in said
    setting = said.split("edgecal.toml: ")[1].split(" under ")[0]
    (tmp_path / "edgecal.toml").write_text(f"[targets.xavier]\n{setting}\n")
    project = find_project(tmp_path, warn=pytest.fail)
    assert project.targets["xavier"].exec == ("docker", "exec", "-i", "app")
    inside = replace(TARGET, exec=("docker", "exec", "-i", "app"))
    assert verdicts(inside, **bare) == {}
    assert "usermod -aG docker edge" in only(
        "tensorrt-in-container", **bare, containers_hidden=True
    )
    for asleep in ({"groups": ("edge", "docker")}, {"user": "root", "groups": ("root",)}):
        said = only("tensorrt-in-container", **bare, containers_hidden=True, **asleep)
        assert "systemctl start docker" in said
        assert "usermod" not in said
    assert verdicts(is_jetson=False, **bare)["tensorrt-in-container"].startswith("note")
    assert '[targets."edge@[fe80::1]:22"]' in only(
        "tensorrt-in-container", replace(TARGET, name="edge@[fe80::1]:22"), **bare
    )


def test_little_memory_warns_and_a_small_board_without_swap_is_a_note() -> None:
    assert only("low-memory", memory_available_bytes=1 << 29).startswith("warning")
    small = {"memory_bytes": 8 << 30, "memory_available_bytes": 6 << 30}
    said = only("low-memory", **small, swap_bytes=0)
    assert said.startswith("note")
    assert "swapon" in said
    assert "swapon" not in only("low-memory", **small, swap_bytes=0, disk_free_bytes=4 << 30)
    assert verdicts(**small) == {}
    assert verdicts(**small, swap_bytes=None) == {}


def test_a_clock_counts_as_off_by_minutes_and_only_against_ours() -> None:
    assert verdicts(clock=NOW + timedelta(minutes=9)) == {}
    assert "1970" in only("clock-off", clock=datetime(1970, 1, 1, tzinfo=timezone.utc))
    assert verdicts(TARGET, None, clock=NOW + timedelta(days=1)) == {}


def test_a_power_mode_is_a_note_unless_it_is_the_fastest() -> None:
    assert only("power-mode", power_mode="MODE_15W").startswith("note")
    assert verdicts(power_mode="MAXN") == {}
    assert verdicts(is_jetson=False, power_mode="15W") == {}


def test_an_unknown_board_is_quoted_and_refuses_nothing() -> None:
    said = only("platform-unknown", module=None, jetpack=None, l4t="45.1", model="Jetson Nova")
    assert said.startswith("note")
    assert all(word in said for word in ("45.1", "Jetson Nova", "10.3.0.30"))
    assert "docker container" in only(
        "platform-unknown", l4t=None, jetpack=None, container="docker"
    )


def test_every_rule_says_what_it_weighs_where_it_comes_from_and_the_way_out() -> None:
    for rule in RULES.values():
        text = rule.__doc__ or ""
        assert all(f"{part}: " in text for part in ("Severity", "Source", "Remedy")), rule
