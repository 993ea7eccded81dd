"""ONNX Runtime's optimised network, made to give tensors in the order its convolutions keep them.

They keep channels in blocks of 8 or 16, whichever suits the processor. To be looked at, a tensor is
put into the order of its shape, and back into blocks for the next convolution: on MobileNetV2 that
costs half of what the network does. Who counts values needs no order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_DOMAIN: Final = "com.microsoft.nchwc"
_WHOLE_BLOCKS: Final = 16
"""Channels in multiples of this fill blocks of either size: there is no padding among them."""
_EACH_BY_ITSELF: Final = frozenset({"Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu"})
"""Operators that ONNX Runtime has tensors put in order for, though they look at single values."""


def leave_in_blocks(proto: onnx.ModelProto, ordered: AbstractSet[str]) -> dict[str, str]:
    """Take out of an optimised network, in place, what puts tensors in order.

    Parameters
    ----------
    ordered
        Outputs that are to stay as they are.

    Returns
    -------
    dict
        The tensor that an output holds in blocks now, by the output's new name. Its shape is the
        tensor's; so is what lies along the first axis. Empty if nothing was changed.
    """
    putters: dict[str, onnx.NodeProto] = {}
    """What puts a tensor of whole blocks in order, by the name it has then."""
    same: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
        first, made = next(iter(node.input), ""), node.output[0]
        if _reorders(node, "ReorderInput") and first in putters:
            same[made] = putters[first].input[0]
            continue
        nodes.append(node)
        if _reorders(node, "ReorderOutput"):
            if _channels(node) % _WHOLE_BLOCKS == 0:
                putters[made] = node
        elif not node.domain and node.op_type in _EACH_BY_ITSELF and first in putters:
            putters[made] = _swapped(node, putters[first])
            nodes.append(putters[made])
    held: dict[str, str] = {}
    for output in proto.graph.output:
        if output.name in putters and output.name not in ordered:
            in_blocks = putters[output.name].input[0]
            held[in_blocks], output.name = output.name, in_blocks
    if held:
        read = {name for node in nodes for name in node.input}
        read |= {output.name for output in proto.graph.output}
        del proto.graph.node[:]
        proto.graph.node.extend(
            node for node in nodes if node.output[0] in read or not _reorders(node, "ReorderOutput")
        )
    return held


def _swapped(node: onnx.NodeProto, putter: onnx.NodeProto) -> onnx.NodeProto:
    """Make a node look at blocks; gives what puts its output in order after it."""
    after = onnx.NodeProto()
    after.CopyFrom(putter)
    after.name, after.output[0] = "", node.output[0]
    after.input[0] = f"{node.output[0]}/blocks"
    node.input[0], node.output[0] = putter.input[0], after.input[0]
    return after


def _reorders(node: onnx.NodeProto, op_type: str) -> bool:
    return (
        node.domain == _DOMAIN
        and node.op_type == op_type
        and not any(one.i for one in node.attribute if one.name == "channels_last")
    )


def _channels(node: onnx.NodeProto) -> int:
    return next(int(one.i) for one in node.attribute if one.name == "channels")
