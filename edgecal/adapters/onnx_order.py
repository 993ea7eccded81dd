"""The order of a network's nodes, which some converters leave to the reader."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def sort_nodes(proto: onnx.ModelProto) -> None:
    """Put nodes after those that they read, where they are not; else change nothing.

    Converters to float16 append the casts of inputs at the end; ONNX Runtime and TensorRT sort by
    themselves. Of those that could come next the first one comes, and nodes of a circle, or that
    read what nothing gives, come last: the checker says what is wrong with them.
    """
    nodes = proto.graph.node
    maker = {name: position for position, node in enumerate(nodes) for name in node.output if name}
    sources = [
        {maker[name] for name in node.input if name in maker} - {position}
        for position, node in enumerate(nodes)
    ]
    if all(source < position for position, found in enumerate(sources) for source in found):
        return
    readers: dict[int, list[int]] = {}
    for position, found in enumerate(sources):
        for source in found:
            readers.setdefault(source, []).append(position)
    waiting = [len(found) for found in sources]
    ready = [position for position, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for reader in readers.get(position, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    placed = set(order)
    order += [position for position in range(len(sources)) if position not in placed]
    sorted_nodes = [nodes[position] for position in order]
    del nodes[:]
    nodes.extend(sorted_nodes)
