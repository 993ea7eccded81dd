"""Pictures as samples: decoded ahead of the reader, prepared, looked at, counted by group."""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy.typing as npt

from edgecal.adapters.image_lists import ImageFiles
from edgecal.adapters.images import apply_preprocess, decode_image, look_at
from edgecal.adapters.picture_sources import open_pictures
from edgecal.adapters.pictures import folder_of
from edgecal.adapters.samples import fit_sample
from edgecal.core.manifest import digest_of
from edgecal.core.shares import shares_of_folders, sort_shares
from edgecal.core.similarity import Alike, Known, KnownPictures
from edgecal.errors import DatasetError
from edgecal.ports import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgecal.adapters.pictures import Picture, PictureSource
    from edgecal.core.graph import TensorInfo
    from edgecal.core.manifest import Digest
    from edgecal.core.preprocess import Color, Preprocess
    from edgecal.core.similarity import Look

T = TypeVar("T")

_READ_AHEAD: Final = 8
"""Pictures decoded before they are asked for."""

_OTHER_SHAPE: Final = "check --resize, --crop, --layout and --color, or the same in --preprocess"

Array = npt.NDArray[Any]


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

    def contact_sheet(self) -> bytes:
        """Draw what the network will see of the first samples, as a PNG file.

        Raises
        ------
        DatasetError
            If there is no sample, or one cannot be read.
        """
        from edgecal.adapters.contact_sheet import (  # noqa: PLC0415 - OpenCV takes memory
            TILES,
            Tile,
            draw_contact_sheet,
        )

        tensor = self.inputs[0].name
        with closing(self._prepared()) as prepared:
            tiles = [
                Tile(
                    name=sample.name,
                    group=picture.label or folder_of(sample.name),
                    values=sample.arrays[tensor],
                )
                for picture, sample in itertools.islice(prepared, TILES)
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
        tensor = self.inputs[0]
        image = fit_sample(loaded.image, tensor, picture.where, remedy=_OTHER_SHAPE)
        arrays = {tensor.name: image}
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
