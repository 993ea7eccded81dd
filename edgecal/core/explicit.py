"""Which TensorRT builds a network that carries its own scales as Q/DQ pairs.

Sources: docs/operators.md of github.com/onnx/onnx-tensorrt (the parser of 8.0 reads opset 13, whose
pairs have a scale per channel; that of 8.5 ends at 17, that of 10.0 at 20); ONNX, which has float16
scales from opset 19 on; release notes of TensorRT OSS 8.0.1 (Q/DQ layers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.versions import parse_tensorrt

if TYPE_CHECKING:
    from edgecal.core.versions import TensorRTVersion

_FIRST_PAIRS: Final = parse_tensorrt("8.0.0")
_FIRST_FLOAT16_PAIRS: Final = parse_tensorrt("10.0.0")


def minimum_tensorrt(*, fp16: bool) -> TensorRTVersion:
    """Name the first TensorRT that takes such a network; what is typed float16 needs a later one.

    A later TensorRT takes it as well: there is no table in it whose names or header could age.
    """
    return _FIRST_FLOAT16_PAIRS if fp16 else _FIRST_PAIRS
