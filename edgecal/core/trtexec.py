"""trtexec: what is asked of it, as argv.

Which flags a version knows follows NVIDIA's public sources of trtexec at the release tags 7.1.3 to
11.1 (samples/common/sampleOptions.cpp). An unknown flag ends trtexec, so none is given on a guess.
No device of ours has run any of these lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.errors import BuildError, IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.build import BuildRequest

ENGINE_FILE: Final = "model.engine"

_Version = tuple[int, int]

_FLAGS: Final[Mapping[str, tuple[_Version, _Version | None]]] = {
    "--int8": ((7, 1), (11, 0)),
    "--fp16": ((7, 1), (11, 0)),
    "--calib": ((7, 1), (11, 0)),
    "--explicitBatch": ((7, 1), (8, 0)),
    "--minShapesCalib": ((7, 1), (11, 0)),
    "--optShapesCalib": ((7, 1), (11, 0)),
    "--maxShapesCalib": ((7, 1), (11, 0)),
    "--workspace": ((7, 1), (8, 4)),
    "--memPoolSize": ((8, 4), None),
    "--buildOnly": ((7, 1), (8, 6)),
    "--skipInference": ((8, 6), None),
    "--timingCacheFile": ((8, 0), None),
    "--precisionConstraints": ((8, 2), (11, 0)),
    "--layerPrecisions": ((8, 4), (11, 0)),
    "--stronglyTyped": ((9, 0), None),
}
"""The versions in which edgecal uses a flag, the second one excluded: all of them know it there."""

_BENCH_S: Final = 5
_WARM_UP_MS: Final = 1000
_BENCH_RUNS: Final = 100


def build_argv(request: BuildRequest) -> tuple[str, ...]:
    """Say how to build an engine with the trtexec at hand.

    `--calib` is given only with `--int8` and the other way round, unless the network has Q/DQ
    pairs of its own: without a cache trtexec makes ranges up, and without the file it calibrates
    on noise (samples/common/sampleEngines.cpp, release/8.0 to 10.16).

    Raises
    ------
    BuildError
        If its version is not known, so that no flag is safe.
    IncompatibleError
        If this version cannot do what is asked.
    """
    known = _version(request)
    _refuse_impossible(request, known)
    argv = [request.builder.path, f"--onnx={request.model_file}"]
    argv += _precision(request, known)
    argv += [f"--saveEngine={ENGINE_FILE}", "--verbose"]
    argv += [
        flag for flag in ("--explicitBatch", "--buildOnly", "--skipInference") if _has(flag, known)
    ]
    argv += _memory(request, known)
    if request.timing_cache is not None and _has("--timingCacheFile", known):
        argv.append(f"--timingCacheFile={request.timing_cache}")
    if request.options.dla_core is not None:
        argv.append(f"--useDLACore={request.options.dla_core}")
        if request.options.gpu_fallback:
            argv.append("--allowGPUFallback")
    return (*argv, *_layers(request), *_shapes(request, known))


def run_argv(
    request: BuildRequest,
    *,
    inputs: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
    output: str,
) -> tuple[str, ...]:
    """Say how to run an engine once.

    Parameters
    ----------
    inputs
        File of raw values by input name, relative to the working directory.
    shapes
        What these values are, by input name.
    output
        JSON file to write.
    """
    return (
        *_load(request, inputs, shapes),
        f"--exportOutput={output}",
        "--iterations=1",
        "--warmUp=0",
        "--duration=0",
    )


def bench_argv(
    request: BuildRequest,
    *,
    inputs: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
    output: str,
) -> tuple[str, ...]:
    """Say how to measure an engine for some seconds; `output` gets the times of every run."""
    return (
        *_load(request, inputs, shapes),
        f"--exportTimes={output}",
        f"--iterations={_BENCH_RUNS}",
        f"--warmUp={_WARM_UP_MS}",
        f"--duration={_BENCH_S}",
    )


def _version(request: BuildRequest) -> _Version:
    version = request.builder.tensorrt
    if version is None:
        raise BuildError(
            "the version of trtexec is not known",
            where=request.builder.path,
            remedy="run 'trtexec --help' on the target and look for '[TensorRT v...]'",
        )
    return version.major, version.minor


def _has(flag: str, version: _Version) -> bool:
    since, until = _FLAGS[flag]
    return since <= version and (until is None or version < until)


def _refuse_impossible(request: BuildRequest, version: _Version) -> None:
    options, layers = request.options, request.fp16_layers
    shown = f"trtexec of TensorRT {request.builder.tensorrt}"
    if not _has("--fp16", version) and not options.int8:
        raise _refusal(
            request,
            f"{shown} takes every type from the network: it has no flag for FP16",
            "export the network in FP16 and push that",
        )
    if not _has("--calib", version) and options.int8 and request.cache_file is not None:
        raise _refusal(
            request,
            f"{shown} reads no calibration cache: TensorRT 11 removed them",
            f"calibrate a Q/DQ bundle: edgecal calibrate ... --tensorrt {version[0]}.{version[1]}",
        )
    if not layers or request.cache_file is None:
        return
    if not _has("--layerPrecisions", version):
        raise _refusal(
            request,
            f"{shown} cannot keep {len(layers)} layers in FP16 ({layers[0]!r} ...): "
            "--layerPrecisions came with 8.4",
            "build with the Python API: push --builder tensorrt",
        )
    if not options.fp16:
        raise _refusal(
            request,
            f"the bundle keeps {len(layers)} layers in FP16, and --no-fp16 forbids FP16",
            "leave --no-fp16 out, or take precision.json out of the bundle",
        )
    bad = next((name for name in layers if "," in name or "'" in name), None)
    if bad is not None:
        raise _refusal(
            request,
            f"trtexec cannot be told of layer {bad!r}: it takes names apart at commas and quotes",
            "build with the Python API: push --builder tensorrt",
        )


def _refusal(request: BuildRequest, what: str, remedy: str) -> IncompatibleError:
    return IncompatibleError(what, where=request.builder.path, remedy=remedy)


def _precision(request: BuildRequest, version: _Version) -> list[str]:
    options = request.options
    words = []
    if options.int8 and request.cache_file is None and _has("--stronglyTyped", version):
        return ["--stronglyTyped"]  # the network says every type itself
    if options.int8 and _has("--int8", version):
        words.append("--int8")
        if request.cache_file is not None:
            words.append(f"--calib={request.cache_file}")
    if (options.fp16 or not options.int8) and _has("--fp16", version):
        words.append("--fp16")
    return words


def _memory(request: BuildRequest, version: _Version) -> list[str]:
    mib = request.options.workspace_mib
    if mib is None:
        return []
    if _has("--memPoolSize", version):
        return [f"--memPoolSize=workspace:{mib}"]
    return [f"--workspace={mib}"]


def _layers(request: BuildRequest) -> list[str]:
    """Keep layers in FP16, strictly; on DLA trtexec sets PREFER by itself and takes no OBEY."""
    if not request.fp16_layers or request.cache_file is None:
        return []
    listed = ",".join(f"{_quoted(name)}:fp16" for name in request.fp16_layers)
    constraint = "obey" if request.options.dla_core is None else "prefer"
    return [f"--precisionConstraints={constraint}", f"--layerPrecisions={listed}"]


def _shapes(request: BuildRequest, version: _Version) -> list[str]:
    profile = request.profile()
    if not profile:
        return []
    words = []
    for which in ("min", "opt", "max"):
        shapes = ",".join(
            f"{_quoted(name)}:"
            + _by_x({"min": one.least, "opt": one.usual, "max": one.largest}[which])
            for name, one in profile.items()
        )
        words.append(f"--{which}Shapes={shapes}")
    if request.options.int8 and request.cache_file is not None:
        # with a cache the calibration shapes change no range, but the flags have to agree
        usual = ",".join(f"{_quoted(name)}:{_by_x(one.usual)}" for name, one in profile.items())
        words += [
            f"{flag}={usual}"
            for flag in ("--minShapesCalib", "--optShapesCalib", "--maxShapesCalib")
            if _has(flag, version)
        ]
    return words


def _load(
    request: BuildRequest, inputs: Mapping[str, str], shapes: Mapping[str, Sequence[int]]
) -> list[str]:
    files = ",".join(f"{_quoted(name)}:{file}" for name, file in inputs.items())
    words = [request.builder.path, f"--loadEngine={ENGINE_FILE}", f"--loadInputs={files}"]
    if request.options.dla_core is not None:
        words.append(f"--useDLACore={request.options.dla_core}")
    varying = {name: shape for name, shape in shapes.items() if name in request.dynamic}
    if varying:
        listed = ",".join(f"{_quoted(name)}:{_by_x(shape)}" for name, shape in varying.items())
        words.append(f"--shapes={listed}")
    return words


def _quoted(name: str) -> str:
    """Put a name with a colon in quotes, literally: trtexec splits its arguments at colons."""
    return f"'{name}'" if ":" in name else name


def _by_x(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
