"""Which network a command means: the one that is given, or that of the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.core.manifest import MODEL_FILE
from edgecal.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.core.manifest import Manifest


def network_path(file: Path, manifest: Manifest | None, model: Path | None) -> Path:
    """Tell where the network lies.

    Raises
    ------
    InputError
        If none is given and `file` is no bundle.
    """
    if model is not None:
        return model
    if manifest is None:
        raise InputError(
            "the network that the cache is for is not given",
            where="--model",
            remedy="add --model M.onnx; a bundle brings its own",
        )
    return file / MODEL_FILE
