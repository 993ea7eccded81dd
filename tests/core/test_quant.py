from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecal.core.quant import Sqnr, cosine, scale_of, sqnr

vectors = hnp.arrays(np.float32, st.integers(1, 30), elements=st.integers(-9_999, 9_999))


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_the_scale_is_one_float32_division(amax: float) -> None:
    scale = scale_of(np.float32(amax))
    assert scale.dtype == np.float32
    assert scale == np.float32(np.float64(amax) / 127)  # a double quotient rounds to the same


@given(vectors, st.floats(0.5, 8))
def test_the_cosine_knows_direction_not_length(
    values: npt.NDArray[np.float32], factor: float
) -> None:
    assert cosine(values, values) == pytest.approx(1)
    assert cosine(values, values * np.float32(factor)) == pytest.approx(1)
    assert cosine(values, -values) == pytest.approx(-1 if values.any() else 1)


def test_zeros_are_like_zeros_and_unlike_anything_else() -> None:
    zeros, ones = np.zeros(3), np.ones(3)
    assert cosine(zeros, zeros) == 1
    assert cosine(zeros, ones) == cosine(ones, zeros) == 0


def test_noise_is_what_differs_in_decibel() -> None:
    wanted = np.full(4, 10.0)
    assert sqnr(wanted, wanted + 1).decibel == pytest.approx(20)
    assert sqnr(wanted, wanted).decibel == float("inf")
    assert sqnr(wanted * 0, wanted).decibel == float("-inf")


@given(vectors, vectors)
def test_noise_of_parts_adds_up_to_that_of_the_whole(
    left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]
) -> None:
    parts = sqnr(left, left + 1) + sqnr(right, right + 1)
    both = np.concatenate([left, right])
    whole = sqnr(both, both + 1)
    assert parts.signal == pytest.approx(whole.signal)
    assert parts.noise == pytest.approx(whole.noise)
    assert Sqnr() + whole == whole
