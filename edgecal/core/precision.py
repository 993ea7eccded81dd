"""Which layers an INT8 build keeps in FP16: `precision.json`, read and written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from edgecal.errors import InputError

SCHEMA: Final = "edgecal.precision/1"
PRECISION_FILE: Final = "precision.json"
"""Its name in a bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Layers that a builder is told not to run in INT8, by ONNX node name, in topological order.

    TensorRT names the layer that it makes of a node after the node. A node for which its parser
    makes several layers, and one that is fused with another, may be called something else: a
    build has to look at its own layer list.
    """

    fp16_layers: tuple[str, ...] = ()


def serialize_precision(precision: Precision) -> bytes:
    """Write the file: JSON in ASCII, so that any name survives."""
    document = {"schema": SCHEMA, "fp16_layers": list(precision.fp16_layers)}
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


def parse_precision(data: bytes, *, source: str) -> Precision:
    """Read the file; keys that this version does not know are passed over.

    Raises
    ------
    InputError
        If it is not JSON, of another schema, or its layers are not names that differ.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"expected JSON: {error}", source) from error
    schema = document.get("schema") if isinstance(document, dict) else type(document).__name__
    if schema != SCHEMA:
        raise _unreadable(f"expected schema {SCHEMA!r}, found {schema!r}", source)
    layers = document.get("fp16_layers")
    if not isinstance(layers, list):
        raise _unreadable(f"expected a list 'fp16_layers', found {_short(layers)}", source)
    seen: set[str] = set()
    for name in layers:
        if not isinstance(name, str) or not name or name in seen:
            raise _unreadable(
                f"'fp16_layers' holds {_short(name)}: expected names, each once", source
            )
        seen.add(name)
    return Precision(fp16_layers=tuple(layers))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."


def _unreadable(what: str, source: str) -> InputError:
    return InputError(
        what, where=source, remedy="make it again from the Q/DQ network, or correct it by hand"
    )
