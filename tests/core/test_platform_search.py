from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.platform_search import find_rows, near_misses, row_name
from edgecal.core.platforms import HostGpu, JetPackRelease, Module, Platforms

if TYPE_CHECKING:
    from edgecal.core.platform_search import Row


@pytest.fixture(scope="module")
def platforms() -> Platforms:
    return load_platforms()


def test_a_name_that_no_table_holds_finds_nothing_but_its_neighbours(platforms: Platforms) -> None:
    assert find_rows(platforms, "orin-nxx") == ()
    assert near_misses(platforms, "orin-nxx")[:1] == ("orin-nx-8gb",)
    assert "5.1.6" in near_misses(platforms, "jetpack 5.1.66")
    assert find_rows(platforms, "") == ()
    assert near_misses(platforms, "\0 no such thing") == ()


def test_every_row_of_every_table_is_found_by_its_name(platforms: Platforms) -> None:
    rows: tuple[Row, ...] = (
        *platforms.modules,
        *platforms.releases,
        *platforms.host_gpus,
        *platforms.containers,
    )
    assert len(rows) > 100
    for row in rows:
        assert row in find_rows(platforms, row_name(row)), row


@pytest.mark.parametrize(
    ("name", "slugs"),
    [
        ("orin-nx-16gb", ["orin-nx-16gb"]),
        ("Jetson Orin NX 16GB", ["orin-nx-16gb"]),
        ("P3767-0000", ["orin-nx-16gb"]),
        ("11.0", ["agx-thor-t5000", "agx-thor-t4000", "drive-agx-thor"]),
    ],
)
def test_modules_go_by_slug_name_part_number_and_capability(
    platforms: Platforms, name: str, slugs: list[str]
) -> None:
    rows = find_rows(platforms, name)
    assert [row.slug for row in rows if isinstance(row, Module)] == slugs


@pytest.mark.parametrize(
    "name", ["jetpack 5.1.2", "JetPack 5.1.2", "5.1.2", "35.4.1", "L4T 35.4.1"]
)
def test_a_release_goes_by_jetpack_and_l4t(platforms: Platforms, name: str) -> None:
    (row,) = find_rows(platforms, name)
    assert isinstance(row, JetPackRelease)
    assert row.l4t == "35.4.1"


def test_one_number_may_be_a_jetpack_and_a_compute_capability(platforms: Platforms) -> None:
    kinds = {type(row) for row in find_rows(platforms, "7.0")}
    assert kinds == {JetPackRelease, HostGpu}
    assert {type(row) for row in find_rows(platforms, "jetpack 7.0")} == {JetPackRelease}
    assert find_rows(platforms, "jetpack 8.6") == ()


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("T4", "7.5"),
        ("Tesla T4", "7.5"),
        ("NVIDIA A100-SXM4-80GB", "8.0"),
        ("A10", "8.6"),
        ("NVIDIA RTX A6000", "8.6"),
        ("NVIDIA GeForce RTX 3090 Ti", "8.6"),
        ("NVIDIA GeForce RTX 4090", "8.9"),
        ("Quadro RTX 4000", "7.5"),
        ("L40S", "8.9"),
        ("NVIDIA L40", "8.9"),
        ("NVIDIA H200", "9.0"),
        ("Tesla V100-SXM2-16GB", "7.0"),
        ("GeForce GTX 1080", "6.1"),
        ("GTX 980", "5.2"),
        ("DGX Spark", "12.1"),
        ("NVIDIA RTX PRO 6000 Blackwell", "12.0"),
    ],
)
def test_a_card_is_found_by_what_its_driver_calls_it(
    platforms: Platforms, name: str, capability: str
) -> None:
    (row,) = find_rows(platforms, name)
    assert isinstance(row, HostGpu)
    assert row.compute_capability == capability


@pytest.mark.parametrize("name", ["RTX 5000 Ada Generation", "GTX 1650", "A1000000", "RTX"])
def test_a_card_that_the_table_does_not_name_is_not_guessed(
    platforms: Platforms, name: str
) -> None:
    assert find_rows(platforms, name) == ()


def test_images_go_by_their_tag(platforms: Platforms) -> None:
    whole = "nvcr.io/nvidia/tensorrt:23.01-py3"
    for name in (whole, "tensorrt:23.01-py3", "23.01-py3"):
        assert [row_name(row) for row in find_rows(platforms, name)] == [whole]
