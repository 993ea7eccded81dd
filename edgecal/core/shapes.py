"""The shapes that a user settles for the dynamic inputs of a network."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgecal.core.graph import TensorInfo

Shape = tuple[int, ...]

_SHAPE: Final = re.compile(r"[1-9][0-9]{0,8}(?:x[1-9][0-9]{0,8})*")
_OPTION: Final = "--shape"
_REMEDY: Final = "write it like --shape input=1x3x640x640, the batch first"


@dataclass(frozen=True, slots=True)
class GivenShape:
    """A shape that somebody gave, batch axis included, and where."""

    shape: Shape
    source: str


def parse_shapes(texts: Iterable[str]) -> dict[str, GivenShape]:
    """Read what `--shape` says: `input=1x3x640x640`, one input each.

    Raises
    ------
    InputError
        If it has another form, or says two things of one input.
    """
    found: dict[str, GivenShape] = {}
    for text in texts:
        name, equals, dimensions = text.rpartition("=")  # names may hold "=" and ":"
        if not equals or not name:
            raise InputError(
                f"expected an input and its shape, found {text!r}", where=_OPTION, remedy=_REMEDY
            )
        given = GivenShape(_parse(name, dimensions, _OPTION), _OPTION)
        if found.setdefault(name, given) != given:
            raise InputError(
                f"input {name!r} is given two shapes, {by_x(found[name].shape)} and "
                f"{by_x(given.shape)}",
                where=_OPTION,
                remedy="calibrate once for each, into bundles of their own",
            )
    return found


def parse_shape_table(table: Mapping[str, object], *, source: str) -> dict[str, GivenShape]:
    """Read table `[calibrate.shapes]`: shapes like "1x3x640x640" by input.

    Raises
    ------
    InputError
        If a value has another form.
    """
    return {name: GivenShape(_parse(name, value, source), source) for name, value in table.items()}


def settle_inputs(
    inputs: Sequence[TensorInfo], given: Mapping[str, GivenShape]
) -> tuple[TensorInfo, ...]:
    """Put the shapes that were given in place of dynamic ones.

    Raises
    ------
    InputError
        If the network has no such input, or another shape for it.
    """
    known = {tensor.name: tensor for tensor in inputs}
    for name, one in given.items():
        tensor = known.get(name)
        if tensor is None:
            has = ", ".join(f"{have.name!r} of {by_x(have.shape)}" for have in inputs)
            raise InputError(
                f"the network has no input {name!r}; it has {has}",
                where=one.source,
                remedy="correct the name",
            )
        if not _fits(one.shape, tensor):
            raise InputError(
                f"input {name!r} is {by_x(tensor.shape)} in the network, found {by_x(one.shape)}",
                where=one.source,
                remedy=_remedy_for(tensor, one),
            )
    return tuple(
        replace(tensor, shape=given[tensor.name].shape) if tensor.name in given else tensor
        for tensor in inputs
    )


def by_x(shape: Sequence[int | None] | None) -> str:
    """Write a shape as TensorRT's tools do; `?` is a dimension known at run time only."""
    if shape is None:
        return "any shape"
    return "x".join("?" if size is None else str(size) for size in shape) or "a single number"


def _parse(name: str, dimensions: object, source: str) -> Shape:
    if not isinstance(dimensions, str) or _SHAPE.fullmatch(dimensions) is None:
        raise InputError(
            f"expected a shape like 1x3x640x640 for input {name!r}, found {dimensions!r}",
            where=source,
            remedy=_REMEDY
            if source == _OPTION
            else 'write it like input = "1x3x640x640", the batch first',
        )
    return tuple(int(size) for size in dimensions.split("x"))


def _remedy_for(tensor: TensorInfo, given: GivenShape) -> str:
    """Show what to type, if only the batch is missing."""
    batched = (1, *given.shape)
    if given.source == _OPTION and _fits(batched, tensor):
        return f"the batch goes first: --shape {shlex.quote(f'{tensor.name}={by_x(batched)}')}"
    return "only dimensions shown as '?' can be chosen; for others export it again"


def _fits(shape: Shape, tensor: TensorInfo) -> bool:
    return tensor.shape is None or (
        len(shape) == len(tensor.shape)
        and all(want in {None, have} for want, have in zip(tensor.shape, shape, strict=True))
    )
