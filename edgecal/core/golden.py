"""Golden runs to judge engines by: inputs, the host's float32 outputs, its simulated INT8 ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgecal.core.npz import read_arrays, write_arrays
from edgecal.core.quant import cosine
from edgecal.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Arrays = dict[str, npt.NDArray[Any]]

_PARTS: Final = ("inputs", "fp32", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRun:
    """One execution of the network; axis 0 of every input is the batch."""

    inputs: Mapping[str, npt.NDArray[Any]]
    fp32: Mapping[str, npt.NDArray[Any]]
    int8: Mapping[str, npt.NDArray[Any]]


def serialize_golden(runs: Sequence[GoldenRun]) -> bytes:
    """Write runs as .npz: `<run>/<inputs|fp32|int8>/<position>`, names beside them.

    Positions stand for names, since a tensor's name may hold anything and a zip member's may not.
    """
    arrays: Arrays = {}
    for part in _PARTS:
        names = list(getattr(runs[0], part)) if runs else []
        arrays[f"names/{part}"] = np.asarray(names, dtype=np.str_)
        for number, run in enumerate(runs):
            for position, name in enumerate(names):
                arrays[f"{number}/{part}/{position}"] = getattr(run, part)[name]
    return write_arrays(arrays)


def parse_golden(data: bytes, *, source: str) -> tuple[GoldenRun, ...]:
    """Read what `serialize_golden` wrote.

    Raises
    ------
    BundleError
        If it is no such file, or holds no run: an engine held against nothing would pass.
    """
    arrays = read_arrays(data, source=source)
    try:
        names = {part: [str(one) for one in arrays[f"names/{part}"]] for part in _PARTS}
        runs = tuple(
            GoldenRun(
                **{
                    part: {
                        name: arrays[f"{number}/{part}/{position}"]
                        for position, name in enumerate(names[part])
                    }
                    for part in _PARTS
                }
            )
            for number in range(len({key.split("/")[0] for key in arrays}) - 1)
        )
    except KeyError as error:
        raise BundleError(
            f"the golden runs lack {error}",
            where=source,
            remedy="the bundle is damaged; copy it again or calibrate again",
        ) from error
    if not runs:
        raise BundleError(
            "expected golden runs, found none", where=source, remedy="calibrate again"
        )
    return runs


def cosines_by_sample(
    reference: npt.NDArray[Any], values: npt.NDArray[Any], *, batch: int
) -> tuple[float, ...]:
    """Compare an output sample by sample where axis 0 is the batch, else as one."""
    if reference.ndim and reference.shape[0] == batch:
        return tuple(cosine(reference[i], values[i]) for i in range(batch))
    return (cosine(reference, values),)
