"""A bundle held against targets: real bundles, the real probe on this machine, no SSH."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.cache_files import write_bundle_with_record
from edgecal.adapters.scripts import load_scripts
from edgecal.adapters.tables import load_platforms
from edgecal.core.assumed import assume_target
from edgecal.core.build import BuildOptions
from edgecal.core.findings import Finding, Severity
from edgecal.core.manifest import CACHE_FILE
from edgecal.core.target import Target
from edgecal.errors import CacheFormatError, InputError
from edgecal.workflows.check import check_bundle, check_live, check_on, look_at_cache
from edgecal.workflows.push import push
from edgecal.workflows.report import PushOptions
from edgecal.workflows.world import World
from tests.bundles import install_trtexec, make_bundles
from tests.fakes import LocalTransport

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle
    from edgecal.workflows.report import PushReport

PLATFORMS = load_platforms()
STALE = Finding(
    rule="stale-model", severity=Severity.ERROR, subject="net", message="changed", remedy="again"
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2", "10.3.0")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A target on this machine, whose programs lie in `bin`."""
    (tmp_path / "bin").mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return World(
        connect=lambda _target: LocalTransport({"PATH": path, "HOME": str(tmp_path)}),
        scripts=load_scripts(),
        builders={},
        platforms=PLATFORMS,
        now=lambda: datetime(2026, 11, 21, tzinfo=timezone.utc),
        owner="tester@bench",
    )


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(name="bench", host="bench", root=str(tmp_path / "root"), python=sys.executable)


def with_header(bundle: Bundle, folder: Path, header: str) -> Bundle:
    """Write a copy of a bundle whose cache begins otherwise, as if TensorRT had written it."""
    with bundle.open(CACHE_FILE) as stream:
        _, _, body = stream.read().partition(b"\n")
    made = folder / f"{bundle.manifest.name}.edgecal"
    manifest = replace(bundle.manifest, written_by_tensorrt=True)
    data = header.encode() + b"\n" + body
    write_bundle_with_record(made, manifest, data, b"{}", source=bundle.path)
    return read_bundle(made)


def rules_by_tables(bundle: Bundle, *, device: str, **known: str) -> set[str]:
    named: dict[str, str | None] = {"tensorrt": None, "jetpack": None, "builder": None, **known}
    target, facts = assume_target(PLATFORMS, device=device, **named)
    done = check_on(
        bundle,
        look_at_cache(bundle),
        target,
        facts=facts,
        options=BuildOptions(),
        platforms=PLATFORMS,
    )
    return {one.rule for one in done.findings}


def test_a_bundle_of_edgecals_own_has_nothing_against_it(bundles: list[Bundle]) -> None:
    report = check_bundle(look_at_cache(bundles[0]), (), BuildOptions())
    assert report.findings == ()
    assert set(report.exit_codes) == {0}


def test_a_device_of_the_tables_is_judged_as_one_that_was_asked(bundles: list[Bundle]) -> None:
    assert rules_by_tables(bundles[0], device="agx-xavier", jetpack="5.1.2") == set()
    assert "tensorrt-version" in rules_by_tables(bundles[0], device="orin-nx-8gb", jetpack="6.2")
    assert rules_by_tables(bundles[1], device="agx-thor-t5000", tensorrt="11.4.1") == {
        "implicit-int8-removed"
    }


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"device": "orin-nx"}, ("orin-nx-8gb", "orin-nx-16gb", "agx-thor-t5000")),
        ({"device": "orin-nx-8gb"}, ("which TensorRT", "8.5 to 10.16")),
        ({"device": "orin-nx-8gb", "jetpack": "5.1.7"}, ("'5.1.7'", "5.1.6", "7.2")),
        ({"device": "agx-orin-32gb", "jetpack": "7.2.2"}, ("no table tells",)),
        ({"device": "nano", "tensorrt": "eight"}, ("'eight'",)),
        ({"device": "nano", "tensorrt": "8.2", "builder": "trt"}, ("'trt'",)),
    ],
)
def test_what_no_table_knows_is_the_users_mistake_with_near_misses(
    known: dict[str, str], words: tuple[str, ...]
) -> None:
    named: dict[str, str | None] = {"tensorrt": None, "jetpack": None, "builder": None, **known}
    with pytest.raises(InputError) as caught:
        assume_target(PLATFORMS, **named)
    assert all(word in f"{caught.value.what} {caught.value.remedy}" for word in words)
    assert caught.value.exit_code == 2


def test_a_target_is_asked_and_its_own_builder_counts(
    bundles: list[Bundle], world: World, target: Target, tmp_path: Path
) -> None:
    cache = look_at_cache(bundles[0])
    install_trtexec(tmp_path / "bin", bundles[0], version="8601")
    refused = check_live(bundles[0], cache, target, BuildOptions(), world)
    assert refused.exit_code == 3
    assert {one.rule for one in refused.findings} == {"tensorrt-version"}
    (tmp_path / "bin" / "version").write_text("8502")
    fits = check_live(bundles[0], cache, target, BuildOptions(), world)
    assert fits.exit_code == 0
    assert fits.builder is not None
    assert fits.builder.name == "trtexec"
    assert not (tmp_path / "root").exists()


def test_a_target_that_cannot_be_reached_does_not_hide_the_others(
    bundles: list[Bundle], world: World, target: Target
) -> None:
    cache = look_at_cache(bundles[0])
    cut = replace(world, connect=lambda _target: LocalTransport({}, cut_after=0))
    gone = check_live(bundles[0], cache, target, BuildOptions(), cut)
    reached = check_live(bundles[0], cache, target, BuildOptions(), world)
    report = check_bundle(cache, (), BuildOptions(), [gone, reached])
    assert report.exit_codes == (0, 4, 0)
    assert {one.rule for one in report.findings} == {"reference-builder"}


def test_findings_about_the_cache_stand_once_however_many_targets(
    bundles: list[Bundle], tmp_path: Path
) -> None:
    legacy = with_header(bundles[0], tmp_path, "TRT-8502-EntropyCalibration")
    cache = look_at_cache(legacy)
    checks = []
    for slug in ("agx-xavier", "xavier-nx-8gb"):
        target, facts = assume_target(
            PLATFORMS, device=slug, tensorrt="8.5.2", jetpack=None, builder=None
        )
        checks.append(
            check_on(
                legacy, cache, target, facts=facts, options=BuildOptions(), platforms=PLATFORMS
            )
        )
    report = check_bundle(cache, (STALE,), BuildOptions(), checks)
    assert [one.rule for one in report.findings] == ["stale-model", "cache-not-portable"]
    assert report.exit_codes == (3, 3, 3)


def test_a_cache_no_push_could_send_is_corrupt_and_a_legacy_one_is_judged(
    bundles: list[Bundle], tmp_path: Path
) -> None:
    legacy = with_header(bundles[0], tmp_path, "0 3ff0000000000000 3fefffeb074a771d")
    (finding,) = check_bundle(look_at_cache(legacy), (), BuildOptions()).findings
    assert finding.rule == "cache-not-portable"
    shutil.rmtree(legacy.path)
    odd = with_header(bundles[0], tmp_path, "TRT-8502-EntropyCalibration2\nx: 0x1")
    with pytest.raises(CacheFormatError):
        look_at_cache(odd)


def test_holes_of_the_manifest_are_judged_less_what_got_an_entry_since(
    bundles: list[Bundle],
) -> None:
    manifest = bundles[0].manifest
    record = replace(manifest.coverage, missing=("image", "nowhere"), covered=32)
    holey = replace(bundles[0], manifest=replace(manifest, coverage=record))
    (finding,) = check_bundle(look_at_cache(holey), (), BuildOptions()).findings
    assert finding.rule == "tensor-coverage"
    assert finding.severity is Severity.WARNING
    assert "1 of" in finding.message
    strict = BuildOptions(dla_core=0, gpu_fallback=False, fp16=False)
    (finding,) = check_bundle(look_at_cache(holey), (), strict).findings
    assert finding.severity is Severity.ERROR


def pushed(bundles: list[Bundle], target: Target, world: World, options: PushOptions) -> PushReport:
    pushing = push(bundles, target, options, world)
    while True:
        try:
            next(pushing)
        except StopIteration as end:
            report: PushReport = end.value
            return report


def test_push_refuses_a_stale_bundle_and_of_several_names_the_one_that_would_fit(
    bundles: list[Bundle], world: World, target: Target, tmp_path: Path
) -> None:
    install_trtexec(tmp_path / "bin", bundles[1], version="100300")
    options = PushOptions(sources={one.manifest_digest: (STALE,) for one in bundles})
    report = pushed(bundles, target, world, options)
    assert report.state == "refused"
    assert report.exit_code == 3
    assert report.name == "net-10.3"
    assert report.error is not None
    assert "stale-model" in report.error.what
    assert not (tmp_path / "root").exists()


def test_push_refuses_a_cache_that_trtexec_would_ignore(
    bundles: list[Bundle], world: World, target: Target, tmp_path: Path
) -> None:
    install_trtexec(tmp_path / "bin", bundles[0])
    minmax = with_header(bundles[0], tmp_path, "TRT-8502-MinMaxCalibration")
    report = pushed([minmax], target, world, PushOptions())
    assert report.exit_code == 3
    document = json.dumps(report.to_json())
    assert "edgecal cache restamp net-8.5.edgecal --algorithm EntropyCalibration2" in document
