"""The list of layers to keep in FP16: any names survive, anything else is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.precision import SCHEMA, Precision, parse_precision, serialize_precision
from edgecal.errors import InputError
from tests.strategies import tensor_names


def refuse(data: bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        parse_precision(data, source="precision.json")
    assert caught.value.where == "precision.json"
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected JSON"),
        (b"\xff\xfe\xfa", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"[]", "found 'list'"),
        (b"{}", "found None"),
        (b'{"schema": "edgecal.precision/2", "fp16_layers": []}', "edgecal.precision/2"),
        (b'{"schema": "edgecal.precision/1"}', "found None"),
        (b'{"schema": "edgecal.precision/1", "fp16_layers": "conv1"}', "found 'conv1'"),
        (b'{"schema": "edgecal.precision/1", "fp16_layers": ["a", 3]}', "holds 3"),
        (b'{"schema": "edgecal.precision/1", "fp16_layers": ["a", ""]}', "holds ''"),
        (b'{"schema": "edgecal.precision/1", "fp16_layers": ["a", "b", "a"]}', "holds 'a'"),
    ],
)
def test_what_is_no_such_list_is_refused_and_quoted(data: bytes, said: str) -> None:
    assert said in refuse(data).what


def test_a_long_value_is_quoted_in_part() -> None:
    data = json.dumps({"schema": SCHEMA, "fp16_layers": "x" * 10_000}).encode()
    assert len(refuse(data).what) < 200


@given(st.lists(tensor_names(), unique=True, max_size=6))
def test_any_names_survive_the_round_trip(names: list[str]) -> None:
    precision = Precision(fp16_layers=tuple(names))
    data = serialize_precision(precision)
    assert parse_precision(data, source="precision.json") == precision
    assert json.loads(data)["schema"] == "edgecal.precision/1"


def test_keys_of_a_later_version_are_passed_over() -> None:
    data = b'{"schema": "edgecal.precision/1", "fp16_layers": ["fc"], "note": "by hand"}'
    assert parse_precision(data, source="precision.json").fp16_layers == ("fc",)
