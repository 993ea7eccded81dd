from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.batching import (
    FEWEST_HELD_OUT,
    MOST_HELD_OUT,
    fixed_batch,
    is_held_out,
    runs_of,
    stack,
)
from edgecal.core.graph import TensorInfo
from edgecal.errors import DatasetError


def held_out(samples: int, *, batch_size: int = 1) -> list[int]:
    kept: list[int] = []
    for index in range(samples):
        if is_held_out(index, batch_size=batch_size, already=len(kept)):
            kept.append(index)
    return kept


def info(*shape: int | None, name: str = "x") -> TensorInfo:
    return TensorInfo(name=name, dtype="float32", shape=shape)


def test_every_8th_is_held_out_and_every_4th_of_the_first_16() -> None:
    assert held_out(40) == [3, 7, 11, 15, 23, 31, 39]
    assert len(held_out(16)) == FEWEST_HELD_OUT


@given(st.integers(1, 500), st.integers(1, 64))
def test_never_one_of_the_first_batch_and_at_most_32(samples: int, batch_size: int) -> None:
    kept = held_out(samples, batch_size=batch_size)
    assert min(kept, default=batch_size) >= batch_size
    assert len(kept) <= MOST_HELD_OUT
    assert kept == held_out(samples + 100, batch_size=batch_size)[: len(kept)]  # in passing


def test_much_data_gives_exactly_32() -> None:
    assert len(held_out(10_000)) == 32


def test_inputs_fix_one_batch_size_or_none() -> None:
    assert fixed_batch([info(4, 3), info(None, 3), info(4)]) == 4
    assert fixed_batch([info(None, 3)]) is None
    assert fixed_batch([TensorInfo(name="x", dtype="float32")]) is None


def test_inputs_of_different_batch_sizes_or_none_are_refused() -> None:
    with pytest.raises(DatasetError, match="different batch sizes"):
        fixed_batch([info(4), info(8)])
    with pytest.raises(DatasetError, match="'threshold' is a scalar"):
        fixed_batch([info(4), info(name="threshold")])


@given(st.integers(1, 20), st.integers(1, 6))
def test_runs_hold_every_sample_in_order_the_last_repeated_to_fill(count: int, batch: int) -> None:
    runs = list(runs_of([{"x": np.asarray([number])} for number in range(count)], batch=batch))
    seen = [int(value) for run in runs for value in run["x"][:, 0]]
    assert all(run["x"].shape == (batch, 1) for run in runs)
    assert seen[:count] == list(range(count))
    assert set(seen[count:]) <= {count - 1}


def test_samples_of_different_shapes_make_no_batch() -> None:
    with pytest.raises(DatasetError, match="different shapes") as caught:
        stack([{"x": np.zeros(2)}, {"x": np.zeros(3)}], source="photos")
    assert caught.value.where == "photos"
