from __future__ import annotations

import json

import pytest

from edgecal.core.build import Proof
from edgecal.core.reference import RESULT_PREFIX, read_log

ACCOUNT = {"quantized": 2, "used": ["a", "b: c"], "missing": ["d"], "unused": ["e"]}
LINE = RESULT_PREFIX + json.dumps(ACCOUNT)
ENTRIES = ("e", "b: c", "a")


def test_an_account_of_every_entry_proves_the_build() -> None:
    result = read_log(["some warning", LINE, "goodbye"], entries=ENTRIES)
    assert result.proof is Proof.PROVED
    assert (result.used, result.missing, result.unused) == (("a", "b: c"), ("d",), ("e",))


@pytest.mark.parametrize("entries", [(*ENTRIES, "f"), ENTRIES[:2]])
def test_an_account_of_other_entries_is_of_another_cache(entries: tuple[str, ...]) -> None:
    assert read_log([LINE], entries=entries).proof is Proof.REFUTED


def test_a_network_that_came_with_its_pairs_used_no_cache() -> None:
    account = {"quantized": 3, "used": [], "missing": [], "unused": [], "explicit": True}
    line = RESULT_PREFIX + json.dumps(account)
    result = read_log([line], entries=())
    assert result.proof is Proof.NOT_APPLICABLE
    assert result.precisions == {"Int8": 3}
    assert read_log([line], entries=ENTRIES).proof is Proof.REFUTED


def test_no_account_and_any_part_of_one_prove_nothing() -> None:
    assert read_log([], entries=ENTRIES).proof is Proof.UNPROVEN
    for cut in range(len(LINE)):
        assert read_log([LINE[:cut]], entries=ENTRIES).proof is Proof.UNPROVEN
    for form in ("[]", "null", '{"used": 1}', '{"quantized": null}'):
        assert read_log([RESULT_PREFIX + form], entries=ENTRIES).proof is Proof.UNPROVEN
