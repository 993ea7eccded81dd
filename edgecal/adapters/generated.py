"""What a Python function of the user's yields, as samples."""

from __future__ import annotations

import importlib
import itertools
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecal.adapters.samples import digest_arrays, fit_sample
from edgecal.errors import DatasetError
from edgecal.ports import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgecal.core.graph import TensorInfo


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
        index = -1
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
        if index < 0:
            raise DatasetError(
                "the function gave no sample",
                where=source,
                remedy="yield at least one; a generator that was used up once gives nothing more",
            )

    def _items(self, source: str) -> Iterator[object]:
        try:
            yield from self._call(source)
        except DatasetError:
            raise
        # the user's own function may raise anything, and sys.exit() would end us without a word
        except (Exception, SystemExit) as error:
            raise DatasetError(
                f"the generator raised {type(error).__name__}: {error}{_place(error)}",
                where=source,
                remedy="correct the function, and try it in Python without edgecal",
            ) from error

    def _call(self, source: str) -> Iterable[object]:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            function = getattr(importlib.import_module(self.module), self.function)
        except (ImportError, AttributeError) as error:
            raise DatasetError(
                f"cannot import the generator: {error}",
                where=source,
                remedy="the module must lie in the working directory or on PYTHONPATH, and is "
                "named like in Python: without .py, with dots for folders",
            ) from error
        except SyntaxError as error:
            raise DatasetError(
                f"cannot import the generator: {error}", where=source, remedy="correct the module"
            ) from error
        if not callable(function):
            raise DatasetError(
                f"expected a function, found {type(function).__name__}",
                where=source,
                remedy="name a function that yields samples",
            )
        items = function()
        if not hasattr(items, "__iter__"):
            raise DatasetError(
                f"the function returned {type(items).__name__}, not samples to iterate over",
                where=source,
                remedy="write it with yield, or return a list of arrays",
            )
        return items  # type: ignore[no-any-return]


def _place(error: BaseException) -> str:
    """Say where the user's code raised it; nothing where it never came that far."""
    places = traceback.extract_tb(error.__traceback__)
    if not places or places[-1].filename == __file__:
        return ""
    return f" ({places[-1].filename}:{places[-1].lineno})"
