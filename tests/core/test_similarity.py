"""Pictures of a test set: known by bytes or by look, and never by being dark."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.findings import Severity
from edgecal.core.manifest import Digest, digest_of
from edgecal.core.similarity import (
    SIDE,
    Alike,
    Known,
    KnownPictures,
    Look,
    judge_excluded,
    look_of,
)


def look(seed: int) -> Look:
    found = look_of(np.random.default_rng(seed).integers(40, 200, (SIDE, SIDE)))
    assert found is not None
    return found


def known(*looks: Look | None) -> KnownPictures:
    test_set = KnownPictures()
    for number, one in enumerate(looks):
        name = f"{number}.png"
        test_set.add(Known(name=name, digest=digest_of(name.encode()), look=one))
    return test_set


OTHER = Digest("sha256:" + "0" * 64)


@pytest.mark.parametrize("value", [0, 7, 128, 255])
def test_a_picture_without_contrast_has_no_look(value: int) -> None:
    noise = np.random.default_rng(0).integers(0, 4, (SIDE, SIDE))
    assert look_of(np.clip(np.full((SIDE, SIDE), value) + noise, 0, 255)) is None


def test_an_empty_test_set_and_one_without_looks_know_nothing() -> None:
    assert known().find("a", OTHER, look(0)) is None
    assert known(None).find("a", OTHER, look(0)) is None
    assert known(look(0)).find("a", OTHER, None) is None


def test_something_small_that_moved_makes_another_picture() -> None:
    moved = look(0).copy()
    moved[17] += 9
    assert known(look(0)).find("a", OTHER, moved) is None


def test_the_same_scene_in_another_exposure_is_another_picture() -> None:
    assert known(look(0)).find("a", OTHER, look(0) + 3) is None


def test_equal_bytes_count_first_whatever_the_look() -> None:
    found = known(look(0), None).find("a.png", digest_of(b"1.png"), look(0))
    assert found == Alike(sample="a.png", known="1.png", same_bytes=True)


@given(st.integers(0, 2**32 - 1))
def test_small_differences_everywhere_are_those_of_an_encoder(seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(-3.0, 3.0, SIDE * SIDE).astype(np.float32)
    found = known(*map(look, range(5))).find("a.png", OTHER, look(3) + noise)
    assert found == Alike(sample="a.png", known="3.png", same_bytes=False)


def test_a_large_test_set_is_searched_to_its_end() -> None:
    test_set = known(*map(look, range(4500)))
    found = test_set.find("a", OTHER, look(4499))
    assert found is not None
    assert found.known == "4499.png"
    assert test_set.find("a", OTHER, look(4500)) is None


def test_what_was_left_out_is_counted_and_named() -> None:
    assert list(judge_excluded([], test_set="test")) == []
    alike = [Alike(sample=f"{n}.jpg", known=f"t{n}.jpg", same_bytes=n == 0) for n in range(7)]
    (one,) = judge_excluded(alike[:1], test_set="test")
    assert one.message.startswith("1 sample was left out, since the test set has it too: 0.jpg")
    (finding,) = judge_excluded(alike, test_set="test")
    assert (finding.rule, finding.severity) == ("like-test-set", Severity.WARNING)
    assert "7 samples were" in finding.message
    assert "0.jpg (the bytes of t0.jpg), 1.jpg (looks like t1.jpg)" in finding.message
    assert finding.message.endswith("and 2 more")
