"""Calibration data: images, NumPy files, batch files, generators; one sample at a time."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import lzma
import math
import os
import sys
import tokenize
import traceback
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

import numpy as np
import numpy.typing as npt

from edgecal.adapters.batches import BatchFiles, find_batch_files
from edgecal.adapters.images import is_image, load_image
from edgecal.adapters.samples import NUMBERS, check_shape, digest_arrays, fit_sample
from edgecal.core.manifest import Digest
from edgecal.core.preprocess import Preprocess
from edgecal.errors import DatasetError
from edgecal.ports import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgecal.core.graph import TensorInfo

_BROKEN: Final = (
    *(OSError, EOFError, ValueError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
"""What zipfile and NumPy raise at damaged files."""

_READ_AHEAD: Final = 8
"""Pictures decoded before they are asked for."""

Array = npt.NDArray[Any]


def open_dataset(
    spec: str,
    inputs: Sequence[TensorInfo],
    *,
    preprocess: Preprocess | None,
    skip_unreadable: bool = False,
    limit: int | None = None,
) -> ImageFolder | ArrayFile | BatchFiles | Generated:
    """Find out what `spec` names.

    It may be a folder of images, an .npy or .npz file, batch files (a folder of them, one of
    them, or the path that their names begin with), or `module:function`.

    Raises
    ------
    DatasetError
        If it is none of these, or cannot serve a network with these inputs.
    """
    path = Path(spec)
    batches = find_batch_files(path)
    if batches:
        return BatchFiles(batches, inputs, limit=limit)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a folder above it may not be entered
        _raise_unreadable(error)
    if is_folder:
        return ImageFolder(
            path, inputs, preprocess or Preprocess(), skip_unreadable=skip_unreadable, limit=limit
        )
    if path.suffix in {".npy", ".npz"}:
        return ArrayFile(path, inputs, limit=limit)
    module, colon, function = spec.partition(":")
    if colon and all(part.isidentifier() for part in module.split(".")) and function.isidentifier():
        return Generated(module, function, inputs, limit=limit)
    if path.exists():
        raise DatasetError(
            "expected a folder of images or batch files, an .npy or an .npz file",
            where=spec,
            remedy="unpack archives first; a single picture goes into a folder of its own",
        )
    raise DatasetError(
        "there is no such file or folder",
        where=spec,
        remedy="give a folder of images or batch files, an .npy or .npz file, or module:function",
    )


@dataclass
class ImageFolder:
    """Every image below a folder, in the order of their relative paths."""

    folder: Path
    inputs: Sequence[TensorInfo]
    preprocess: Preprocess
    skip_unreadable: bool = False
    limit: int | None = None
    kind: str = "images"
    skipped: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        """List the folder, and stop here if the network does not take pictures."""
        if len(self.inputs) != 1:
            raise DatasetError(
                f"the network has {len(self.inputs)} inputs, and a folder of images feeds one",
                where=str(self.folder),
                remedy="give an .npz file with one array per input, by input name",
            )
        for root, folders, names in os.walk(self.folder, onerror=_raise_unreadable):
            folders[:] = [name for name in folders if not name.startswith(".")]
            self.files += [Path(root) / name for name in names if is_image(name)]
        self.files.sort()
        if not self.files:
            raise DatasetError(
                "there is no image in this folder, nor below it",
                where=str(self.folder),
                remedy="put PNG, JPEG, BMP, WebP or TIFF files there",
            )

    def __len__(self) -> int:
        """Count the samples at most to come; unreadable ones may be skipped."""
        return len(self.files) if self.limit is None else min(self.limit, len(self.files))

    def __iter__(self) -> Iterator[Sample]:
        """Decode ahead of the reader, in order."""
        given = 0
        self.skipped.clear()
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            pending: list[tuple[Path, Future[tuple[Digest, Array]]]] = []
            files = iter(self.files)
            try:
                while self.limit is None or given < self.limit:
                    while len(pending) < _READ_AHEAD and (file := next(files, None)) is not None:
                        pending.append((file, pool.submit(_load, file, self.preprocess)))
                    if not pending:
                        return
                    file, future = pending.pop(0)
                    try:
                        digest, image = future.result()
                    except DatasetError:
                        if not self.skip_unreadable:
                            raise
                        self.skipped.append(self._name(file))
                        continue
                    given += 1
                    arrays = {self.inputs[0].name: fit_sample(image, self.inputs[0], str(file))}
                    yield Sample(name=self._name(file), digest=digest, arrays=arrays)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _name(self, file: Path) -> str:
        # a name need not be text; what goes into a manifest must
        name = os.fsencode(file.relative_to(self.folder).as_posix())
        return name.decode("utf-8", "backslashreplace")


def _raise_unreadable(error: OSError) -> NoReturn:
    raise DatasetError(
        f"cannot list the folder: {error.strerror}",
        where=str(error.filename),
        remedy="check its permissions",
    ) from error


def _load(file: Path, preprocess: Preprocess) -> tuple[Digest, Array]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"cannot read the image: {error.strerror}",
            where=str(file),
            remedy="check its permissions, or pass --skip-unreadable",
        ) from error
    image = load_image(data, preprocess, source=str(file))
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}"), image


@dataclass
class ArrayFile:
    """An .npy file for a network with one input, or an .npz with an array per input name."""

    path: Path
    inputs: Sequence[TensorInfo]
    limit: int | None = None
    kind: str = "arrays"
    skipped: Sequence[str] = ()
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
            check_shape(self.shape[1:], tensor, source)
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
            raise DatasetError(
                f"expected a C-ordered array of numbers, samples on axis 0, found dtype {dtype}, "
                f"shape {shape}{', Fortran order' if fortran else ''}",
                where=self._source,
                remedy="store numpy.ascontiguousarray(array)",
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


@dataclass
class Generated:
    """What a Python function yields: an array, or a mapping of input names to arrays."""

    module: str
    function: str
    inputs: Sequence[TensorInfo]
    limit: int | None = None
    kind: str = "generator"
    skipped: Sequence[str] = ()
    preprocess: None = None

    def __len__(self) -> int:
        """Count the samples, if that is known: 0 here."""
        return self.limit or 0

    def __iter__(self) -> Iterator[Sample]:
        """Call the function once and take samples as they come."""
        source = f"{self.module}:{self.function}"
        for index, item in enumerate(itertools.islice(self._items(source), self.limit)):
            where = f"{source}[{index}]"
            given = item if isinstance(item, Mapping) else {self.inputs[0].name: item}
            missing = [one.name for one in self.inputs if one.name not in given]
            if missing:
                raise DatasetError(
                    f"the sample has no array for input {missing[0]!r}",
                    where=where,
                    remedy="yield a dict with one array per input, by input name",
                )
            try:
                values = {one.name: np.asarray(given[one.name]) for one in self.inputs}
            except (ValueError, TypeError, RuntimeError) as error:
                raise DatasetError(
                    f"the sample is no array: {error}",
                    where=where,
                    remedy="yield NumPy arrays of the input's shape without its batch axis",
                ) from error
            arrays = {one.name: fit_sample(values[one.name], one, where) for one in self.inputs}
            yield Sample(name=f"{index}", digest=digest_arrays(arrays), arrays=arrays)

    def _items(self, source: str) -> Iterator[object]:
        try:
            yield from self._call(source)
        except DatasetError:
            raise
        except Exception as error:  # the user's own function may raise anything
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise DatasetError(
                f"the generator raised {type(error).__name__}: {error} "
                f"({place.filename}:{place.lineno})",
                where=source,
                remedy="correct the function, and try it in Python without edgecal",
            ) from error

    def _call(self, source: str) -> Iterable[object]:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            function = getattr(importlib.import_module(self.module), self.function)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise DatasetError(
                f"cannot import the generator: {error}",
                where=source,
                remedy="the module must lie in the working directory or on PYTHONPATH",
            ) from error
        items = function()
        if not hasattr(items, "__iter__"):
            raise DatasetError(
                f"the function returned {type(items).__name__}, not samples to iterate over",
                where=source,
                remedy="write it with yield, or return a list of arrays",
            )
        return items  # type: ignore[no-any-return]


def _reason(error: BaseException) -> str:
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error) or type(error).__name__
