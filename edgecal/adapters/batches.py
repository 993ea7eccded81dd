"""Batch files on disk: read as calibration data, and written from any other."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgecal.adapters.images import is_image
from edgecal.adapters.samples import check_shape, digest_arrays, fit_sample
from edgecal.core.batch_files import (
    HEADER,
    SUFFIX,
    Batch,
    BatchName,
    check_batch_words,
    parse_batch,
    parse_batch_name,
    serialize_header,
)
from edgecal.errors import DatasetError
from edgecal.ports import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edgecal.core.graph import TensorInfo

CONTENTS_FILE: Final = "contents.json"
"""Beside the batch files we write: which samples are in which file."""

_SCHEMA: Final = "edgecal.batch-files/1"
_STORED: Final = np.dtype("<f4")
_PICTURE_RANK: Final = 3


def find_batch_files(path: Path) -> list[Path]:
    """Find the batch files that a path means, in the order of their numbers; none if it means none.

    A folder means those in it, if there is no image in it or below it; a file that ends in
    `.batch` means itself; what does not exist means the files whose names begin with it.

    Raises
    ------
    DatasetError
        If there are several sets to choose from.
    """
    try:
        if path.is_file():
            return [path] if path.suffix == SUFFIX else []
        whole = path.is_dir()
        sets = _sets_in(path if whole else path.parent)
    except OSError:
        return []  # whoever looks next will say what is the matter
    sets = {
        key: files
        for key, files in sets.items()
        if (whole or key[0] == path.name) and (key[1] or any(map(_fits, files)))
    }
    if whole and sets and _holds_image(path):
        return []
    if len(sets) > 1:
        words = ", ".join(sorted(f"{prefix}*{suffix}" for prefix, suffix in sets))
        raise DatasetError(
            f"there are several sets of batch files: {words}",
            where=str(path),
            remedy="give the path that the names of one set begin with, such as "
            f"{(path if whole else path.parent) / (min(sets)[0] or 'batch')}, or a folder per set",
        )
    return next(iter(sets.values()), [])


def _sets_in(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """Group the files of a folder by what their names have beside the number."""
    found: dict[tuple[str, str], list[tuple[BatchName, str]]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = parse_batch_name(entry.name)
            if name is not None and not entry.name.startswith(".") and entry.is_file():
                found.setdefault((name.prefix, name.suffix), []).append((name, entry.name))
    return {
        key: [folder / name for _, name in sorted(names, key=lambda one: (one[0].number, one[1]))]
        for key, names in found.items()
    }


def _fits(file: Path) -> bool:
    try:
        _read_head(file)
    except DatasetError:
        return False
    return True


def _holds_image(folder: Path) -> bool:
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(map(is_image, names)):
            return True
    return False


def _read_head(file: Path) -> Batch:
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return parse_batch(stream.read(HEADER.size), size=size, source=str(file))
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"cannot read the batch file: {error.strerror or error}",
        where=str(file),
        remedy="check that it is there, and its permissions",
    )


@dataclass
class BatchFiles:
    """Prepared pictures in batch files, whose sizes may differ: every sample counts by itself."""

    files: Sequence[Path]
    inputs: Sequence[TensorInfo]
    limit: int | None = None
    kind: str = "batches"
    skipped: Sequence[str] = ()
    excluded: Sequence[str] = ()
    groups: Mapping[str, int] = field(default_factory=dict)
    preprocess: None = None
    batches: list[Batch] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Look at headers only."""
        where = str(self.files[0])
        tensor = only_float_input(self.inputs, where)
        for file in self.files:
            batch = _read_head(file)
            check_shape(_as_input(batch, tensor), tensor, str(file))
            self.batches.append(batch)

    def __len__(self) -> int:
        """Count the samples."""
        count = sum(batch.samples for batch in self.batches)
        return count if self.limit is None else min(self.limit, count)

    def __iter__(self) -> Iterator[Sample]:
        """Read sample by sample: never a whole file."""
        tensor = self.inputs[0]
        for file, index, batch in self._samples():
            offset = HEADER.size + index * batch.sample_bytes
            value = _read_floats(file, offset, batch.sample_bytes)
            source = f"{file}#{index}"
            arrays = {
                tensor.name: fit_sample(value.reshape(_as_input(batch, tensor)), tensor, source)
            }
            yield Sample(name=f"{_text(file)}#{index}", digest=digest_arrays(arrays), arrays=arrays)

    def labels(self) -> list[float] | None:
        """Give the labels of all samples; `None` if any file has none. Calibration needs none."""
        if not all(batch.has_labels for batch in self.batches):
            return None
        found: list[float] = []
        for file, batch in zip(self.files, self.batches, strict=True):
            size = batch.samples * _STORED.itemsize
            found += _read_floats(file, batch.labels_offset, size).tolist()
        return found[: len(self)]

    def _samples(self) -> Iterator[tuple[Path, int, Batch]]:
        left = len(self)
        for file, batch in zip(self.files, self.batches, strict=True):
            for index in range(min(left, batch.samples)):
                yield file, index, batch
            left -= min(left, batch.samples)


def _text(file: Path) -> str:
    # a name need not be text; what goes into a manifest must
    return os.fsencode(file.name).decode("utf-8", "backslashreplace")


def _read_floats(file: Path, offset: int, count: int) -> npt.NDArray[Any]:
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(count)
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(data) != count:
        raise DatasetError(
            "the batch file was cut off while it was read",
            where=str(file),
            remedy="write or copy the file again",
        )
    return np.frombuffer(data, _STORED)


def only_float_input(inputs: Sequence[TensorInfo], where: str) -> TensorInfo:
    """Give the input that batch files feed.

    Raises
    ------
    DatasetError
        If there are several, or it takes integers.
    """
    if len(inputs) != 1:
        raise DatasetError(
            f"the network has {len(inputs)} inputs, and batch files feed one",
            where=where,
            remedy="give an .npz file with one array per input, by input name",
        )
    if not inputs[0].dtype.startswith("float"):
        raise DatasetError(
            f"input {inputs[0].name!r} is of {inputs[0].dtype}, and batch files hold float32",
            where=where,
            remedy="give an .npy or .npz file of that type",
        )
    return inputs[0]


def _as_input(batch: Batch, tensor: TensorInfo) -> tuple[int, ...]:
    """Give the shape in which the network takes samples that the header calls C x H x W.

    Inputs of fewer dimensions take the values in their order, if they are as many.
    """
    expected = (tensor.shape or (None,) * (1 + _PICTURE_RANK))[1:]
    if len(expected) >= _PICTURE_RANK:
        return batch.shape
    known = [size for size in expected if size is not None]
    if len(known) == len(expected) and math.prod(known) == math.prod(batch.shape):
        return tuple(known)
    rank = len(expected)
    return batch.shape[:rank] if set(batch.shape[rank:]) == {1} else batch.shape


def _as_picture(value: npt.NDArray[Any], source: str) -> tuple[int, int, int]:
    if not 1 <= value.ndim <= _PICTURE_RANK:
        raise DatasetError(
            f"a sample has {value.ndim} dimensions, and a batch file has three: C, H, W",
            where=source,
            remedy="keep this data in an .npz file",
        )
    shape = (*value.shape, 1, 1)
    return shape[0], shape[1], shape[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBatches:
    """What a folder of batch files got."""

    folder: Path
    files: tuple[str, ...]
    batch_size: int
    shape: tuple[int, int, int]
    samples: int
    dropped: int
    """Samples at the end that did not make a whole batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWords:
    """What batch files are called: prefix, number from 0, suffix."""

    prefix: str = "batch"
    suffix: str = SUFFIX


def check_batch_folder(folder: Path, words: BatchWords, *, data: Path) -> None:
    """Find out before the work whether batch files can be written there.

    Parameters
    ----------
    data
        What is read meanwhile; it need not exist.

    Raises
    ------
    DatasetError
        If the folder holds anything but batch files that edgecal wrote, or the data.
    """
    check_batch_words(words.prefix, words.suffix)
    try:
        final, source = folder.resolve(), data.resolve()
        parent = next(one for one in final.parents if one.exists())
    except OSError as error:
        raise _unwritable(folder, error) from error
    if final == source or final in source.parents:
        raise DatasetError(
            f"the data to read lies there: {data}",
            where=str(folder),
            remedy="choose another folder with -o",
        )
    _check_replaceable(final, folder)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise DatasetError(
            f"cannot write there: {parent} is no folder that may be written",
            where=str(folder),
            remedy="choose another place with -o, or check permissions",
        )


def _check_replaceable(final: Path, shown: Path) -> None:
    try:
        if not os.path.lexists(final):
            return
        held = set(os.listdir(final))  # noqa: PTH208 - names are wanted, of a folder or an error
        strangers = held - _ours(final) if held else set()
    except OSError as error:
        raise DatasetError(
            f"this is no folder that can be read: {error.strerror}",
            where=str(shown),
            remedy="choose another place with -o",
        ) from error
    if strangers:
        raise DatasetError(
            f"the folder holds something else than batch files of ours: {min(strangers)!r}",
            where=str(shown),
            remedy="choose a new folder with -o, or empty this one",
        )


def _ours(folder: Path) -> set[str]:
    """Name the files that we wrote there."""
    try:
        document = json.loads((folder / CONTENTS_FILE).read_bytes())
        if document["schema"] != _SCHEMA:
            return set()
        return {CONTENTS_FILE, *(str(name) for name in document["files"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def write_batches(
    folder: Path,
    samples: Iterable[Sample],
    *,
    words: BatchWords,
    batch_size: int,
    progress: Callable[[int], None],
) -> WrittenBatches:
    """Write samples of one input as batch files, all of exactly `batch_size` samples.

    The folder appears whole or not at all.

    Parameters
    ----------
    progress
        Called with the number of samples written so far; may raise to stop.

    Raises
    ------
    DatasetError
        If the samples cannot be had, differ in shape, or do not make one batch; if the folder
        cannot be written, or is not ours to replace.
    """
    check_batch_words(words.prefix, words.suffix)
    final = folder.resolve()
    aside = final.with_name(f".{final.name}.{os.getpid()}.new")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            written = _fill(aside, samples, words, batch_size, progress)
            _put_in_place(aside, final, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return WrittenBatches(
        folder=folder,
        files=tuple(written.files),
        batch_size=batch_size,
        shape=written.shape,
        samples=len(written.files) * batch_size,
        dropped=written.dropped,
    )


def _unwritable(folder: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"cannot write the batch files: {error.strerror or error}",
        where=str(folder),
        remedy="check free space and permissions; nothing was changed",
    )


@dataclass
class _Filled:
    files: dict[str, list[str]]
    shape: tuple[int, int, int]
    dropped: int


def _fill(
    aside: Path,
    samples: Iterable[Sample],
    words: BatchWords,
    batch_size: int,
    progress: Callable[[int], None],
) -> _Filled:
    items = _counted(samples, progress)
    files: dict[str, list[str]] = {}
    shape: tuple[int, int, int] | None = None
    while True:
        name = f"{words.prefix}{len(files)}{words.suffix}"
        shape, held = _write_batch(aside / name, items, batch_size, shape)
        if len(held) < batch_size:
            (aside / name).unlink()
            break
        files[name] = held
    if shape is None or not files:
        raise DatasetError(
            f"{len(held)} samples do not make one batch of {batch_size}",
            remedy="give more samples, or a smaller --batch-size",
        )
    document = {"schema": _SCHEMA, "shape": [batch_size, *shape], "files": files}
    (aside / CONTENTS_FILE).write_text(json.dumps(document, indent=1) + "\n", "ascii")
    return _Filled(files=files, shape=shape, dropped=len(held))


def _counted(samples: Iterable[Sample], progress: Callable[[int], None]) -> Iterator[Sample]:
    for count, sample in enumerate(samples, start=1):
        yield sample
        progress(count)


def _write_batch(
    file: Path,
    samples: Iterator[Sample],
    batch_size: int,
    shape: tuple[int, int, int] | None,
) -> tuple[tuple[int, int, int] | None, list[str]]:
    """Write one file of the samples to come; gives their shape and names, perhaps too few."""
    names: list[str] = []
    with file.open("xb") as stream:
        for sample in itertools.islice(samples, batch_size):
            (value,) = sample.arrays.values()
            found = _as_picture(value, sample.name)
            if shape not in {None, found}:
                raise DatasetError(
                    f"samples have different shapes, and batch files one: {found} after {shape}",
                    where=sample.name,
                    remedy="set a fixed resize",
                )
            shape = found
            if not names:
                channels, height, width = shape
                stream.write(
                    serialize_header(
                        Batch(samples=batch_size, channels=channels, height=height, width=width)
                    )
                )
            with np.errstate(over="ignore"):  # a double beyond float32 is infinite
                stream.write(np.ascontiguousarray(value, _STORED).tobytes())
            names.append(sample.name)
        stream.flush()
        os.fsync(stream.fileno())
    return shape, names


def _put_in_place(aside: Path, final: Path, shown: Path) -> None:
    _check_replaceable(final, shown)
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    try:
        aside.rename(final)
    except BaseException:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
