"""Nodes of operators that nothing but TensorRT with a plugin runs, and what to do about them."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Final

import onnx

from edgecal.adapters.onnx_errors import one_line
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_SHOWN: Final = 3
_LONGEST: Final = 50
_RUNTIMES_OWN: Final = ("com.microsoft", "com.ms.")
"""Domains of operators that ONNX Runtime brings along; it says itself which ones it lacks."""


def plugin_nodes(proto: onnx.ModelProto) -> dict[int, onnx.NodeProto]:
    """Map positions to nodes whose operators neither ONNX nor ONNX Runtime nor the file defines."""
    own = {(function.domain, function.name) for function in proto.functions}
    found: dict[tuple[str, str], bool] = {}
    for node in proto.graph.node:
        key = (node.domain, node.op_type)
        if key not in found:
            found[key] = key not in own and _is_foreign(node)
    return {
        position: node
        for position, node in enumerate(proto.graph.node)
        if found[node.domain, node.op_type]
    }


def _is_foreign(node: onnx.NodeProto) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        return not domain.startswith(_RUNTIMES_OWN) and not onnx.defs.has(node.op_type, domain)
    except TypeError:  # bytes, not text: the checker says that the file is corrupt
        return False


def refuse_plugins(proto: onnx.ModelProto, path: Path) -> None:
    """Make sure that a network can run without TensorRT.

    Raises
    ------
    ModelError
        If it cannot; the remedy holds the command that cuts the network before its plugins, if
        nothing else comes after them.
    """
    plugins = plugin_nodes(proto)
    if not plugins:
        return
    nodes = list(plugins.values())
    named = ", ".join(_name(node) for node in nodes[:_SHOWN])
    more = f" and {len(nodes) - _SHOWN} more" if nodes[_SHOWN:] else ""
    many = len(nodes) > 1
    cut = _cut(proto, plugins, path)
    raise ModelError(
        f"node{'s' if many else ''} {named}{more} {'are' if many else 'is'} of no operator that "
        "ONNX defines: only TensorRT runs such plugins, and this calibration runs on the CPU",
        where=str(path),
        remedy=cut or "export the network with operators of ONNX in place of plugins of TensorRT",
    )


def _name(node: onnx.NodeProto) -> str:
    of = f" of domain {node.domain[:_LONGEST]!r}" if node.domain else ""
    name = node.name or "".join(node.output[:1])
    return f"{name[:_LONGEST]!r} ({one_line(node.op_type)[:_LONGEST]}{of})"


def _cut(proto: onnx.ModelProto, plugins: Collection[int], path: Path) -> str:
    """Say how to cut a network before plugins at its end; nothing if they are not at its end."""
    behind: set[str] = set()
    cut: dict[str, None] = {}
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value.name for value in proto.graph.input if value.name not in weights]
    for position, node in enumerate(proto.graph.node):
        if position not in plugins and behind.isdisjoint(node.input):
            if node.op_type == "Constant":
                weights.update(node.output)
            continue
        if position not in plugins and node.op_type not in _TRIFLES:
            return ""
        behind.update(name for name in node.output if name)
        for name in node.input:
            if name and name not in behind and name not in weights and name not in inputs:
                cut[name] = None
    if not cut:
        return ""
    outputs = [one.name for one in proto.graph.output if one.name not in behind]
    kept = [*cut, *(name for name in outputs if name not in cut)]
    target = str(path.with_name(f"{path.stem}-cut.onnx"))
    words = ", ".join(json.dumps(one) for one in (str(path), target, inputs, kept))
    them = "them" if len(plugins) > 1 else "it"
    code = f"import onnx.utils; onnx.utils.extract_model({words}, check_model=False)"
    return (
        f"cut the network before {them}: python -c {shlex.quote(code)}; "
        f"then 'edgecal calibrate {shlex.quote(target)}': tensors keep their names, so that the "
        "cache fits the whole network too"
    )


_TRIFLES: Final = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""What exporters put behind a plugin without it being more of the network."""
