from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import CalibrationCache, Entry, Header
from edgecal.core.edit_record import Origin
from edgecal.core.restamp import restamp
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import IncompatibleError, InputError
from tests.strategies import caches

CACHE = CalibrationCache(
    header=Header(code=8502, algorithm="MinMaxCalibration"), entries=(Entry("x", "3c010a14"),)
)
V852 = parse_tensorrt("8.5.2")


def stamped(
    to: str | None = None,
    *,
    algorithm: str | None = None,
    cache: CalibrationCache = CACHE,
    written: bool = True,
    force: bool = False,
    made_for: TensorRTVersion = V852,
) -> tuple[Header, set[str]]:
    found, findings = restamp(
        cache,
        tensorrt=parse_tensorrt(to) if to else None,
        algorithm=algorithm,
        origin=Origin(written_by_tensorrt=written, tensorrt=made_for),
        force=force,
        source="a.cache",
    )
    assert found.entries == cache.entries
    return found.header, {one.rule for one in findings}


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to do"):
        stamped()


@pytest.mark.parametrize("to", ["8.6.1", "8.4.1", "10.3.0"])
def test_another_minor_of_what_tensorrt_wrote_needs_force_and_says_what_it_risks(to: str) -> None:
    with pytest.raises(IncompatibleError, match=f"8.5.2 wrote .* {to}.*parser.*Concat") as caught:
        stamped(to)
    assert "--force" in caught.value.remedy
    header, rules = stamped(to, force=True)
    assert header.algorithm == "MinMaxCalibration"
    assert rules == {"header-version"}


def test_another_patch_goes_without_a_word() -> None:
    assert stamped("8.5.10") == (Header(code=8510, algorithm="MinMaxCalibration"), set())


def test_what_edgecal_stamped_goes_anywhere_with_a_warning() -> None:
    header, rules = stamped("10.3", written=False)
    assert (header.code, rules) == (100300, {"header-version"})


def test_the_origin_counts_and_not_the_header() -> None:
    made_for = parse_tensorrt("8.4.1")
    assert stamped("8.4.1", made_for=made_for)[1] == set()
    with pytest.raises(IncompatibleError, match=r"8\.4\.1 wrote"):
        stamped("8.5.2", made_for=made_for)


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("to", ["11.0", "11.4.1", "12.0"])
def test_tensorrt_11_is_refused_whatever_force_says(to: str, *, written: bool) -> None:
    with pytest.raises(IncompatibleError, match="takes no calibration caches") as caught:
        stamped(to, written=written, force=True)
    assert "qdq" in caught.value.remedy


def test_a_minmax_cache_can_be_headed_for_trtexec() -> None:
    header, _ = stamped(algorithm="EntropyCalibration2")
    assert header == Header(code=8502, algorithm="EntropyCalibration2")


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InputError, match="expected EntropyCalibration2 or MinMaxCalibration"):
        stamped(algorithm="Entropy2")


@pytest.mark.parametrize("algorithm", ["EntropyCalibration", "LegacyCalibration"])
def test_what_was_calibrated_after_fusion_needs_force(algorithm: str) -> None:
    cache = replace(CACHE, header=replace(CACHE.header, algorithm=algorithm))
    with pytest.raises(IncompatibleError, match="after fusion"):
        stamped(algorithm="EntropyCalibration2", cache=cache)
    header, _ = stamped(algorithm="EntropyCalibration2", cache=cache, force=True)
    assert header.algorithm == "EntropyCalibration2"


@given(caches(), st.sampled_from(["7.1.3", "8.5.2", "10.3.0"]))
def test_scales_are_kept(cache: CalibrationCache, to: str) -> None:
    assert stamped(to, cache=cache, force=True)[0].algorithm == cache.header.algorithm
