"""The files that lie in a build's folder on a target, under the names that its commands use."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.cache import parse_cache
from edgecal.core.deepstream import CONFIG_FILE, TABLE_FILE, check_table, config_lines
from edgecal.core.golden import parse_golden, serialize_golden
from edgecal.core.manifest import CACHE_FILE, GOLDEN_FILE, MANIFEST_FILE
from edgecal.errors import IncompatibleError, InputError
from edgecal.ports import RunFiles
from edgecal.workflows.upload import DeviceFile, file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.core.golden import GoldenRun
    from edgecal.ports import BundleFiles

GOLDEN_SPEC: Final = "golden/runs.json"
GOLDEN_OUTPUTS: Final = "golden/outputs.npz"
BUNDLED_CACHE: Final = "bundled.cache"
"""As the bundle has it, where what is built from got another header."""


def read_golden(bundle: BundleFiles) -> tuple[GoldenRun, ...]:
    """Read the golden runs of a bundle."""
    with bundle.open(GOLDEN_FILE) as stream:
        return parse_golden(stream.read(), source=f"{bundle.manifest.name}/{GOLDEN_FILE}")


def run_files(golden: Sequence[GoldenRun], *, int64: bool) -> tuple[RunFiles, ...]:
    """Say where the inputs of golden runs lie.

    Parameters
    ----------
    int64
        Whether engines take INT64; TensorRT before 10 makes INT32 of such inputs
        (github.com/onnx/onnx-tensorrt, onnx2trt_utils.cpp of 8.5 and of 10.0).
    """
    return tuple(
        RunFiles(
            inputs={
                name: _raw_file(number, position, as_int32=not int64 and value.dtype == np.int64)
                for position, (name, value) in enumerate(run.inputs.items())
            },
            shapes={name: value.shape for name, value in run.inputs.items()},
            spec=GOLDEN_SPEC,
        )
        for number, run in enumerate(golden)
    )


def list_job_files(
    bundle: BundleFiles,
    golden: Sequence[GoldenRun],
    runs: Sequence[RunFiles],
    *,
    cache: bytes | None,
    support: Mapping[str, bytes],
) -> dict[str, DeviceFile]:
    """List the bundle's files, its cache as it is built from, golden runs and a builder's own.

    Parameters
    ----------
    runs
        Where the inputs of the golden runs are to lie.
    cache
        `None` where none is used.
    support
        What the builder needs beside them, and what else is to lie there.

    Raises
    ------
    IncompatibleError
        If an input's golden samples do not fit the type that an engine takes.
    """
    files: dict[str, DeviceFile] = {}
    for name, record in bundle.shipped().items():
        if name != GOLDEN_FILE:
            kept = BUNDLED_CACHE if name == CACHE_FILE else name
            files[kept] = DeviceFile(
                digest=record.digest, size=record.size, open=_opener(bundle, name)
            )
    with bundle.open(MANIFEST_FILE) as stream:
        contents = {
            MANIFEST_FILE: stream.read(),
            **support,
            **_golden_contents(golden, runs, bundle.manifest.name),
        }
    if cache is not None:
        contents[CACHE_FILE] = cache
    files.update({name: file_of(data) for name, data in contents.items()})
    return files


def deepstream_files(cache: bytes | None, *, current: str, where: str) -> dict[str, bytes]:
    """Give what an nvinfer configuration names: the very cache, and the lines that say so.

    Parameters
    ----------
    current
        Folder on the target by which an application opens the engine.

    Raises
    ------
    InputError
        If no cache is used.
    """
    if cache is None:
        raise InputError(
            "there is no cache to leave for nvinfer: an FP16 engine has none, and a bundle of form "
            "'qdq' has its scales in the network",
            where=where,
            remedy="leave out --layout deepstream, and name the engine as model-engine-file; for "
            "FP16 write network-mode=2",
        )
    check_table(parse_cache(cache), where=where)
    return {TABLE_FILE: cache, CONFIG_FILE: config_lines(current)}


def _golden_contents(
    golden: Sequence[GoldenRun], runs: Sequence[RunFiles], where: str
) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    spec: list[list[dict[str, Any]]] = []
    for number, (run, files) in enumerate(zip(golden, runs, strict=True)):
        described = []
        for position, (name, value) in enumerate(run.inputs.items()):
            little = value.astype(value.dtype.newbyteorder("<"), copy=False)
            file = _raw_file(number, position, as_int32=False)
            contents[file] = little.tobytes()
            if files.inputs[name] != file:
                contents[files.inputs[name]] = _as_int32(little, name, where)
            described.append(
                {"name": name, "file": file, "dtype": little.dtype.str, "shape": value.shape}
            )
        spec.append(described)
    contents[GOLDEN_SPEC] = json.dumps(spec).encode()
    # for `rebuild`, which has nothing but what lies there
    contents[GOLDEN_OUTPUTS] = serialize_golden([replace(one, inputs={}) for one in golden])
    return contents


def _as_int32(value: npt.NDArray[Any], name: str, where: str) -> bytes:
    narrow = value.astype("<i4")
    if not np.array_equal(narrow, value):
        raise IncompatibleError(
            f"input {name!r} has golden samples beyond INT32, and TensorRT before 10 has no INT64",
            where=where,
            remedy="calibrate with smaller numbers, or for a target with TensorRT 10",
        )
    return narrow.tobytes()


def _opener(bundle: BundleFiles, name: str) -> Callable[[], Any]:
    return lambda: bundle.open(name)


def _raw_file(run: int, position: int, *, as_int32: bool) -> str:
    return f"golden/{run}.{position}{'.int32' if as_int32 else ''}.bin"
