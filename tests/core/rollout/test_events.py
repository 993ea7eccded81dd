"""Events and their JSON: what was written is what is read, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.rollout.events import SCHEMA, Event, Kind, event_text, parse_event
from edgecal.core.rollout.state import Fault, Plan
from edgecal.errors import InputError
from tests.core.rollout.simulation import plan_of, policies

NAMES = st.text(max_size=10)


@st.composite
def events(draw: st.DrawFn) -> Event:
    fault = st.none() | st.builds(Fault, code=NAMES, what=NAMES)
    waves = draw(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=4, unique=True))
    plan: st.SearchStrategy[Plan | None] = st.none() | st.builds(
        plan_of, st.just([[f"d{name}"] for name in waves]), policies()
    )
    return Event(
        kind=draw(st.sampled_from(Kind)),
        at_ms=draw(st.integers(0, 1 << 45)),
        target=draw(NAMES),
        wave=draw(st.integers(-1, 9)),
        release=draw(NAMES),
        until_ms=draw(st.integers(0, 1 << 45)),
        why=draw(NAMES),
        fault=draw(fault),
        plan=draw(plan),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"schema":"edgecal.rollout-event/2","kind":"paused","at_ms":1}',
        f'{{"schema":"{SCHEMA}","kind":"exploded","at_ms":1}}',
        f'{{"schema":"{SCHEMA}","kind":"paused","at_ms":"1"}}',
        f'{{"schema":"{SCHEMA}","kind":"paused","at_ms":true}}',
        f'{{"schema":"{SCHEMA}","kind":"paused","at_ms":NaN}}',
        f'{{"schema":"{SCHEMA}","kind":"paused"}}',
        f'{{"schema":"{SCHEMA}","kind":"paused","at_ms":1,"target":7}}',
        f'{{"schema":"{SCHEMA}","kind":"paused","at_ms":1,"fault":"x"}}',
        f'{{"schema":"{SCHEMA}","kind":"paused","at_ms":1,"plan":{{}}}}',
        f'{{"schema":"{SCHEMA}","kind":"paused","at_ms":1,"colour":"red"}}',
    ],
)
def test_what_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_event(text, source="entry 3")
    assert caught.value.where == "entry 3"


@given(events())
def test_an_event_survives_the_round_trip(event: Event) -> None:
    text = event_text(event)
    assert text.isascii()
    assert parse_event(text, source="x") == event
    assert event_text(parse_event(text, source="x")) == text


@given(events(), st.data())
def test_an_event_with_any_value_changed_is_another_one_or_none(
    event: Event, data: st.DataObject
) -> None:
    document = json.loads(event_text(event))
    key = data.draw(st.sampled_from(sorted(document)))
    oddities: st.SearchStrategy[object] = st.none() | st.integers() | st.text(max_size=3)
    odd = data.draw(oddities | st.just([]) | st.just({}))
    changed = json.dumps({**document, key: odd})
    try:
        found = parse_event(changed, source="x")
    except InputError:
        return
    assert found != event or document[key] == odd
