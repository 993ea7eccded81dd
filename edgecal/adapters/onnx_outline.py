"""A network without its weights: all that checking and inferring shapes look at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import onnx

from edgecal.adapters.plugins import plugin_nodes

if TYPE_CHECKING:
    from collections.abc import Container

_LENT_DOMAIN: Final = "edgecal.plugins"
_SMALL: Final = 1024
"""Elements; shapes, axes and bounds, which inference reads, have far fewer."""


def copy_without(source: onnx.ModelProto, left_out: Container[str]) -> onnx.ModelProto:
    """Copy a model but for these fields of it and of its graph, which are never copied."""
    proto = onnx.ModelProto()
    for whole, copy in ((source, proto), (source.graph, proto.graph)):
        for field, value in whole.ListFields():
            if field.name == "graph" or field.name in left_out:
                continue
            if isinstance(value, int | float | str | bytes):
                setattr(copy, field.name, value)
            else:
                getattr(copy, field.name).MergeFrom(value)
    return proto


def outline(source: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a network with an input in place of each large weight.

    Why: onnx hands networks to its checker and to shape inference as bytes, and those make copies
    of their own; with the weights in them a network would lie in memory five times.

    Plugins get a domain of their own, which both leave alone: whether anything here can run them
    is another question.
    """
    proto = copy_without(source, {"initializer"})
    inputs = {value.name for value in proto.graph.input}
    for tensor in source.graph.initializer:
        if is_small(tensor):
            proto.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            value = proto.graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = tensor.data_type
            for size in tensor.dims:
                value.type.tensor_type.shape.dim.add(dim_value=size)
            value.type.tensor_type.shape.SetInParent()
    plugins = plugin_nodes(proto)
    for node in plugins.values():
        node.domain = _LENT_DOMAIN
    if plugins:
        proto.opset_import.add(domain=_LENT_DOMAIN, version=1)
    return proto


def is_small(tensor: onnx.TensorProto) -> bool:
    """Tell whether a weight is copied into outlines."""
    return math.prod(tensor.dims) <= _SMALL
