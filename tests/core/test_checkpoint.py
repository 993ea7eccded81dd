"""Checkpoints as bytes: what comes back, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.checkpoint import (
    Checkpoint,
    Reading,
    check_same_pass,
    parse_checkpoint,
    serialize_checkpoint,
)
from edgecal.core.derived import View
from edgecal.core.histogram import UNCLAMPED, Clamp, collect, start_histogram
from edgecal.core.manifest import digest_of
from edgecal.core.statistics import serialize_histograms
from edgecal.errors import InputError
from tests.networks import floats

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.core.histogram import Histogram

OF = {"network": "sha256:1", "batch size": "4"}


def measured(seed: int) -> Histogram:
    values = floats(100, seed=seed)
    return collect(start_histogram(values), values * 3)


CHECKPOINT = Checkpoint(
    of=OF,
    reading=Reading(samples=9, digest=digest_of(b"data"), ended=True),
    done=frozenset({0, 1, 2, 5, 7, 8}),
    histograms={
        View("x", UNCLAMPED): measured(0),
        View("x", Clamp(0.0, 6.0)): measured(1),
        View("odd\udcff: \n name", Clamp(low=0.0)): measured(2),
    },
)


def parse(data: bytes) -> Checkpoint:
    return parse_checkpoint(data, source="net.edgecal.checkpoint")


def refuse(data: bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(data)
    assert type(caught.value) is InputError
    assert caught.value.where == "net.edgecal.checkpoint"
    assert "--resume" in caught.value.remedy
    return caught.value


def assert_equal(left: Checkpoint, right: Checkpoint) -> None:
    assert (left.of, left.reading, left.done) == (right.of, right.reading, right.done)
    assert list(left.histograms) == list(right.histograms)
    for view, one in left.histograms.items():
        other = right.histograms[view]
        assert np.array_equal(one.counts, other.counts)
        assert replace(one, counts=other.counts) == other


def test_a_checkpoint_cut_off_anywhere_is_refused() -> None:
    data = serialize_checkpoint(CHECKPOINT)
    for size in (*range(0, len(data), 97), len(data) - 1):
        refuse(data[:size])


@given(st.data())
def test_a_checkpoint_with_a_changed_byte_is_refused_or_the_same(draw: st.DataObject) -> None:
    data = bytearray(serialize_checkpoint(CHECKPOINT))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= draw.draw(st.integers(1, 255))
    try:
        found = parse(bytes(data))
    except InputError:
        return
    assert_equal(found, CHECKPOINT)  # a time in the archive, say


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    refuse(data)


def forged(change: Callable[[dict[str, Any]], object], histograms: bytes | None = None) -> bytes:
    with np.load(io.BytesIO(serialize_checkpoint(CHECKPOINT))) as arrays:
        about = json.loads(arrays["about"].tobytes())
        held = arrays["histograms"].tobytes() if histograms is None else histograms
    change(about)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        histograms=np.frombuffer(held, np.uint8),
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.clear(),
        lambda about: about.pop("reading", about.pop("samples")),
        lambda about: about.update(samples=-1),
        lambda about: about.update(samples=True),
        lambda about: about.update(samples=5),  # fewer than there are batches
        lambda about: about.update(samples=1 << 60),
        lambda about: about.update(done=[[1, 3]]),  # without the first one
        lambda about: about.update(done=[[0, 1 << 50]]),
        lambda about: about.update(done=[[0]]),
        lambda about: about.update(done=7),
        lambda about: about.update(digest=None),
        lambda about: about.update(of=[]),
        lambda about: about.update(of={"network": 1}),
        lambda about: about.update(views=[]),
        lambda about: about.update(views=[["x", "low", 1.0]] * 3),
        lambda about: about.update(views=[["x", 0.0, 1.0]] * 3),
        lambda about: about["views"].pop(),
    ],
)
def test_what_cannot_be_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    assert "damaged" in refuse(forged(change)).what


@pytest.mark.parametrize(
    "wrong",
    [
        {"counts": np.zeros(4097, np.float64)},
        {"counts": np.zeros(7, np.int64)},
        {"counts": np.full(4097, -1, np.int64)},
        {"range_end": 0.0},
        {"range_end": np.inf},
        {"range_end": np.nan},
    ],
)
def test_histograms_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    histograms = {str(number): replace(measured(number), **wrong) for number in range(3)}
    refuse(forged(lambda _about: None, serialize_histograms(histograms)))
    refuse(forged(lambda _about: None, b""))


def test_another_schema_is_named() -> None:
    error = refuse(forged(lambda about: about.update(schema="edgecal.checkpoint/2")))
    assert "'edgecal.checkpoint/2'" in error.what
    assert "version of edgecal" in error.remedy


def test_another_pass_is_refused_by_what_differs() -> None:
    check_same_pass(CHECKPOINT, OF, source="c")
    for other, words in (
        ({**OF, "batch size": "8"}, ("batch size", "4", "8")),
        ({"network": "sha256:1"}, ("batch size", "none")),
        ({**OF, "input": "x"}, ("input", "none")),
    ):
        with pytest.raises(InputError) as caught:
            check_same_pass(CHECKPOINT, other, source="c")
        assert all(word in caught.value.what for word in words)
        assert caught.value.where == "c"


def test_a_checkpoint_survives_the_round_trip() -> None:
    assert_equal(parse(serialize_checkpoint(CHECKPOINT)), CHECKPOINT)


@given(st.sets(st.integers(0, 60)))
def test_any_set_of_batches_survives_the_round_trip(batches: set[int]) -> None:
    reading = replace(CHECKPOINT.reading, samples=100)
    one = {View("x"): measured(0)}
    written = replace(CHECKPOINT, done=frozenset({0, *batches}), reading=reading, histograms=one)
    assert parse(serialize_checkpoint(written)).done == written.done
