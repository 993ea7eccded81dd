"""The log of a build: what TensorRT says of cache, layers and devices.

Wordings come from strings of libnvinfer 8.4.1 and from public logs of 7.1 to 10.3; none was seen on
a device by us, which is why every log is kept. A line is looked at up to `LONGEST_LINE` characters
and by plain searches first, so that neither its length nor the log's costs more than reading it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edgecal.core.build import BuildResult, Proof

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONGEST_LINE: Final = 32_768
"""Far longer than any line of TensorRT's that names one tensor."""

_CACHE_READ: Final = "Reading Calibration Cache for calibrator: "
_SCALES_TAKEN: Final = "Generated calibration scales using calibration cache"
_USED: Final = (
    ("INT8 Inference Tensor scales and zero-points: ", " scale and zero-point "),
    ("Setting dynamic range for ", " to ["),
)
_MISSING: Final = (
    ("Missing scale and zero-point for tensor ", ", expect fall back"),
    ("due to missing int8 scales for tensor ", " at "),
)
_FELL_BACK: Final = (
    ("Default DLA is enabled but layer ", " is not supported on DLA, falling back to GPU"),
    ("Layer '", ": Unsupported on DLA. Switching this layer's device type to GPU"),
    ("DLA only supports FP16 and Int8 precision type. Switching ", " device type to GPU"),
)
_MISMATCH: Final = "Calibration table does not match"
_REFUTED: Final = (
    _MISMATCH,
    "Could not parse the following line from the calibration cache",
    "Starting Calibration",
    "is bound to nullptr",
    "Calibration failure occurred",
    "Calibrator is not being used",
)
_LAYER: Final = "Layer("
_OUTPUT_TYPE = re.compile(r"[\[(](?P<type>[A-Z][A-Za-z0-9]{1,15})[\[(]")
"""`name[Int8(1,3,8,8)]` up to 8.4, `name (Int8[1,3,8,8])` later."""


def read_log(lines: Iterable[str], *, entries: Sequence[str]) -> BuildResult:
    """Find out from a verbose build log whether the engine's scales came from the cache.

    Parameters
    ----------
    lines
        Of the log, in order; read once.
    entries
        Tensors of the cache.
    """
    seen = _Seen()
    for line in lines:
        seen.look_at(line[:LONGEST_LINE])
    proof, reason = seen.weigh()
    known = set(entries)
    used = seen.used
    return BuildResult(
        proof=proof,
        reason=reason,
        mismatch=seen.mismatch,
        used=tuple(name for name in used if name in known) if used else None,
        missing=tuple(seen.missing),
        unused=tuple(name for name in entries if name not in used) if used else None,
        fell_back=tuple(seen.fell_back),
        precisions=dict(sorted(seen.precisions.items())) or None,
    )


class _Seen:
    """What the lines so far said."""

    def __init__(self) -> None:
        self.algorithm: str | None = None
        self.taken = False
        self.refuted: str | None = None
        self.mismatch = False
        self.used: dict[str, None] = {}
        self.missing: dict[str, None] = {}
        self.fell_back: dict[str, None] = {}
        self.precisions: dict[str, int] = {}

    def look_at(self, line: str) -> None:
        if _LAYER in line and " -> " in line and ", Tactic: " in line:
            self._count_layer(line)
            return
        if "alibrat" in line or "nullptr" in line:
            self._look_for_cache(line)
        if "DLA" in line:
            for head, tail in _FELL_BACK:
                if name := _between(line, head, tail):
                    self.fell_back[_without_kind(name)] = None
                    return
        elif "scale" in line or "dynamic range" in line:
            for patterns, names in ((_USED, self.used), (_MISSING, self.missing)):
                for head, tail in patterns:
                    if name := _between(line, head, tail):
                        names[name] = None
                        return

    def _look_for_cache(self, line: str) -> None:
        if _CACHE_READ in line:
            self.algorithm = line.partition(_CACHE_READ)[2].split(" ")[0].strip()[:64]
        self.taken = self.taken or _SCALES_TAKEN in line
        self.mismatch = self.mismatch or _MISMATCH in line
        if self.refuted is None and any(words in line for words in _REFUTED):
            self.refuted = line.strip()

    def _count_layer(self, line: str) -> None:
        """Count a line of `Engine Layer Information` by the type of its first output."""
        _, arrow, outputs = line.rpartition(" -> ")
        match = _OUTPUT_TYPE.search(outputs) if arrow else None
        if match is not None:
            self.precisions[match["type"]] = self.precisions.get(match["type"], 0) + 1

    def weigh(self) -> tuple[Proof, str]:
        if self.refuted is not None:
            return Proof.REFUTED, f"the log says: {self.refuted[:200]}"
        if self.algorithm is not None and (self.taken or self.used):
            shown = f", and names {len(self.used)} tensors that took a scale" if self.used else ""
            return Proof.PROVED, f"the log says that the {self.algorithm} cache was read{shown}"
        if self.algorithm is not None:
            return Proof.UNPROVEN, "the log says that the cache was read, but not that it was taken"
        return Proof.UNPROVEN, "the log does not mention the calibration cache"


def _between(line: str, head: str, tail: str) -> str | None:
    """Give what stands between two phrases, the last possible tail: names may hold anything."""
    start = line.find(head)
    if start < 0:
        return None
    start += len(head)
    end = line.rfind(tail, start)
    return line[start:end] if end > start else None


def _without_kind(name: str) -> str:
    """Leave the layer's kind out, which stands behind the quote: `conv1' (CONVOLUTION)`."""
    bare, quote, kind = name.rpartition("' (")
    return bare if quote and kind.endswith(")") else name
