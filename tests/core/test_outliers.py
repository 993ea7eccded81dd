from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.findings import Severity
from edgecal.core.outliers import outliers
from tests.audits import state

if TYPE_CHECKING:
    from edgecal.core.platforms import Platforms
    from edgecal.core.target_state import TargetState


@pytest.fixture(scope="module")
def platforms() -> Platforms:
    return load_platforms()


def test_most_of_a_kind_makes_the_rest_outliers(platforms: Platforms) -> None:
    fleet = [state(f"xavier-{number}") for number in range(3)]
    older = state("xavier-7", "8.4.1.5", l4t="35.1.0")
    (found,) = outliers([*fleet, older], platforms)["xavier-7"]
    assert (found.rule, found.severity) == ("outlier", Severity.WARNING)
    assert found.message == (
        "TensorRT 8.4.1.5; the rest of the agx-xavier modules has 8.5 (3 targets)"
    )
    assert found.remedy.startswith("upgrade it to JetPack 5.1.6; or calibrate another bundle: ")
    assert "--tensorrt 8.4 -o NAME-8.4.edgecal" in found.remedy


def test_an_outlier_that_is_newer_or_had_its_tensorrt_exchanged_gets_another_remedy(
    platforms: Platforms,
) -> None:
    fleet = [state(f"orin-{number}", "8.5.2", module="orin-nx-16gb") for number in range(2)]
    newer = state("new", "10.3.0.30", module="orin-nx-8gb", l4t="36.4.3")
    (found,) = outliers([*fleet, newer], platforms)["new"]
    assert found.remedy.startswith("flash it with JetPack 5.1.6; ")
    by_hand = state("new", "8.6.1", module="orin-nx-8gb", l4t="35.4.1")
    (found,) = outliers([*fleet, by_hand], platforms)["new"]
    assert found.remedy.startswith("its JetPack 5.1.2 brings TensorRT 8.5: install that again")


@pytest.mark.parametrize(
    "versions",
    [
        ["8.5.2", "8.4.1"],  # nobody is in the majority
        ["8.5.2", "8.5.2", "8.4.1", "8.4.1"],
        ["8.5.2", "8.5.10", "8.5.2"],  # patches share caches
        ["8.5.2", None, None],
        [],
    ],
)
def test_a_fleet_without_a_clear_majority_has_no_outliers(
    platforms: Platforms, versions: list[str | None]
) -> None:
    fleet = [state(f"one-{number}", text) for number, text in enumerate(versions)]
    assert outliers(fleet, platforms) == {}
    strangers = [replace_module(one, None) for one in fleet]
    assert outliers(strangers, platforms) == {}


def replace_module(one: TargetState, module: str | None) -> TargetState:
    known = one.last.facts
    assert known is not None
    return replace(one, last=replace(one.last, facts=replace(known, module=module)))
