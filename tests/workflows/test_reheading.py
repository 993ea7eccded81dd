"""A cache that TensorRT wrote goes out as it is, and re-headed once where TensorRT refuses that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.core.manifest import CACHE_FILE
from edgecal.workflows.events import CacheReheaded, EngineBuilt, PushEvent, Step, StepDue
from edgecal.workflows.push import push
from edgecal.workflows.report import PushOptions
from tests.bundles import make_bundles
from tests.workflows.test_push import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2")[0]
    return replace(made, manifest=replace(made.manifest, written_by_tensorrt=True))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench")


def builds(events: list[PushEvent]) -> int:
    return sum(isinstance(event, StepDue) and event.step is Step.BUILD for event in events)


def reheaded(events: list[PushEvent]) -> int:
    return sum(isinstance(event, CacheReheaded) for event in events)


@pytest.mark.parametrize(("version", "mode"), [("8503", "calibrates"), ("8502", "mismatch")])
def test_no_other_refusal_and_no_header_that_is_right_is_a_reason(
    bench: Bench, bundle: Bundle, version: str, mode: str
) -> None:
    bench.install_trtexec(bundle, version, mode)
    report, events = bench.push(bundle)
    assert report.state == "failed"
    assert (builds(events), reheaded(events)) == (1, 0)


def test_a_copy_that_is_refused_too_fails_and_is_not_built_twice_again(
    bench: Bench, bundle: Bundle
) -> None:
    bench.install_trtexec(bundle, "8503", "mismatch")
    report, events = bench.push(bundle)
    assert report.error is not None
    assert "does not match" in report.error.what
    assert (builds(events), reheaded(events)) == (2, 1)
    _, events = bench.push(bundle)
    assert (builds(events), reheaded(events)) == (1, 0)


def test_it_is_built_once_more_and_both_digests_are_recorded(bench: Bench, bundle: Bundle) -> None:
    bench.install_trtexec(bundle, "8503")
    report, events = bench.push(bundle)
    assert report.state == "active", report.error
    assert (builds(events), reheaded(events)) == (2, 1)
    assert (bench.current / CACHE_FILE).read_text().startswith("TRT-8503-")
    cache = bench.record()["cache"]
    assert isinstance(cache, dict)
    assert cache["bundled"] == bundle.manifest.files[CACHE_FILE].digest
    assert cache["built_from"] not in {None, cache["bundled"]}
    files = bench.record()["files"]
    assert isinstance(files, dict)
    assert files[CACHE_FILE] == cache["built_from"]
    again, _ = bench.push(bundle)
    assert again.release == report.release


def test_a_controller_that_was_gone_finds_out_which_cache_was_built_from(
    bench: Bench, bundle: Bundle
) -> None:
    bench.install_trtexec(bundle, "8503")
    pushing = push([bundle], bench.target, PushOptions(), bench.world)
    while not isinstance(next(pushing), EngineBuilt):
        pass
    pushing.close()
    report, events = bench.push(bundle)
    assert report.state == "active", report.error
    assert reheaded(events) == 0
    cache = bench.record()["cache"]
    assert isinstance(cache, dict)
    assert cache["built_from"] != cache["bundled"]
