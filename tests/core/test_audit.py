from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.audit import audit
from edgecal.core.findings import Finding, Severity
from edgecal.core.target import Target
from edgecal.core.target_state import Fit, LastFacts, TargetState
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import CommandError, ConnectError
from tests.audits import BUNDLE, digest, release, state

if TYPE_CHECKING:
    from edgecal.core.platforms import Platforms


@pytest.fixture(scope="module")
def platforms() -> Platforms:
    return load_platforms()


def refusal(name: str) -> Finding:
    return Finding(
        rule="tensorrt-version",
        severity=Severity.ERROR,
        subject=name,
        message="another",
        remedy="calibrate",
    )


def test_of_several_bundles_of_one_network_one_that_fits_is_enough(platforms: Platforms) -> None:
    other = replace(BUNDLE, name="net-10.3", path="b", tensorrt=parse_tensorrt("10.3.0"))
    one = state("bench", "8.5.2", release())
    fits = [Fit(bundle=other, findings=(refusal("bench"),)), Fit(bundle=BUNDLE, findings=())]
    report = audit([one], {"bench": fits}, platforms)
    assert report.findings["bench"] == ()
    assert report.exit_codes() == frozenset()
    second = replace(other, network=digest("7"), name="detector")
    fits = [Fit(bundle=second, findings=(refusal("bench"),)), Fit(bundle=BUNDLE, findings=())]
    report = audit([one], {"bench": fits}, platforms)
    assert [found.rule for found in report.findings["bench"]] == ["tensorrt-version"]
    assert report.exit_codes() == {3}


def test_unreachable_and_unknown_targets_are_told_from_those_that_do_not_fit(
    platforms: Platforms,
) -> None:
    gone = replace(state("gone"), error=ConnectError("no route", where="gone", remedy="plug it in"))
    strange = TargetState(
        last=LastFacts(target=Target(name="strange", host="strange")),
        error=CommandError("no answer", where="strange", remedy="look"),
    )
    never = TargetState(last=LastFacts(target=Target(name="never", host="never")), asked=False)
    report = audit([gone, strange, never, state("here", None)], {}, platforms)
    assert [one.reachable for one in report.states] == [False, True, None, True]
    assert report.exit_codes() == {4}
    assert [group.tensorrt for group in report.groups] == [None]
    assert report.groups[0].targets == ("here",)
    assert [one.rule for one in report.findings["never"]] == ["facts-unknown"]
    assert report.summary()["unreachable"] == 1
    assert report.summary()["unknown"] == 2


def test_groups_come_oldest_first_with_what_could_calibrate_for_them(platforms: Platforms) -> None:
    fleet = [
        state("thor", "10.13.3.9", module="agx-thor-t5000"),
        state("orin", "10.3.0.30", module="orin-nx-8gb"),
        state("a", "8.5.2.2"),
        state("b", "8.5.2"),
        state("future", "11.4.1", module="agx-orin-64gb"),
        state("nano", "8.2.1", module="nano"),
    ]
    groups = audit(fleet, {}, platforms).groups
    assert [group.tensorrt for group in groups] == ["8.2", "8.5", "10.3", "10.13", "11.4"]
    assert [group.without_int8 for group in groups] == [("nano",), (), (), (), ()]
    assert groups[1].targets == ("a", "b")
    assert groups[1].versions == ("8.5.2", "8.5.2.2")
    assert groups[2].jetpack == "6.1 - 6.2.3"
    assert groups[2].calibrators is not None
    assert groups[2].calibrators.wheel == "10.3.0"
    assert groups[4].calibrators is not None
    assert not groups[4].calibrators.gpus


def test_a_thousand_targets_are_judged_within_a_second(platforms: Platforms) -> None:
    versions = ("8.5.2.2", "8.4.1.5", "10.3.0.30", "10.13.3.9")
    fleet = [state(f"one-{number}", versions[number % 4], release()) for number in range(1000)]
    fits = {one.name: [Fit(bundle=BUNDLE, findings=(refusal(one.name),) * 20)] * 3 for one in fleet}
    began = time.perf_counter()
    report = audit(fleet, fits, platforms)
    assert time.perf_counter() - began < 1
    assert report.summary()["targets"] == 1000
