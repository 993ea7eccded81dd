"""The token bucket, against a clock that does as it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.bandwidth import TokenBucket, parse_rate
from edgecal.errors import InputError


@pytest.mark.parametrize("text", ["", "0", "0M", "-1", "2 M", "2Mb", "M", "1e6", "inf", "nan", "٢"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="such as 500k or 2M"):
        parse_rate(text, source="--limit-rate")


@pytest.mark.parametrize(
    ("text", "rate"), [("1", 1), ("500k", 512000), ("2M", 2 << 20), ("1.5K", 1536), ("1g", 1 << 30)]
)
def test_a_rate_is_read_as_curl_reads_it(text: str, rate: float) -> None:
    assert parse_rate(text, source="--limit-rate") == rate


@given(
    st.floats(1, 1e9),
    st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 100)), min_size=1, max_size=50),
)
def test_who_waits_as_told_never_sends_faster_than_the_rate(
    rate: float, sends: list[tuple[int, float]]
) -> None:
    now = 1000.0
    bucket = TokenBucket(rate, now=now)
    total = 0
    for count, idle_s in sends:
        total += count
        now += bucket.take(count, now=now)
        # what came before, but for the quarter of a second that may go at once
        assert total <= rate * (now - 1000.0 + 0.25) * (1 + 1e-6) + 1
        now += idle_s


def test_a_steady_sender_reaches_the_rate() -> None:
    now, sent = 0.0, 0
    bucket = TokenBucket(1e6, now=now)
    while now < 10:
        sent += 32_000
        now += bucket.take(32_000, now=now)
    assert sent == pytest.approx(1e7, rel=0.05)


def test_an_idle_hour_saves_up_no_burst() -> None:
    bucket = TokenBucket(1000, now=0)
    assert bucket.take(1000, now=3600) == pytest.approx(0.75)


def test_a_clock_that_goes_back_does_no_harm() -> None:
    bucket = TokenBucket(1000, now=100)
    assert bucket.take(1000, now=50) == pytest.approx(0.75)
