"""Reads the weights of a PyTorch checkpoint without PyTorch, and without running what it holds.

The form is the one before PyTorch 1.6: pickles of a magic number, a version, facts about the
machine, the dictionary and the keys of the storages, then each storage: its length and its values.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_TYPES: Final = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _Storage:
    """Values that tensors are views of; they come after all the tensors."""

    def __init__(self, kind: str) -> None:
        self.dtype = np.dtype(_TYPES[kind])
        self.values: NDArray[Any] = np.empty(0, self.dtype)


class _Tensor:
    """A view that waits for its values."""

    def __init__(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self._storage, self._offset, self._size, self._stride = storage, offset, size, stride

    def array(self) -> NDArray[Any]:
        """Copy the view out of the storage; weights that came from TensorFlow are transposed."""
        values = self._storage.values
        steps = np.zeros(self._size, np.int64)
        for axis, (size, stride) in enumerate(zip(self._size, self._stride, strict=True)):
            shape = [-1 if axis == one else 1 for one in range(len(self._size))]
            steps += (np.arange(size) * stride).reshape(shape)
        return values[self._offset + steps]


class _Unpickler(pickle.Unpickler):
    """Makes dictionaries of tensors, and refuses everything else."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as in the base class
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *given: _Tensor(*given[:4])
        if module == "torch" and name in _TYPES:
            return name
        raise pickle.UnpicklingError(f"expected a dictionary of tensors, found {module}.{name}")

    def persistent_load(self, pid: tuple[Any, ...]) -> _Storage:
        _, kind, key, *_ = pid
        return self.storages.setdefault(key, _Storage(kind))


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Read a state dictionary: arrays by name, in the order of the modules."""
    with path.open("rb") as stream:
        if _Unpickler(stream).load() != _MAGIC:
            raise SystemExit(f"{path}: expected a checkpoint of PyTorch before 1.6")
        for _ in ("version", "machine"):
            _Unpickler(stream).load()
        tensors = _Unpickler(stream)
        found: dict[str, _Tensor] = tensors.load()
        for key in _Unpickler(stream).load():
            storage = tensors.storages[key]
            count = int.from_bytes(stream.read(8), "little")
            storage.values = np.frombuffer(
                stream.read(count * storage.dtype.itemsize), storage.dtype
            )
    return {name: tensor.array() for name, tensor in found.items()}
