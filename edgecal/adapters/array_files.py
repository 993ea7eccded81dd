"""NumPy files as samples: read in slices, never whole."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from edgecal.adapters.samples import NUMBERS, check_shape, digest_arrays, fit_sample
from edgecal.errors import DatasetError
from edgecal.ports import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from edgecal.core.graph import TensorInfo

_BROKEN: Final = (
    *(OSError, EOFError, ValueError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
"""What zipfile and NumPy raise at damaged files."""

_OTHER_SHAPE: Final = "store samples as the network takes them, along axis 0"

Array = npt.NDArray[Any]


@dataclass
class ArrayFile:
    """An .npy file for a network with one input, or an .npz with an array per input name."""

    path: Path
    inputs: Sequence[TensorInfo]
    limit: int | None = None
    kind: str = "arrays"
    skipped: Sequence[str] = ()
    excluded: Sequence[str] = ()
    groups: Mapping[str, int] = field(default_factory=dict)
    preprocess: None = None
    count: int = 0

    def __post_init__(self) -> None:
        """Look at headers only."""
        with _Members(self.path, self.inputs) as members:
            counts = {name: member.shape[0] for name, member in members.items()}
        if len(set(counts.values())) != 1:
            raise DatasetError(
                f"the arrays hold different numbers of samples: {counts}",
                where=str(self.path),
                remedy="axis 0 counts samples and must be equal for all inputs",
            )
        self.count = next(iter(counts.values()))
        if self.count == 0:
            raise DatasetError(
                "the arrays hold no sample", where=str(self.path), remedy="axis 0 counts samples"
            )

    def __len__(self) -> int:
        """Count the samples."""
        return self.count if self.limit is None else min(self.limit, self.count)

    def __iter__(self) -> Iterator[Sample]:
        """Read sample by sample: never a whole array."""
        with _Members(self.path, self.inputs) as members:
            for index in range(len(self)):
                arrays = {
                    one.name: fit_sample(members[one.name].read(), one, f"{self.path}[{index}]")
                    for one in self.inputs
                }
                yield Sample(name=f"{index}", digest=digest_arrays(arrays), arrays=arrays)


class _Members(dict[str, "_Member"]):
    """The open arrays of a file, by input name."""

    def __init__(self, path: Path, inputs: Sequence[TensorInfo]) -> None:
        super().__init__()
        self._archive: zipfile.ZipFile | None = None
        self._path = path
        try:
            if path.suffix == ".npy":
                if len(inputs) != 1:
                    raise DatasetError(
                        f"the network has {len(inputs)} inputs, and an .npy file feeds one",
                        where=str(path),
                        remedy="give an .npz file with one array per input, by input name",
                    )
                size = path.stat().st_size
                self[inputs[0].name] = _Member(path.open("rb"), size, inputs[0], str(path))
            else:
                self._archive = zipfile.ZipFile(path)
                self._open_members(inputs)
        except _BROKEN as error:
            self.close()
            raise DatasetError(
                f"cannot read the arrays: {_reason(error)}",
                where=str(path),
                remedy="check the path, or write the file again with numpy.save or numpy.savez",
            ) from error
        except DatasetError:
            self.close()
            raise

    def _open_members(self, inputs: Sequence[TensorInfo]) -> None:
        archive = self._archive
        if archive is None:
            return
        held = {name.removesuffix(".npy"): name for name in archive.namelist()}
        missing = [one.name for one in inputs if one.name not in held]
        if missing:
            raise DatasetError(
                f"there is no array for input {missing[0]!r}; the file holds {sorted(held)}",
                where=str(self._path),
                remedy="name the arrays like the inputs: numpy.savez(file, **{input: array})",
            )
        for one in inputs:
            stream, size = archive.open(held[one.name]), archive.getinfo(held[one.name]).file_size
            self[one.name] = _Member(stream, size, one, f"{self._path}[{one.name}]")

    def __enter__(self) -> _Members:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every stream."""
        for member in self.values():
            member.stream.close()
        if self._archive is not None:
            self._archive.close()


class _Member:
    """One array of an .npy stream, read along axis 0."""

    def __init__(self, stream: Any, size: int, tensor: TensorInfo, source: str) -> None:
        self.stream: BinaryIO = stream
        self._source = source
        try:
            self._read_header()
            check_shape(self.shape[1:], tensor, source, remedy=_OTHER_SHAPE)
            left = size - self.stream.tell()
            if left < self._bytes * self.shape[0]:
                raise DatasetError(
                    f"the array is cut off: {self._bytes * self.shape[0]} bytes of numbers were "
                    f"expected, found {left}",
                    where=source,
                    remedy="write or copy the file again",
                )
        except DatasetError:
            self.stream.close()
            raise

    def _read_header(self) -> None:
        try:
            version = np.lib.format.read_magic(self.stream)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(self.stream)
        except _BROKEN as error:
            raise DatasetError(
                f"this is no NumPy array: {_reason(error)}",
                where=self._source,
                remedy="write it again with numpy.save or numpy.savez",
            ) from error
        if dtype.kind not in NUMBERS or fortran or not shape or min(shape) < 0:
            of_numbers = dtype.kind in NUMBERS and shape
            raise DatasetError(
                f"expected a C-ordered array of numbers, samples on axis 0, found dtype {dtype}, "
                f"shape {shape}{', Fortran order' if fortran else ''}",
                where=self._source,
                remedy="store numpy.ascontiguousarray(array)"
                if of_numbers
                else "store an array of float32, or of the input's own type, samples on axis 0",
            )
        self.shape: tuple[int, ...] = shape
        self._dtype = dtype
        self._bytes = math.prod(shape[1:]) * dtype.itemsize

    def read(self) -> Array:
        try:
            data = self.stream.read(self._bytes)
        except _BROKEN as error:
            raise DatasetError(
                f"the array cannot be read: {_reason(error)}",
                where=self._source,
                remedy="write or copy the file again",
            ) from error
        if len(data) != self._bytes:
            raise DatasetError(
                "the array is cut off", where=self._source, remedy="write or copy the file again"
            )
        return np.frombuffer(data, self._dtype).reshape(self.shape[1:])


def _reason(error: BaseException) -> str:
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error) or type(error).__name__
