from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.adapters.tables import load_platforms
from edgecal.core.audit import (
    ActiveRelease,
    BundleFacts,
    Fit,
    LastFacts,
    TargetState,
    audit,
    drift,
    outliers,
    recorded_files,
)
from edgecal.core.findings import Finding, Severity
from edgecal.core.manifest import CACHE_FILE, MODEL_FILE, Digest
from edgecal.core.target import BuilderFact, Target, TargetFacts
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import CommandError, ConnectError

if TYPE_CHECKING:
    from edgecal.core.platforms import Platforms

SEEN = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


@pytest.fixture(scope="module")
def platforms() -> Platforms:
    return load_platforms()


def digest(letter: str) -> Digest:
    return Digest(f"sha256:{letter * 64}")


def facts(
    tensorrt: str | None, *, module: str | None = None, l4t: str | None = None
) -> TargetFacts:
    version = parse_tensorrt(tensorrt) if tensorrt else None
    return TargetFacts(
        root="/home/nvidia/.edgecal",
        is_jetson=True,
        tensorrt=version,
        builders=(BuilderFact(name="trtexec", path=TRTEXEC, tensorrt=version),) if version else (),
        module=module,
        l4t=l4t,
        jetpack="5.1.2",
        gpu_access=True,
        power_mode="MAXN",
    )


def state(
    name: str,
    tensorrt: str | None = "8.5.2.2",
    *active: ActiveRelease,
    module: str | None = "agx-xavier",
    l4t: str | None = "35.4.1",
) -> TargetState:
    return TargetState(
        last=LastFacts(
            target=Target(name=name, host=name),
            facts=facts(tensorrt, module=module, l4t=l4t),
            seen=SEEN,
            live=True,
        ),
        active=active,
    )


RECORD: dict[str, Any] = {
    "bundle": {
        "name": "net-8.5",
        "manifest": digest("1"),
        "tensorrt": "8.5.2",
        "created": "2026-11-01T00:00:00+00:00",
    },
    "cache": {"bundled": digest("c"), "built_from": digest("d")},
    "builder": {"name": "trtexec", "path": TRTEXEC, "tensorrt": "8.5.2"},
    "engine": {"file": "model.engine", "digest": digest("e")},
    "files": {MODEL_FILE: digest("a"), CACHE_FILE: digest("d")},
}
FOUND: dict[str, Digest | None] = {
    "model.engine": digest("e"),
    MODEL_FILE: digest("a"),
    CACHE_FILE: digest("d"),
}
BUNDLE = BundleFacts(
    name="net-8.5",
    path="out/net-8.5.edgecal",
    tensorrt=parse_tensorrt("8.5.2"),
    manifest=digest("1"),
    network=digest("a"),
    files={MODEL_FILE: digest("a"), CACHE_FILE: digest("c")},
)


def release(record: dict[str, Any] | None = RECORD, **found: Digest | None) -> ActiveRelease:
    changed = {key.replace("__", "."): value for key, value in found.items()}
    return ActiveRelease(
        model="net-8.5", release="0123456789abcdef", record=record, found={**FOUND, **changed}
    )


def drifts(one: TargetState, *bundles: BundleFacts, fit: bool = True) -> list[Finding]:
    error = Finding(
        rule="x", severity=Severity.ERROR, subject=one.name, message="no", remedy="none"
    )
    fits = [Fit(bundle=bundle, findings=() if fit else (error,)) for bundle in bundles]
    return list(drift(one, fits))


def test_a_release_as_it_was_built_has_not_drifted() -> None:
    assert drifts(state("bench", "8.5.2.2", release()), BUNDLE) == []
    assert drifts(state("bench", "8.5.2.2", release())) == []
    assert drifts(state("bench")) == []


@pytest.mark.parametrize("installed", ["8.5.10", "8.5.3", "8.6.2.3", "10.3.0.30", "8.4.1.5", None])
def test_an_engine_of_another_tensorrt_than_the_installed_one_is_drift(
    installed: str | None,
) -> None:
    (found,) = drifts(state("bench", installed, release()), BUNDLE, fit=False)
    assert found.rule == "drift-tensorrt"
    assert found.severity is Severity.ERROR
    assert "8.5.2" in found.message
    assert str(installed or "none that answers") in found.message


def test_the_build_number_counts_where_both_are_known() -> None:
    built = {**RECORD, "builder": {**RECORD["builder"], "tensorrt": "10.3.0.26"}}
    assert [one.rule for one in drifts(state("bench", "10.3.0.30", release(built)))] == [
        "drift-tensorrt"
    ]
    assert drifts(state("bench", "10.3.0", release(built))) == []


def test_the_remedy_after_an_upgrade_pushes_what_fits_or_says_what_to_make() -> None:
    upgraded = state("bench", "8.5.3", release())
    (found,) = drifts(upgraded, BUNDLE)
    assert found.remedy == "edgecal push out/net-8.5.edgecal --target bench"
    (found,) = drifts(upgraded)
    assert found.remedy == "edgecal push net-8.5.edgecal --target bench"

    newer = state("my bench", "10.3.0", release())
    other = replace(
        BUNDLE, name="net-10.3", path="net-10.3.edgecal", tensorrt=parse_tensorrt("10.3.0")
    )
    (found,) = drifts(newer, other)
    assert found.remedy == "edgecal push net-10.3.edgecal --target 'my bench' --as net-8.5"
    (found,) = drifts(newer, BUNDLE, fit=False)
    assert "--tensorrt 10.3 -o net-10.3.edgecal, then edgecal push" in found.remedy
    (found,) = drifts(state("bench", "11.0.0", release()))
    assert "calibrate --from BUNDLE --tensorrt 11.0" in found.remedy


def test_a_pip_wheel_beside_the_system_library_is_no_drift() -> None:
    one = state("bench", "8.5.2.2", release())
    known = one.last.facts
    assert known is not None
    wheel = BuilderFact(
        name="trtexec", path="/opt/trt/bin/trtexec", tensorrt=parse_tensorrt("10.3.0")
    )
    two = replace(known, tensorrt=wheel.tensorrt, builders=(wheel, *known.builders))
    assert drifts(replace(one, last=replace(one.last, facts=two))) == []


def test_the_reference_builder_has_no_tensorrt_to_drift_from() -> None:
    record = {**RECORD, "builder": {"name": "onnxruntime", "path": "/usr/bin/python3"}}
    assert drifts(state("bench", "8.6.1", release(record))) == []


def test_changed_and_vanished_files_are_told_apart() -> None:
    (changed,) = drifts(state("bench", "8.5.2", release(model__engine=digest("f"))), BUNDLE)
    assert changed.rule == "drift-files"
    assert "model.engine of the active release 0123456789abcdef is not what" in changed.message
    assert "sha256:eeeeeeeeeeee" in changed.message
    assert "sha256:ffffffffffff" in changed.message
    assert changed.remedy == "edgecal push out/net-8.5.edgecal --target bench --rebuild"
    (gone,) = drifts(state("bench", "8.5.2", release(model__engine=None, model__onnx=None)))
    assert "model.engine of the active release 0123456789abcdef is gone, and 1 more" in gone.message


def test_another_cache_or_network_than_the_bundle_of_that_name_is_drift() -> None:
    again = replace(
        BUNDLE, manifest=digest("2"), files={MODEL_FILE: digest("a"), CACHE_FILE: digest("9")}
    )
    (found,) = drifts(state("bench", "8.5.2", release()), again)
    assert (found.rule, found.severity) == ("drift-cache", Severity.ERROR)
    assert "another cache than" in found.message
    assert found.remedy == "edgecal push out/net-8.5.edgecal --target bench"
    retrained = replace(again, files={MODEL_FILE: digest("b"), CACHE_FILE: digest("9")})
    (found,) = drifts(state("bench", "8.5.2", release()), retrained)
    assert "another cache and network than" in found.message
    same = replace(BUNDLE, manifest=digest("2"))
    (found,) = drifts(state("bench", "8.5.2", release()), same)
    assert found.severity is Severity.NOTE
    stranger = replace(again, name="detector")
    assert drifts(state("bench", "8.5.2", release()), stranger) == []


def test_a_release_without_a_record_is_drift() -> None:
    (found,) = drifts(state("bench", "8.5.2", release(None)), BUNDLE)
    assert found.rule == "drift-record"
    assert found.remedy.startswith("edgecal push out/net-8.5.edgecal --target bench --as net-8.5")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("name", "tensorrt", "file", "digest", "bundled", "manifest", "path")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(("bundle", "cache", "builder", "engine", "files")), json_values, max_size=5
    )
)
def test_a_record_that_a_device_made_up_never_breaks_the_audit(record: dict[str, Any]) -> None:
    assert all(isinstance(one, str) for one in recorded_files(record).values())
    one = state("bench", "8.5.2", replace(release(), record=record))
    assert all(found.subject == "bench" for found in drifts(one, BUNDLE))


def test_only_paths_inside_the_release_are_hashed() -> None:
    files = {"/etc/shadow": "x", "../../key": "x", "a//b": "x", "golden/0.0.bin": "x", "n": 5}
    assert list(recorded_files({"files": files})) == ["golden/0.0.bin"]


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
