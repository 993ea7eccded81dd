"""Numbers sort as the values do, and neighbours have neighbouring ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.float_keys import keys_of, values_of_keys

ANY = st.floats(width=32, allow_nan=False)


@given(st.lists(ANY, min_size=2, max_size=2))
def test_numbers_sort_as_values_do(pair: list[float]) -> None:
    first, second = np.asarray(pair, np.float32)
    left, right = keys_of(np.asarray([first, second])).tolist()
    if first == second:  # of zeros the negative one comes first
        assert abs(left - right) <= 1
    else:
        assert (left < right) == (first < second)


@given(ANY)
def test_a_number_gives_its_value_back_and_the_next_one_the_next(value: float) -> None:
    values = np.asarray([value], np.float32)
    keys = keys_of(values)
    assert values_of_keys(keys).tobytes() == values.tobytes()
    if value not in {0.0, float("inf")}:
        after = values_of_keys(keys + np.int32(1))
        assert after == np.nextafter(values, np.float32(np.inf))


def test_what_is_no_number_lies_at_the_ends() -> None:
    odd = np.asarray([-np.nan, -np.inf, -1.0, 1.0, np.inf, np.nan], np.float32)
    assert np.all(np.diff(keys_of(odd).astype(np.int64)) > 0)
