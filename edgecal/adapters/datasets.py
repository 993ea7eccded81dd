"""Calibration data: pictures, NumPy files, batch files, generators; one sample at a time."""

from __future__ import annotations

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
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import numpy as np
import numpy.typing as npt

from edgecal.adapters.archives import TAR_SUFFIXES, ImageArchive
from edgecal.adapters.batches import BatchFiles, find_batch_files
from edgecal.adapters.contact_sheet import TILES, Tile, draw_contact_sheet
from edgecal.adapters.image_lists import (
    CSV_SUFFIX,
    LIST_SUFFIXES,
    ImageFiles,
    check_present,
    images_by_pattern,
    images_in_csv,
    images_in_folder,
    images_in_list,
    is_pattern,
    raise_unlistable,
)
from edgecal.adapters.images import apply_preprocess, decode_image, is_image, look_at
from edgecal.adapters.pictures import folder_of
from edgecal.adapters.samples import NUMBERS, check_shape, digest_arrays, fit_sample
from edgecal.core.manifest import digest_of
from edgecal.core.preprocess import Preprocess
from edgecal.core.shares import shares_of_folders, sort_shares
from edgecal.core.similarity import Alike, Known, KnownPictures
from edgecal.errors import DatasetError
from edgecal.ports import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgecal.adapters.pictures import Picture, PictureSource
    from edgecal.core.graph import TensorInfo
    from edgecal.core.manifest import Digest
    from edgecal.core.preprocess import Color
    from edgecal.core.similarity import Look

T = TypeVar("T")

_BROKEN: Final = (
    *(OSError, EOFError, ValueError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
"""What zipfile and NumPy raise at damaged files."""

_READ_AHEAD: Final = 8
"""Pictures decoded before they are asked for."""

_KINDS: Final = (
    "a folder, list (.txt, .csv), pattern or archive (.tar) of images, an .npy or .npz file, batch "
    "files, or module:function"
)

Array = npt.NDArray[Any]


def open_dataset(
    spec: str,
    inputs: Sequence[TensorInfo],
    *,
    preprocess: Preprocess | None,
    skip_unreadable: bool = False,
    limit: int | None = None,
) -> Images | ArrayFile | BatchFiles | Generated:
    """Find out what `spec` names; the first of these that fits.

    1. Batch files: a folder of them without images, one of them, or the path that their names
       begin with.
    2. A folder: every image below it, sorted by relative path.
    3. A pattern with `*`, `?` or `[`, where no file has just that name: images, sorted by path.
    4. By suffix: .tar, .tar.gz, .tgz, .tar.xz archives of images, in the order of their members;
       .csv and .txt lists of images, in their order; .npy and .npz arrays.
    5. `module:function`, a Python generator.

    Raises
    ------
    DatasetError
        If it is none of these, or cannot serve a network with these inputs.
    """
    path = Path(spec)
    batches = find_batch_files(path)
    if batches:
        return BatchFiles(batches, inputs, limit=limit)
    pictures = open_pictures(spec)
    if pictures is not None:
        if isinstance(pictures, ImageFiles) and pictures.behind and not skip_unreadable:
            check_present(itertools.islice(pictures, limit))
        return Images(
            pictures,
            inputs,
            preprocess or Preprocess(),
            skip_unreadable=skip_unreadable,
            limit=limit,
        )
    if path.suffix in {".npy", ".npz"}:
        return ArrayFile(path, inputs, limit=limit)
    module, colon, function = spec.partition(":")
    if colon and all(part.isidentifier() for part in module.split(".")) and function.isidentifier():
        return Generated(module, function, inputs, limit=limit)
    if path.exists():
        raise _unknown_kind(path)
    raise DatasetError(
        "there is no such file or folder",
        where=spec,
        remedy=f"give {_KINDS}",
    )


def open_pictures(spec: str) -> PictureSource | None:
    """Open what holds pictures: a folder, a list, a CSV file, a pattern or an archive."""
    path = Path(spec)
    try:
        if path.is_dir():
            return images_in_folder(path)
    except OSError as error:  # a folder above it may not be entered
        raise_unlistable(error)
    if is_pattern(spec) and not os.path.lexists(path):
        return images_by_pattern(spec)
    if path.name.lower().endswith(TAR_SUFFIXES):
        return ImageArchive(path)
    suffix = path.suffix.lower()
    if suffix == CSV_SUFFIX:
        return images_in_csv(path)
    if suffix in LIST_SUFFIXES:
        return images_in_list(path)
    return None


def _unknown_kind(path: Path) -> DatasetError:
    suffix = path.suffix.lower()
    if is_image(path.name):
        remedy = "give the folder that holds the picture, or a .txt file that names it"
    elif suffix in {".zip", ".7z", ".rar", ".zst"}:
        remedy = "unpack it and give the folder, or pack it as a .tar"
    else:
        remedy = "name a list of images .txt or .csv, and an archive .tar"
    return DatasetError(f"expected {_KINDS}", where=str(path), remedy=remedy)


@dataclass
class Images:
    """Pictures from any source, in its order: decoded ahead of the reader, prepared, counted."""

    source: PictureSource
    inputs: Sequence[TensorInfo]
    preprocess: Preprocess
    skip_unreadable: bool = False
    limit: int | None = None
    kind: str = "images"
    skipped: list[str] = field(default_factory=list)
    alike: list[Alike] = field(default_factory=list)
    """Samples that were left out because the test set has them, once the data was read."""
    _known: KnownPictures | None = None
    _labels: Counter[str | None] = field(default_factory=Counter)
    _folders: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Stop here if the network does not take pictures."""
        if len(self.inputs) != 1:
            raise DatasetError(
                f"the network has {len(self.inputs)} inputs, and pictures feed one",
                where=self.source.where,
                remedy="give an .npz file with one array per input, by input name",
            )

    @property
    def files(self) -> list[Path]:
        """Name the picture files, where each picture is one."""
        if isinstance(self.source, ImageFiles):
            return [one.path for one in self.source.pictures]
        return []

    @property
    def excluded(self) -> list[str]:
        """Name the samples that were left out for the test set's sake, once the data was read."""
        return [one.sample for one in self.alike]

    @property
    def groups(self) -> dict[str, int]:
        """Count samples by label, else by folder, once the data was read."""
        if any(label is not None for label in self._labels):
            return sort_shares({label or "(none)": n for label, n in self._labels.items()})
        return shares_of_folders(self._folders)

    def exclude_like(self, spec: str) -> None:
        """Leave out what also stands in a test set: pictures in any form that `--data` takes.

        The test set is read here, once; a picture of it that cannot be decoded counts by its bytes.

        Raises
        ------
        DatasetError
            If it cannot be read, or holds no pictures.
        """
        source = open_pictures(spec)
        if source is None:
            raise DatasetError(
                "expected a test set of pictures: a folder, list, CSV file, pattern or archive",
                where=spec,
                remedy="give the folder that holds the test pictures",
            )
        known = KnownPictures()
        with closing(_ahead(source, partial(_look, color=self.preprocess.color))) as ahead:
            for _, future in ahead:
                known.add(future.result())
        self._known = known

    def contact_sheet(self, count: int = TILES) -> bytes:
        """Draw what the network will see of the first samples, as a PNG file.

        Raises
        ------
        DatasetError
            If there is no sample, or one cannot be read.
        """
        tensor = self.inputs[0].name
        with closing(self._prepared()) as prepared:
            tiles = [
                Tile(
                    name=sample.name,
                    group=picture.label or folder_of(sample.name),
                    values=sample.arrays[tensor],
                )
                for picture, sample in itertools.islice(prepared, count)
            ]
        if not tiles:
            raise DatasetError(
                "there is no picture that could be shown",
                where=self.source.where,
                remedy="give at least one picture that can be read",
            )
        return draw_contact_sheet(tiles, self.preprocess, source=self.source.where, total=len(self))

    def __len__(self) -> int:
        """Count the samples at most to come, as some may be skipped; 0 where nobody knows."""
        count = len(self.source)
        return min(count or self.limit or 0, self.limit or count)

    def __iter__(self) -> Iterator[Sample]:
        """Read from the first picture on."""
        with closing(self._prepared()) as prepared:
            for _, sample in prepared:
                yield sample

    def _prepared(self) -> Generator[tuple[Picture, Sample], None, None]:
        self.skipped.clear()
        self.alike.clear()
        self._labels.clear()
        self._folders.clear()
        given = 0
        load = partial(_load, preprocess=self.preprocess, look=self._known is not None)
        with closing(_ahead(self.source, load)) as ahead:
            while self.limit is None or given < self.limit:
                picture, future = next(ahead, (None, None))
                if picture is None or future is None:
                    break
                try:
                    loaded = future.result()
                except DatasetError:
                    if not self.skip_unreadable:
                        raise
                    self.skipped.append(picture.name)
                    continue
                if not self._is_known(picture, loaded):
                    given += 1
                    yield picture, self._sample(picture, loaded)
        if not given and self.alike:
            raise DatasetError(
                f"every one of {len(self.alike)} samples also stands in the test set",
                where=self.source.where,
                remedy="give other calibration data, or check --exclude-like",
            )

    def _is_known(self, picture: Picture, loaded: _Loaded) -> bool:
        if self._known is None:
            return False
        found = self._known.find(picture.name, loaded.digest, loaded.look)
        if found is not None:
            self.alike.append(found)
        return found is not None

    def _sample(self, picture: Picture, loaded: _Loaded) -> Sample:
        arrays = {self.inputs[0].name: fit_sample(loaded.image, self.inputs[0], picture.where)}
        self._labels[picture.label] += 1
        self._folders[folder_of(picture.name)] += 1
        return Sample(name=picture.name, digest=loaded.digest, arrays=arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    digest: Digest
    image: Array
    look: Look | None


def _load(picture: Picture, preprocess: Preprocess, *, look: bool) -> _Loaded:
    data = picture.read()
    pixels = decode_image(data, preprocess.color, source=picture.where)
    return _Loaded(
        digest=digest_of(data),
        image=apply_preprocess(pixels, preprocess, source=picture.where),
        look=look_at(pixels, preprocess.color) if look else None,
    )


def _look(picture: Picture, color: Color) -> Known:
    data = picture.read()
    try:
        look = look_at(decode_image(data, color, source=picture.where), color)
    except DatasetError:
        look = None
    return Known(name=picture.name, digest=digest_of(data), look=look)


def _ahead(
    source: PictureSource, work: Callable[[Picture], T]
) -> Generator[tuple[Picture, Future[T]], None, None]:
    """Work on a few pictures ahead of the reader, in threads; hand them out in their order."""
    pending: deque[tuple[Picture, Future[T]]] = deque()
    failure: DatasetError | None = None
    pictures: Iterator[Picture] | None = iter(source)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            while True:
                while pictures is not None and len(pending) < _READ_AHEAD:
                    try:
                        picture = next(pictures)
                    except StopIteration:
                        pictures = None
                    except DatasetError as error:  # the reader may want no more than came before
                        pictures, failure = None, error
                    else:
                        pending.append((picture, pool.submit(work, picture)))
                if not pending:
                    break
                yield pending.popleft()
            if failure is not None:
                raise failure
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(pictures, Generator):
                pictures.close()


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
    excluded: Sequence[str] = ()
    groups: Mapping[str, int] = field(default_factory=dict)
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
