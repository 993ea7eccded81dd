"""The reference builder's account of a build: the line it prints, and what that proves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from edgecal.core.build import BuildResult, Proof

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULT_PREFIX: Final = "edgecal-result: "


def read_log(lines: Iterable[str], *, entries: Sequence[str]) -> BuildResult:
    """Take the builder's own account, which must speak of every entry of the cache."""
    for line in lines:
        if line.startswith(RESULT_PREFIX):
            result = json.loads(line.removeprefix(RESULT_PREFIX))
            used, unused = tuple(result["used"]), tuple(result["unused"])
            if {*used, *unused} != set(entries):
                return BuildResult(
                    proof=Proof.REFUTED, reason="the builder read another cache than was sent"
                )
            return BuildResult(
                proof=Proof.PROVED,
                reason=f"the reference builder quantized {result['quantized']} tensors by the cache",
                used=used,
                missing=tuple(result["missing"]),
                unused=unused,
            )
    return BuildResult(proof=Proof.UNPROVEN, reason="the reference builder gave no account")
