from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.renames import guess_renames
from tests.strategies import tensor_names


@pytest.mark.parametrize(
    ("unknown", "missing"),
    [
        (["12"], ["13"]),
        (["12", "13"], ["14", "conv"]),
        (["backbone/stem"], ["head/logits"]),
        (["a_b", "a.b"], ["ab"]),
        (["x" * 5000], ["x" * 4999 + "y"]),
        ([], ["a"]),
        (["a"], []),
    ],
)
def test_nothing_is_guessed_where_nothing_speaks_for_it(
    unknown: list[str], missing: list[str]
) -> None:
    assert guess_renames(unknown, missing) == {}


@pytest.mark.parametrize(
    ("unknown", "missing"),
    [
        ("input_1:0", "input_1"),
        ("conv1.quantized.dequantized", "conv1"),
        ("model/conv/Relu", "/Model.conv.Relu"),
        ("/m/Conv_12_output_0", "/m/Conv_14_output_0"),
        ("backbone.stem.conv_out", "backbone.stem.cnv_out"),
    ],
)
def test_a_name_is_found_again_in_another_spelling(unknown: str, missing: str) -> None:
    assert guess_renames([unknown], ["something", missing, "other"]) == {unknown: missing}


@given(
    st.lists(tensor_names(), unique=True, max_size=10),
    st.lists(tensor_names(), unique=True, max_size=10),
)
def test_no_tensor_is_guessed_twice(unknown: list[str], missing: list[str]) -> None:
    guesses = guess_renames(unknown, missing)
    assert set(guesses) <= set(unknown)
    assert set(guesses.values()) <= set(missing)
    assert len(set(guesses.values())) == len(guesses)
