"""Golden runs: inputs with the host's float32 outputs and simulated INT8 outputs, to judge engines by."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecal.core.quant import cosine
from edgecal.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Arrays = dict[str, npt.NDArray[Any]]


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
    for part in ("inputs", "fp32", "int8"):
        names = list(getattr(runs[0], part)) if runs else []
        arrays[f"names/{part}"] = np.asarray(names, dtype=np.str_)
        for number, run in enumerate(runs):
            for position, name in enumerate(names):
                arrays[f"{number}/{part}/{position}"] = getattr(run, part)[name]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def parse_golden(data: bytes, *, source: str) -> tuple[GoldenRun, ...]:
    """Read what `serialize_golden` wrote.

    Raises
    ------
    BundleError
        If it is no such file.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            names = {part: [str(one) for one in file[f"names/{part}"]] for part in _PARTS}
            count = len({key.split("/")[0] for key in file.files}) - 1
            return tuple(
                GoldenRun(
                    **{
                        part: {
                            name: file[f"{number}/{part}/{position}"]
                            for position, name in enumerate(names[part])
                        }
                        for part in _PARTS
                    }
                )
                for number in range(count)
            )
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"the golden runs cannot be read: {error}",
            where=source,
            remedy="the bundle is damaged; copy it again or calibrate again",
        ) from error


_PARTS = ("inputs", "fp32", "int8")


def cosines_by_sample(
    reference: npt.NDArray[Any], values: npt.NDArray[Any], *, batch: int
) -> tuple[float, ...]:
    """Compare an output sample by sample where axis 0 is the batch, else as one."""
    if reference.ndim and reference.shape[0] == batch:
        return tuple(cosine(reference[i], values[i]) for i in range(batch))
    return (cosine(reference, values),)
