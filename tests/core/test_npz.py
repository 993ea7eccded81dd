from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.npz import read_arrays, write_arrays
from edgecal.errors import BundleError


def archive(*, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    values: npt.NDArray[Any] = np.asarray([{}], object) if pickled else np.arange(1000) // 7
    np.savez_compressed(buffer, values=values)
    return buffer.getvalue()


WHOLE = archive()
MANY = {
    "0/inputs/0": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4),
    "counts": np.arange(5000, dtype=np.int64) // 100,
    "names/é": np.asarray(["a", "bc"]),
    "empty": np.zeros((0, 3), np.float16),
    "scalar": np.asarray(7),
    "turned": np.arange(6).reshape(2, 3).T,
}


def test_what_is_written_is_read_by_us_and_by_numpy() -> None:
    data = write_arrays(MANY)
    ours, numpy_s = read_arrays(data, source="golden.npz"), np.load(io.BytesIO(data))
    assert list(ours) == list(numpy_s) == list(MANY)
    for name, value in MANY.items():
        for found in (ours[name], numpy_s[name]):
            assert found.dtype == value.dtype
            assert np.array_equal(found, value)


def test_the_same_arrays_give_the_same_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_arrays(MANY)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert write_arrays(MANY) == before


def test_objects_are_not_pickled() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays({"values": np.asarray([{}], object)})


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_an_error_or_changes_nothing(position: int, flip: int) -> None:
    data = bytearray(WHOLE)
    data[position] ^= flip
    try:
        arrays = read_arrays(bytes(data), source="golden.npz")
    except BundleError:
        return
    assert [list(one) for one in arrays.values()] == [list(np.arange(1000) // 7)]


@given(st.integers(0, len(WHOLE) - 1))
def test_half_a_file_is_an_error(length: int) -> None:
    with pytest.raises(BundleError):
        read_arrays(WHOLE[:length], source="golden.npz")


def test_pickled_objects_are_never_read() -> None:
    with pytest.raises(BundleError, match="allow_pickle"):
        read_arrays(archive(pickled=True), source="golden.npz")


def test_a_lone_array_is_no_archive() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    with pytest.raises(BundleError, match="not a zip file"):
        read_arrays(buffer.getvalue(), source="golden.npz")
