from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import entry_of_scale
from edgecal.core.overrides import (
    Override,
    apply_overrides,
    kept_overrides,
    overrides_from,
    parse_range_table,
    settle_overrides,
)
from edgecal.core.statistics import Scales
from edgecal.core.tensors import Copy, apply_copies
from edgecal.errors import InputError, InventoryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.manifest import OverrideRecord

NAMES = ("image", "conv1", "conv2", "pool", "[odd] conv*", "cat")


def override(pattern: str, amax: float, source: str = "r.txt") -> Override:
    (made,) = parse_range_table({pattern: amax}, source=source)
    return made


def layer(source: str = "r.txt", **amaxes: float) -> tuple[Override, ...]:
    return tuple(override(name, amax, source) for name, amax in amaxes.items())


def amaxes(settled: Mapping[str, Override]) -> dict[str, float]:
    return {name: round(one.scale * 127, 4) for name, one in settled.items()}


class TestWhatIsMeant:
    def test_by_nothing_that_is_there_is_refused_with_near_misses(self) -> None:
        with pytest.raises(InputError, match=r"'conv3'.*near misses: 'conv2', 'conv1'") as caught:
            settle_overrides([layer(conv3=1.0)], NAMES)
        assert caught.value.where == "r.txt"

    @pytest.mark.parametrize("pattern", ["bn*", "conv[3-9]", "*x", "?", ""])
    def test_by_a_glob_that_fits_nothing_is_refused(self, pattern: str) -> None:
        with pytest.raises(InputError, match="no tensor of the network"):
            settle_overrides([(override(pattern, 1.0),)], NAMES)

    @pytest.mark.parametrize("patterns", [("conv*", "*1"), ("conv1", "conv1")])
    def test_twice_and_differently_is_refused(self, patterns: tuple[str, str]) -> None:
        both = (override(patterns[0], 1.0), override(patterns[1], 2.0))
        with pytest.raises(InputError, match=r"two ranges for tensor 'conv1': 1 for.* 2 for"):
            settle_overrides([both], NAMES)

    def test_twice_alike_is_as_good_as_once(self) -> None:
        both = (override("conv*", 2.0), override("*1", 2.0))
        assert amaxes(settle_overrides([both], NAMES)) == {"conv1": 2.0, "conv2": 2.0}

    @pytest.mark.parametrize("patterns", [("conv*", "conv1"), ("conv1", "conv*")])
    def test_by_an_exact_name_outweighs_a_glob(self, patterns: tuple[str, str]) -> None:
        values = {"conv*": 1.0, "conv1": 5.0}
        rules = tuple(override(one, values[one]) for one in patterns)
        assert amaxes(settle_overrides([rules], NAMES)) == {"conv1": 5.0, "conv2": 1.0}

    def test_by_a_later_source_outweighs_an_earlier_one(self) -> None:
        layers = [layer("a", conv1=1.0, cat=2.0), (override("c*", 7.0, "b"),)]
        assert amaxes(settle_overrides(layers, NAMES)) == {"conv1": 7.0, "conv2": 7.0, "cat": 7.0}

    def test_by_a_name_is_that_tensor_whatever_it_looks_like(self) -> None:
        settled = settle_overrides([(override("[odd] conv*", 3.0),)], NAMES)
        assert amaxes(settled) == {"[odd] conv*": 3.0}


class TestATable:
    @pytest.mark.parametrize(
        "value", [0, -1.0, 10**400, True, "6", None, [6.0], float("nan"), float("inf"), {"a": 1.0}]
    )
    def test_with_no_positive_number_is_refused_by_its_key(self, value: object) -> None:
        with pytest.raises(InventoryError, match="'conv1' wants the largest magnitude"):
            parse_range_table({"conv1": value}, source="edgecal.toml: [calibrate.ranges]")

    @pytest.mark.parametrize("value", [1e-40, 1e41])
    def test_with_a_number_beyond_float32_is_refused(self, value: float) -> None:
        with pytest.raises(InputError):
            parse_range_table({"conv1": value}, source="t")

    @given(st.floats(1e-30, 1e30))
    def test_gives_the_scale_of_an_amax(self, amax: float) -> None:
        assert override("x", amax).scale == float(np.float32(amax / 127))


@pytest.mark.parametrize("scale", [0.0, float("inf"), float("nan"), -1.0])
def test_a_file_with_a_scale_that_nothing_can_use_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="'conv1' is not one TensorRT can use") as caught:
        overrides_from([entry_of_scale("conv1", scale)], source="old.cache")
    assert caught.value.where == "old.cache"


def test_a_file_gives_its_very_bits() -> None:
    (one,) = overrides_from([entry_of_scale("conv1", 0.1)], source="old.cache")
    assert entry_of_scale("conv1", one.scale).bits == entry_of_scale("conv1", 0.1).bits


def scales(unusable: Sequence[str] = (), **activations: float) -> Scales:
    measured = {name: np.float32(value) for name, value in activations.items()}
    constants = {"w_output": np.float32(0.5)}
    return Scales(activations=measured, constants=constants, unusable=tuple(unusable))


def applied(
    given: Sequence[Override],
    measured: Scales,
    *copies: Copy,
    wanted: Sequence[str] = ("x", "p", "q", "cat"),
) -> tuple[Scales, dict[str, OverrideRecord]]:
    settled = settle_overrides([tuple(given)], [*wanted, *measured.constants])
    changed, records = apply_overrides(measured, settled, wanted=wanted, copies=copies)
    return changed, {one.name: one for one in records}


POOLS = (Copy("p", "x"), Copy("q", "p"))


class TestAGivenRange:
    def test_takes_the_place_of_the_measured_one_which_is_kept(self) -> None:
        changed, records = applied([override("cat", 254.0)], scales(x=1, p=1, q=1, cat=3), *POOLS)
        assert changed.entries() == {"x": 1, "p": 1, "q": 1, "cat": 2, "w_output": 0.5}
        assert list(records) == ["cat"]
        record = records["cat"]
        assert (record.measured, record.given) == ("40400000", "40000000")
        assert (record.source, record.follows) == ("r.txt", None)

    def test_is_followed_by_what_copies_it(self) -> None:
        changed, records = applied([override("x", 254.0)], scales(x=1, p=1, q=1, cat=3), *POOLS)
        assert changed.activations == {"x": 2, "p": 2, "q": 2, "cat": 3}
        assert {name: one.follows for name, one in records.items()} == {
            "x": None,
            "p": "x",
            "q": "x",
        }
        assert records["q"].measured == "3f800000"

    def test_is_not_overwritten_by_a_copy(self) -> None:
        changed, records = applied([override("p", 254.0)], scales(x=1, p=1, q=1, cat=3), *POOLS)
        assert changed.activations == {"x": 1, "p": 2, "q": 2, "cat": 3}
        assert list(records) == ["p", "q"]

    def test_of_two_neighbours_stays_with_each(self) -> None:
        given = [override("x", 127.0 * 4), override("q", 127.0 * 8)]
        changed, _ = applied(given, scales(x=1, p=1, q=1, cat=3), *POOLS)
        assert changed.activations == {"x": 4, "p": 4, "q": 8, "cat": 3}

    def test_of_a_tensor_whose_scale_another_overwrites_still_reaches_its_pool(self) -> None:
        # x feeds a pool, whose copy comes first, and a Concat, which would overwrite x later
        copies = (Copy("p", "x"), Copy("x", "cat"))
        changed, _ = applied([override("x", 254.0)], scales(x=3, p=1, q=1, cat=3), *copies)
        assert changed.activations == {"x": 2, "p": 2, "q": 1, "cat": 3}
        changed, _ = applied([override("cat", 254.0)], scales(x=3, p=1, q=1, cat=3), *copies)
        assert changed.activations == {"x": 2, "p": 1, "q": 1, "cat": 2}

    def test_brings_in_a_tensor_that_was_always_zero_and_its_copies_in_their_place(self) -> None:
        measured = scales(["x", "p"], q=1, cat=3)
        changed, records = applied([override("x", 254.0)], measured, Copy("p", "x"))
        assert list(changed.activations) == ["x", "p", "q", "cat"]
        assert changed.activations == {"x": 2, "p": 2, "q": 1, "cat": 3}
        assert changed.unusable == ()
        assert records["x"].measured is records["p"].measured is None

    def test_leaves_other_tensors_without_a_scale_alone(self) -> None:
        measured = scales(["p"], x=1, q=1, cat=3)
        changed, _ = applied([override("cat", 254.0)], measured, *POOLS)
        assert changed.activations == {"x": 1, "q": 1, "cat": 2}
        assert changed.unusable == ("p",)

    def test_may_be_a_constant_s(self) -> None:
        changed, records = applied([override("w_*", 127.0)], scales(x=1))
        assert changed.constants == {"w_output": 1}
        assert records["w_output"].measured == "3f000000"


COPIES = st.lists(st.builds(Copy, st.sampled_from("abcdef"), st.sampled_from("abcdef")))
SCALE = st.integers(1, 9).map(np.float32)
SCALES = st.dictionaries(st.sampled_from("abcdef"), SCALE) | st.fixed_dictionaries(
    dict.fromkeys("abcdef", SCALE)
)


@given(SCALES, COPIES, st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([0.5, 0.25])))
def test_overriding_is_measuring_so_and_never_overwriting_it(
    measured: dict[str, np.float32], copies: list[Copy], amounts: dict[str, float]
) -> None:
    settled = {
        name: Override(pattern=name, scale=scale, source="s") for name, scale in amounts.items()
    }
    before = Scales(activations=apply_copies(measured, copies), constants={}, unusable=())
    changed, records = apply_overrides(before, settled, wanted="abcdef", copies=copies)
    assert {name: changed.activations[name] for name in amounts} == amounts
    wanted = {**measured, **{name: np.float32(scale) for name, scale in amounts.items()}}
    if measured.keys() == set("abcdef"):  # else a tensor may get its first scale by a copy
        kept = [copy for copy in copies if copy.tensor not in amounts]
        assert changed.activations == apply_copies(wanted, kept)
    if not amounts:
        assert (changed, records) == (replace_order(before), ())
    after = {one.name for one in records}
    assert {name: scale for name, scale in changed.activations.items() if name not in after} == {
        name: scale for name, scale in before.activations.items() if name not in after
    }


def replace_order(before: Scales) -> Scales:
    ordered = {name: before.activations[name] for name in "abcdef" if name in before.activations}
    return Scales(activations=ordered, constants={}, unusable=())


def test_what_was_given_for_an_earlier_bundle_stays_without_what_followed() -> None:
    _, records = applied([override("x", 254.0)], scales(x=1, p=1, q=1, cat=3), *POOLS)
    kept = kept_overrides(records.values(), ["x", "p"])
    assert kept == (Override(pattern="x", scale=2.0, source="r.txt"),)
    assert kept_overrides(records.values(), ["p"]) == ()


def test_many_names_take_no_time() -> None:
    names: list[Any] = [f"layer{number}/out" for number in range(20_000)]
    rules = tuple(override(name, 1.0) for name in names)
    assert len(settle_overrides([rules], names)) == len(names)
