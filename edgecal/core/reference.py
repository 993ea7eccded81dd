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
    account = next((line for line in lines if line.startswith(RESULT_PREFIX)), None)
    if account is None:
        return BuildResult(proof=Proof.UNPROVEN, reason="the reference builder gave no account")
    try:
        result = json.loads(account.removeprefix(RESULT_PREFIX))
        quantized = int(result["quantized"])
        used, unused, missing = (tuple(result[key]) for key in ("used", "unused", "missing"))
        explicit = bool(result.get("explicit"))
    except (ValueError, KeyError, TypeError):  # a full disk or a lost power supply cuts lines short
        return BuildResult(
            proof=Proof.UNPROVEN, reason="the reference builder's account cannot be read"
        )
    if {*used, *unused} != set(entries):
        return BuildResult(
            proof=Proof.REFUTED, reason="the builder read another cache than was sent"
        )
    if explicit:  # nothing was built from a cache; what says INT8 is in the network as shipped
        return BuildResult(
            proof=Proof.NOT_APPLICABLE,
            reason=f"the network as shipped quantizes {quantized} tensors",
            precisions={"Int8": quantized},
        )
    return BuildResult(
        proof=Proof.PROVED,
        reason=f"the reference builder quantized {quantized} tensors by the cache",
        used=used,
        missing=missing,
        unused=unused,
    )
