from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.drift import drift, recorded_files
from edgecal.core.findings import Finding, Severity
from edgecal.core.manifest import CACHE_FILE, MODEL_FILE
from edgecal.core.target import BuilderFact
from edgecal.core.target_state import BundleFacts, Fit, TargetState
from edgecal.core.versions import parse_tensorrt
from tests.audits import BUNDLE, RECORD, digest, release, state


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
