"""What hypothesis draws: names, caches and batches of activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecal.core.cache import CalibrationCache, Entry, Header

if TYPE_CHECKING:
    from edgecal.core.sweep import Values


def tensor_names() -> st.SearchStrategy[str]:
    """Draw names as networks have them, and as nobody should: anything on one line."""
    usual = st.sampled_from(
        ["images", "input_1:0", "a: b", "/m/Conv_output_0", "(Unnamed Layer* 8) [Constant]_output"]
    )
    anything = st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1, max_size=20
    )
    # bytes that are no UTF-8, as a decoder with `surrogateescape` keeps them
    odd = st.binary(min_size=1, max_size=8).map(
        lambda data: data.replace(b"\n", b"_").decode("utf-8", "surrogateescape")
    )
    return st.one_of(usual, anything, odd, st.builds("{}: {}".format, anything, anything))


def scale_bits() -> st.SearchStrategy[str]:
    """Draw scales as files spell them: any 32 bits, not zero-padded or padded."""
    bits = st.integers(0, 0xFFFFFFFF)
    return st.one_of(bits.map("{:x}".format), bits.map("{:08x}".format))


def caches() -> st.SearchStrategy[CalibrationCache]:
    """Draw whole calibration caches."""
    return st.builds(
        lambda code, algorithm, entries: CalibrationCache(
            header=Header(code=code, algorithm=algorithm),
            entries=tuple(Entry(tensor, bits) for tensor, bits in entries.items()),
        ),
        code=st.integers(1000, 999_999),
        algorithm=st.sampled_from(["EntropyCalibration2", "MinMaxCalibration"]),
        entries=st.dictionaries(tensor_names(), scale_bits(), max_size=8),
    )


def activation_batches(*, odd: bool = True) -> st.SearchStrategy[list[Values]]:
    """Draw batches of one tensor; `odd` ones hold NaN, infinities, or nothing at all."""
    usual = st.floats(-100, 100, width=32)
    elements = st.one_of(usual, st.just(0.0), st.floats(width=32)) if odd else usual
    batch = hnp.arrays(np.float32, st.integers(0 if odd else 1, 30), elements=elements)
    return st.lists(batch, min_size=1, max_size=6)


RAN = "edgecal-ran-this"
"""The file that `shell_words` makes where a shell runs a part of them."""


def shell_words() -> st.SearchStrategy[str]:
    """What a shell would make something else of if it saw it, in any mixture; no NUL."""
    pieces = st.sampled_from(
        [
            f"$(touch {RAN})",
            f"`touch {RAN}`",
            f";touch {RAN};",
            "'",
            '"',
            "\\",
            "\n",
            " ",
            "*",
            "~",
            "-n",
        ]
    )
    plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    return st.lists(pieces | plain, max_size=6).map("".join)
