"""Golden runs to judge engines by: inputs, the host's float32 outputs, its simulated INT8 ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgecal.core.npz import ArrayWriter, read_arrays
from edgecal.core.quant import cosine
from edgecal.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Part = Literal["inputs", "fp32", "int8"]

_PARTS: Final[tuple[Part, ...]] = get_args(Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRun:
    """One execution of the network; axis 0 of every input is the batch."""

    inputs: Mapping[str, npt.NDArray[Any]]
    fp32: Mapping[str, npt.NDArray[Any]]
    int8: Mapping[str, npt.NDArray[Any]]


class GoldenWriter:
    """Golden runs as .npz, a part after the other, since INT8 outputs are known last.

    An array is called `<run>/<inputs|fp32|int8>/<position>`, and names lie beside them. Positions
    stand for names, since a tensor's name may hold anything and a zip member's may not.
    """

    def __init__(self) -> None:
        self._writer = ArrayWriter()

    def add(self, part: Part, runs: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
        """Write one part of all runs."""
        names = list(runs[0]) if runs else []
        self._writer.add({f"names/{part}": np.asarray(names, dtype=np.str_)})
        for number, run in enumerate(runs):
            self._writer.add(
                {f"{number}/{part}/{position}": run[name] for position, name in enumerate(names)}
            )

    def finish(self) -> bytes:
        """Give the whole file, once all parts are there."""
        return self._writer.finish()

    def close(self) -> None:
        """Leave it, finished or not."""
        self._writer.close()


def serialize_golden(runs: Sequence[GoldenRun]) -> bytes:
    """Write runs that are known as a whole."""
    writer = GoldenWriter()
    writer.add("inputs", [run.inputs for run in runs])
    writer.add("fp32", [run.fp32 for run in runs])
    writer.add("int8", [run.int8 for run in runs])
    return writer.finish()


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
