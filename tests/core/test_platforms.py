from __future__ import annotations

from pathlib import Path

import pytest

from edgecal.core.platforms import (
    Platforms,
    jetpack_choices,
    newest_patch,
    parse_platforms,
)
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import InputError

TABLES = {
    path.name: path.read_text("utf-8")
    for path in (Path(__file__).parents[2] / "targets").glob("*.csv")
}
GIB = 2**30


@pytest.fixture(scope="module")
def platforms() -> Platforms:
    return parse_platforms(TABLES)


def test_every_module_users_may_name_is_there(platforms: Platforms) -> None:
    named = (
        "nano tx1 tx2 xavier-nx-8gb xavier-nx-16gb agx-xavier orin-nano-4gb orin-nano-8gb "
        "orin-nx-8gb orin-nx-16gb agx-orin-32gb agx-orin-64gb agx-thor-t4000 agx-thor-t5000"
    )
    assert all(platforms.module(slug) is not None for slug in named.split())
    assert platforms.module("toaster") is None


def test_every_row_names_its_source_and_no_cell_marks_itself_unverified(
    platforms: Platforms,
) -> None:
    assert all(row.source for row in platforms.modules)
    assert all(row.source for row in platforms.releases)
    assert all(row.source for row in platforms.host_gpus)
    assert all(row.source for row in platforms.containers)
    assert not any("(unverified" in text for text in TABLES.values())


def test_a_soc_has_one_compute_capability(platforms: Platforms) -> None:
    for module in platforms.modules:
        assert platforms.compute_capability(module.soc) == module.compute_capability
    assert platforms.compute_capability("tegra186") == "6.2"
    assert platforms.compute_capability("tegra264") == "11.0"
    assert platforms.compute_capability("tegra999") is None


def test_no_part_number_belongs_to_two_modules(platforms: Platforms) -> None:
    parts = [part for module in platforms.modules for part in module.part_numbers]
    assert len(parts) == len(set(parts))


def test_releases_and_their_tensorrt_agree_and_come_oldest_first(platforms: Platforms) -> None:
    for release in platforms.releases:
        if release.tensorrt is not None:
            assert release.tensorrt.major_minor == release.tensorrt_major_minor
    shipped = [one.tensorrt for one in platforms.releases if one.tensorrt is not None]
    assert shipped == sorted(shipped)


@pytest.mark.parametrize(
    ("l4t", "jetpack", "tensorrt"),
    [
        ("32.5", "4.5", "7.1.3"),
        ("32.5.0", "4.5", "7.1.3"),
        ("32.7.1", "4.6.1", "8.2.1"),
        ("35.4.1", "5.1.2", "8.5.2.2"),
        ("36.4.7", "6.2.1", "10.3.0.30"),
        ("38.2.0", "7.0", "10.13.2.6"),
        ("38.2.2", "7.0", "10.13.3.9"),
    ],
)
def test_l4t_tells_jetpack_and_tensorrt(
    platforms: Platforms, l4t: str, jetpack: str, tensorrt: str
) -> None:
    release = platforms.release_for_l4t(l4t)
    assert release is not None
    assert (release.jetpack, release.tensorrt) == (jetpack, parse_tensorrt(tensorrt))


@pytest.mark.parametrize("l4t", ["99.1", "35", "", "28.2.1", "35.4.1.1", "9" * 5000 + ".1"])
def test_an_unknown_or_ambiguous_l4t_has_no_release(platforms: Platforms, l4t: str) -> None:
    assert platforms.release_for_l4t(l4t) is None


def test_a_jetpack_with_two_tensorrt_means_the_newer(platforms: Platforms) -> None:
    release = platforms.release_for_jetpack("7.0")
    assert release is not None
    assert release.tensorrt == TensorRTVersion(10, 13, 3, 9)
    assert platforms.release_for_jetpack("5.0 dp") is not None
    assert platforms.release_for_jetpack("5.9") is None


def test_the_newest_jetpack_settles_the_patch(platforms: Platforms) -> None:
    assert newest_patch(platforms, 8, 4) == 1
    assert newest_patch(platforms, 8, 5) == 2
    assert newest_patch(platforms, 10, 16) == 2
    assert newest_patch(platforms, 10, 7) == 0


def test_choices_run_from_jetpack_4_4_without_previews(platforms: Platforms) -> None:
    assert jetpack_choices(platforms) == [
        ("4.4 - 4.5.1", "7.1"),
        ("4.6", "8.0"),
        ("4.6.1 - 4.6.6", "8.2"),
        ("5.0.2", "8.4"),
        ("5.1 - 5.1.6", "8.5"),
        ("6.0", "8.6"),
        ("6.1 - 6.2.3", "10.3"),
        ("7.0 - 7.1", "10.13"),
        ("7.2 - 7.2.1", "10.16"),
    ]


@pytest.mark.parametrize(
    ("compatible", "model", "gib", "slug"),
    [
        (
            "nvidia,p3449-0000-b00+p3448-0000-b00 nvidia,jetson-nano nvidia,tegra210",
            "",
            3.9,
            "nano",
        ),
        ("nvidia,jetson-nano nvidia,tegra210", "", 1.9, "nano-2gb"),
        ("nvidia,p3509-0000+p3636-0001 nvidia,tegra186", "", 3.8, "tx2-nx"),
        ("nvidia,quill nvidia,tegra186", "quill", 7.7, "tx2"),
        ("nvidia,p3509-0000+p3668-0000 nvidia,tegra194", "", 6.8, "xavier-nx-8gb"),
        ("nvidia,p3509-0000+p3668-0001 nvidia,tegra194", "", 14.9, "xavier-nx-16gb"),
        ("nvidia,p2972-0000 nvidia,tegra194", "Jetson-AGX", 30.2, "agx-xavier"),
        ("nvidia,p2822-0000+p2888-0001 nvidia,tegra194", "", 62.4, "agx-xavier"),
        ("nvidia,p3768-0000+p3767-0005-super nvidia,p3767-0005", "", 7.4, "orin-nano-8gb"),
        ("nvidia,p3737-0000+p3701-0000 nvidia,tegra234", "", 61.4, "agx-orin-64gb"),
        ("nvidia,p3737-0000+p3701-0000 nvidia,tegra234", "", 29.8, "agx-orin-32gb"),
        ("nvidia,p4071-0000+p3834-0008 nvidia,tegra264", "", 122.8, "agx-thor-t5000"),
        ("nvidia,tegra264", "NVIDIA Jetson AGX Thor Developer Kit", 61.0, "agx-thor-t4000"),
        ("nvidia,tegra234", "NVIDIA Jetson AGX Orin Industrial", 61.0, "agx-orin-industrial"),
        ("nvidia,tegra234", "DRIVE AGX Orin", 30.0, "drive-agx-orin"),
        ("nvidia,p3768-0000+p3767-0001", "", None, "orin-nx-8gb"),
        ("nvidia,tegra234", "NVIDIA Jetson Orin NX Developer Kit", None, None),
        ("nvidia,p9999-0000 nvidia,tegra999", "NVIDIA Jetson Next", 8.0, None),
        ("", "", 8.0, None),
    ],
)
def test_a_device_tree_names_its_module_or_none(
    platforms: Platforms, compatible: str, model: str, gib: float | None, slug: str | None
) -> None:
    module = platforms.module_for(
        compatible=compatible.split(),
        model=model,
        memory_bytes=None if gib is None else int(gib * GIB),
    )
    assert (module.slug if module else None) == slug


@pytest.mark.parametrize(
    ("capability", "tensorrt", "verdict"),
    [
        ("7.0", "10.3", True),
        ("7.0", "10.4", True),
        ("7.0", "10.5", False),
        ("7.5", "8.2", True),
        ("7.5", "11.4", None),
        ("8.0", "7.1", True),
        ("8.0", "5.0", False),
        ("8.0", "11.4", True),
        ("8.9", "8.5", None),
        ("10.0", "10.3", False),
        ("10.0", "10.8", True),
        ("12.1", "10.13", None),
        ("12.1", "8.6", False),
        ("5.2", "8.2", False),
    ],
)
def test_a_host_gpu_has_a_window_of_tensorrt(
    *, platforms: Platforms, capability: str, tensorrt: str, verdict: bool | None
) -> None:
    gpu = next(one for one in platforms.host_gpus if one.compute_capability == capability)
    assert gpu.can_calibrate(parse_tensorrt(tensorrt)) is verdict


def test_a_container_for_a_host_states_its_tensorrt(platforms: Platforms) -> None:
    best = {one.tensorrt_major_minor: one.image for one in platforms.containers if one.best_match}
    assert best["8.5"] == "nvcr.io/nvidia/tensorrt:23.01-py3"
    assert best["10.3"] == "nvcr.io/nvidia/tensorrt:24.08-py3"
    assert {one.runs_on for one in platforms.containers} == {"host", "device"}


def test_a_missing_table_is_named() -> None:
    with pytest.raises(InputError) as caught:
        parse_platforms({name: text for name, text in TABLES.items() if name != "jetpack.csv"})
    assert caught.value.where == "jetpack.csv"


@pytest.mark.parametrize(
    ("table", "old", "new", "line", "word"),
    [
        ("modules.csv", "\nnano,", "\n,", 2, "slug"),
        ("modules.csv", "\nnano-2gb,", "\nnano,", 3, "again"),
        ("modules.csv", "tegra210,5.3,0,", "tegra210,5.3,none,", 2, "whole number"),
        ("modules.csv", "slug,name", "slug,title", 2, "name"),
        ("jetpack.csv", "3.0,27.1,1.0.2", "3.0,27.1,newest", 2, "newest"),
        ("jetpack.csv", "3.0,27.1", "3.0,R27", 2, "R27"),
        ("jetpack.csv", "3.0,27.1", "3.0,more,27.1", 2, "one cell per column"),
        ("host_gpus.csv", "5.2,Maxwell,no", "5.2,Maxwell,perhaps", 2, "perhaps"),
        ("containers.csv", ",4.0,host", ",4,host", 2, "major.minor"),
    ],
)
def test_a_damaged_row_is_named_by_file_and_line(
    table: str, old: str, new: str, line: int, word: str
) -> None:
    damaged = TABLES[table].replace(old, new, 1)
    assert damaged != TABLES[table]
    with pytest.raises(InputError) as caught:
        parse_platforms({**TABLES, table: damaged})
    assert caught.value.where == f"{table}:{line}"
    assert word in caught.value.what
