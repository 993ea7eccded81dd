"""trtexec: build options to argv, its log to a build result, its output file to arrays.

Flags by version follow the public sources of trtexec at the release tags 7.1.3 to 10.16. Wordings
of the log come from strings of libnvinfer 8.4.1 and public logs of 8.0 and 10.3; none was seen on a
device by us, which is why every log is kept.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgecal.core.build import BuildResult, Proof
from edgecal.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgecal.core.build import BuildRequest

ENGINE_FILE: Final = "model.engine"

_CACHE_READ = re.compile(r"Reading Calibration Cache for calibrator: (?P<algorithm>\w+)")
_SCALES_TAKEN = "Generated calibration scales using calibration cache"
_USED = (
    re.compile(
        r"INT8 Inference Tensor scales and zero-points: (?P<tensor>.+) scale and zero-point"
    ),
    re.compile(r"Setting dynamic range for (?P<tensor>.+) to \["),
)
_MISSING = (
    re.compile(r"Missing scale and zero-point for tensor (?P<tensor>.+), expect fall back"),
    re.compile(r"due to missing int8 scales for tensor (?P<tensor>.+) at (?:input|output) index"),
)
_REFUTED: Final = (
    "Calibration table does not match",
    "Could not parse the following line from the calibration cache",
    "Starting Calibration",
    "is bound to nullptr",
    "Calibration failure occurred",
    "Calibrator is not being used",
)


def build_argv(request: BuildRequest) -> tuple[str, ...]:
    """Say how to build an INT8 engine from the cache with the trtexec at hand.

    Raises
    ------
    BuildError
        If its version is not known, so that no flag is safe.
    """
    version = request.builder.tensorrt
    if version is None:
        raise BuildError(
            "the version of trtexec is not known",
            where=request.builder.path,
            remedy="run 'trtexec --help' on the target and look for '[TensorRT v...]'",
        )
    known = (version.major, version.minor)
    argv = [
        request.builder.path,
        f"--onnx={request.model_file}",
        "--int8",
        f"--calib={request.cache_file}",
        f"--saveEngine={ENGINE_FILE}",
        "--verbose",
    ]
    if version.major == 7:
        argv.append("--explicitBatch")
    if request.options.fp16:
        argv.append("--fp16")
    argv.append("--skipInference" if known >= (8, 6) else "--buildOnly")
    if request.workspace_mib is not None:
        argv.append(
            f"--memPoolSize=workspace:{request.workspace_mib}"
            if known >= (8, 4)
            else f"--workspace={request.workspace_mib}"
        )
    if request.options.dla_core is not None:
        argv.append(f"--useDLACore={request.options.dla_core}")
        if request.options.gpu_fallback:
            argv.append("--allowGPUFallback")
    dynamic = {name: shape for name, shape in request.shapes.items() if name in request.dynamic}
    if dynamic:
        shapes = ",".join(f"{_quoted(name)}:{_by_x(shape)}" for name, shape in dynamic.items())
        # with a cache the calibration shapes change no range, but the flags have to agree
        argv += [f"--{which}Shapes={shapes}" for which in ("min", "opt", "max")]
        argv += [f"--{which}ShapesCalib={shapes}" for which in ("min", "opt", "max")]
    return tuple(argv)


def run_argv(request: BuildRequest, *, inputs: Mapping[str, str], output: str) -> tuple[str, ...]:
    """Say how to run an engine once.

    Parameters
    ----------
    inputs
        File of raw values by input name, relative to the working directory.
    output
        JSON file to write.
    """
    files = ",".join(f"{_quoted(name)}:{file}" for name, file in inputs.items())
    argv = [
        request.builder.path,
        f"--loadEngine={ENGINE_FILE}",
        f"--loadInputs={files}",
        f"--exportOutput={output}",
        "--iterations=1",
        "--warmUp=0",
        "--duration=0",
    ]
    if request.options.dla_core is not None:
        argv.append(f"--useDLACore={request.options.dla_core}")
    dynamic = {name: shape for name, shape in request.shapes.items() if name in request.dynamic}
    if dynamic:
        shapes = ",".join(f"{_quoted(name)}:{_by_x(shape)}" for name, shape in dynamic.items())
        argv.append(f"--shapes={shapes}")
    return tuple(argv)


def read_log(lines: Iterable[str], *, entries: Sequence[str]) -> BuildResult:
    """Find out from a verbose build log whether the engine's scales came from the cache.

    Parameters
    ----------
    lines
        Of the log, in order; read once.
    entries
        Tensors of the cache.
    """
    algorithm: str | None = None
    taken = False
    refuted: str | None = None
    used: dict[str, None] = {}
    missing: dict[str, None] = {}
    for line in lines:
        if match := _CACHE_READ.search(line):
            algorithm = match["algorithm"]
        taken = taken or _SCALES_TAKEN in line
        if refuted is None and any(words in line for words in _REFUTED):
            refuted = line.strip()
        for pattern in _USED:
            if match := pattern.search(line):
                used[match["tensor"]] = None
        for pattern in _MISSING:
            if match := pattern.search(line):
                missing[match["tensor"]] = None
    proof, reason = _weigh(algorithm, refuted, taken=taken, tensors=len(used))
    known = set(entries)
    return BuildResult(
        proof=proof,
        reason=reason,
        used=tuple(name for name in used if name in known) if used else None,
        missing=tuple(missing),
        unused=tuple(name for name in entries if name not in used) if used else None,
    )


def _weigh(
    algorithm: str | None, refuted: str | None, *, taken: bool, tensors: int
) -> tuple[Proof, str]:
    if refuted is not None:
        return Proof.REFUTED, f"the log says: {refuted[:200]}"
    if algorithm is not None and (taken or tensors):
        shown = f", and names {tensors} tensors that took a scale" if tensors else ""
        return Proof.PROVED, f"the log says that the {algorithm} cache was read{shown}"
    if algorithm is not None:
        return Proof.UNPROVEN, "the log says that the cache was read, but not that it was taken"
    return Proof.UNPROVEN, "the log does not mention the calibration cache"


def parse_output(data: bytes, *, source: str) -> dict[str, npt.NDArray[Any]]:
    """Read the file that `--exportOutput` writes: a list of name, dimensions like `1x10`, values.

    Raises
    ------
    BuildError
        If it has another form.
    """
    text = data.decode("utf-8", "replace")
    # C++ prints NaN and infinities as bare words that JSON does not have
    text = re.sub(r"(?<=[\[,\s])(-?)(nan|inf)(?=[\],\s])", _json_number, text)
    try:
        outputs = {}
        for one in json.loads(text):
            dimensions = one["dimensions"]
            shape = [int(size) for size in re.findall(r"\d+", str(dimensions))]
            values = np.asarray(one["values"], np.float32)
            outputs[str(one["name"])] = values.reshape(shape)
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"cannot read what trtexec wrote as output: {error}",
            where=source,
            remedy="keep the file and report it: this version writes another form",
        ) from error
    return outputs


def _json_number(match: re.Match[str]) -> str:
    return f"{match[1]}{'NaN' if match[2] == 'nan' else 'Infinity'}".replace("-NaN", "NaN")


def _quoted(name: str) -> str:
    """Put a name with a colon in quotes, literally: trtexec splits its arguments at colons."""
    return f"'{name}'" if ":" in name else name


def _by_x(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
