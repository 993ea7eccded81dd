from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.npz import read_arrays
from edgecal.errors import BundleError


def archive(*, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    values: npt.NDArray[Any] = np.asarray([{}], object) if pickled else np.arange(1000) // 7
    np.savez_compressed(buffer, values=values)
    return buffer.getvalue()


WHOLE = archive()


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
