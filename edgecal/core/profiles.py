"""Optimization profiles: the shapes that an engine is to take at inputs with dynamic dimensions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edgecal.core.build import ShapeRange
from edgecal.errors import IncompatibleError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SHAPE: Final = re.compile(r"[1-9][0-9]{0,8}(?:x[1-9][0-9]{0,8})*")
_REMEDY: Final = (
    "write it like --profile input=1x3x640x640,4x3x640x640,8x3x640x640: least, usual and largest "
    "shape, the batch first"
)

Profile = tuple[tuple[str, ShapeRange], ...]


def parse_profiles(texts: Iterable[str]) -> Profile:
    """Read what `--profile` says: `input=LEAST,USUAL,LARGEST`, one input each.

    Raises
    ------
    InputError
        If one has another form, or an input comes twice.
    """
    found: dict[str, ShapeRange] = {}
    for text in texts:
        name, equals, shapes = text.rpartition("=")  # names may hold "=" and ":"
        if not equals or not name:
            raise InputError(
                f"expected an input and its shapes, found {text!r}",
                where="--profile",
                remedy=_REMEDY,
            )
        if name in found:
            raise InputError(
                f"input {name!r} is given two profiles",
                where="--profile",
                remedy="give each input once: an engine of edgecal's has one profile",
            )
        found[name] = _parse_range(name, shapes, "--profile")
    return tuple(found.items())


def parse_profile_table(table: Mapping[str, object], *, source: str) -> Profile:
    """Read table `[push.profile]`: `input = "LEAST,USUAL,LARGEST"`.

    Raises
    ------
    InputError
        If a value has another form.
    """
    return tuple((name, _parse_range(name, value, source)) for name, value in table.items())


def check_profile(
    profile: Profile,
    inputs: Mapping[str, tuple[int, ...]],
    golden: Mapping[str, ShapeRange],
    *,
    dla: bool,
    where: str,
) -> None:
    """Hold profiles against a network.

    Parameters
    ----------
    inputs
        Shapes by input; dynamic dimensions are -1.
    golden
        Shapes of the golden inputs: the engine has to take them, or nothing could verify it.

    Raises
    ------
    InputError
        If the network has no such input, or no such shape of it.
    IncompatibleError
        If a DLA is to take shapes that vary.
    """
    for name, shapes in profile:
        declared = inputs.get(name)
        if declared is None or -1 not in declared:
            dynamic = [one for one, shape in inputs.items() if -1 in shape]
            raise InputError(
                f"{name!r} is no input with dynamic dimensions; those are: "
                f"{', '.join(map(repr, dynamic)) or 'none'}",
                where=where,
                remedy="give profiles to inputs with dynamic dimensions alone",
            )
        _check_range(name, shapes, declared, golden[name], where)
    if not dla:
        return
    for name, shapes in {**golden, **dict(profile)}.items():
        if shapes.least != shapes.largest:
            raise IncompatibleError(
                f"a DLA takes no dynamic dimensions, and input {name!r} is to vary from "
                f"{_span(shapes)}",
                where=where,
                remedy="build for the GPU, or for one shape: give it three times, and calibrate "
                "with data of that shape",
            )


def _check_range(
    name: str,
    shapes: ShapeRange,
    declared: tuple[int, ...],
    golden: ShapeRange,
    where: str,
) -> None:
    for shape in (shapes.least, shapes.usual, shapes.largest):
        fits = len(shape) == len(declared) and all(
            want in {-1, size} for want, size in zip(declared, shape, strict=True)
        )
        if not fits:
            asked = "x".join("?" if size < 0 else str(size) for size in declared)
            raise InputError(
                f"input {name!r} is {asked}, and its profile says {_by_x(shape)}",
                where=where,
                remedy="vary the dimensions that are dynamic, and no others",
            )
    if not shapes.holds(golden):
        raise InputError(
            f"the golden samples have {_span(golden)} at input {name!r}, and its profile goes from "
            f"{_span(shapes)}: the engine could not be verified",
            where=where,
            remedy="let the profile include the shapes that were calibrated with",
        )


def _parse_range(name: str, text: object, where: str) -> ShapeRange:
    words = text.split(",") if isinstance(text, str) else []
    if len(words) != 3 or not all(_SHAPE.fullmatch(word) for word in words):
        raise InputError(
            f"expected three shapes for input {name!r}, found {text!r}",
            where=where,
            remedy=_REMEDY,
        )
    least, usual, largest = (tuple(int(size) for size in word.split("x")) for word in words)
    ranks = len({len(least), len(usual), len(largest)}) == 1
    if not ranks or any(
        not low <= size <= high for low, size, high in zip(least, usual, largest, strict=True)
    ):
        raise InputError(
            f"the shapes for input {name!r} do not grow: {text}", where=where, remedy=_REMEDY
        )
    return ShapeRange(least, usual, largest)


def _span(shapes: ShapeRange) -> str:
    if shapes.least == shapes.largest:
        return _by_x(shapes.least)
    return f"{_by_x(shapes.least)} to {_by_x(shapes.largest)}"


def _by_x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
