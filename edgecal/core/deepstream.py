"""What a DeepStream user's nvinfer configuration needs to build from a cache by itself.

nvinfer builds from `onnx-file` with the cache at `int8-calib-file` where `network-mode` is 1.
Its tensors are then those of the ONNX network, and the cache fits. A network that a library builds
by the API, as DeepStream-Yolo does of Darknet's `.cfg` and `.weights`, has other tensors: nearly
all of its names are `(Unnamed Layer* N)`, and no cache of the ONNX network fits it.
Source: NVIDIA DeepStream, Gst-nvinfer (keys) and nvdsinfer (an IInt8EntropyCalibrator2 that only
reads); caches of DeepStream-Yolo. No device of ours has run one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edgecal.errors import IncompatibleError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.cache import CalibrationCache

TABLE_FILE: Final = "calib.table"
CONFIG_FILE: Final = "nvinfer-int8.txt"

_READS: Final = "EntropyCalibration2"
_UNNAMED: Final = "(Unnamed Layer*"
_SETTING = re.compile(r"([A-Za-z0-9_-]+)\s*[=:]\s*(.*)", re.DOTALL)
_BUILT_BY_API: Final = ("custom-network-config", "model-file", "proto-file", "uff-file")


def config_lines(folder: str) -> bytes:
    """Write the lines for `[property]`; `folder` is where the active release always lies."""
    return (
        "# for the [property] group of an nvinfer configuration that has onnx-file\n"
        f"int8-calib-file={folder}/{TABLE_FILE}\n"
        "network-mode=1\n"
    ).encode()


def check_table(cache: CalibrationCache, *, where: str) -> None:
    """Refuse a cache that nvinfer would not read, or that is of a network built by the API.

    Raises
    ------
    IncompatibleError
        With the reason.
    """
    algorithm = cache.header.algorithm
    if algorithm != _READS:
        raise IncompatibleError(
            f"the cache says {algorithm}; nvinfer's calibrator reads {_READS} only",
            where=where,
            remedy=f"re-head it: edgecal cache restamp BUNDLE --algorithm {_READS} -o NEW.edgecal",
        )
    unnamed = sum(entry.tensor.startswith(_UNNAMED) for entry in cache.entries)
    if 2 * unnamed > len(cache.entries):
        raise IncompatibleError(
            f"{unnamed} of the cache's {len(cache.entries)} tensors are called '{_UNNAMED} N)': it "
            "is of a network that was built by the API, and fits no other build",
            where=where,
            remedy="calibrate the ONNX network, and give nvinfer that: onnx-file=NET.onnx",
        )


def check_config(text: str, *, source: str) -> None:
    """Judge an nvinfer configuration, of the key-file or the YAML form.

    Raises
    ------
    InputError
        If it names no network.
    IncompatibleError
        If its network does not come from an ONNX file.
    """
    found = _settings(text)
    if found.get("onnx-file"):
        return
    by_api = next((key for key in _BUILT_BY_API if found.get(key)), None)
    if by_api is not None:
        raise IncompatibleError(
            f"its network comes from {by_api}={found[by_api]}: what builds it by the API names its "
            "tensors otherwise than the ONNX network, so this bundle's cache does not fit",
            where=source,
            remedy="export the network as ONNX, calibrate that, and name it as onnx-file",
        )
    raise InputError(
        "expected an nvinfer configuration with onnx-file, found no network in it",
        where=source,
        remedy="pass the file that nvinfer's config-file-path names",
    )


def _settings(text: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for line in text.split("\n"):
        match = _SETTING.fullmatch(line[:4096].strip())
        if match is not None:
            found[match[1]] = match[2]
    return found
