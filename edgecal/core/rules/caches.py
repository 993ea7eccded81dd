"""Rules about the cache itself: who may read it, what it covers, what its scales look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.cache import ENTROPY2
from edgecal.core.coverage import some
from edgecal.core.findings import Finding, Severity
from edgecal.core.rules.pairing import (
    LEGACY,
    MINMAX,
    REFERENCE,
    TENSORRT,
    TRTEXEC,
    calibrate_command,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.build import BuildOptions
    from edgecal.core.rules.pairing import CacheFacts, Pairing

_AFTER_FUSION: Final = ("EntropyCalibration", LEGACY)
_KNOWN: Final = (ENTROPY2, MINMAX, *_AFTER_FUSION)


def cache_not_portable(cache: CacheFacts) -> Iterator[Finding]:
    """Refuse caches of the first entropy calibrator and of the Legacy one.

    Both calibrate after layers were fused, so tensors are called by what that device fused. On
    another device names hit nothing, or something else.

    Severity: error.
    Source: NvInfer.h of release/10.16, QuantizationFlag::kCALIBRATE_BEFORE_FUSION; that such names
    do not travel is our conclusion.
    Remedy: calibrate again; edgecal's caches calibrate before fusion.
    """
    if cache.algorithm in _AFTER_FUSION:
        yield Finding(
            rule="cache-not-portable",
            severity=Severity.ERROR,
            subject=cache.bundle,
            message=f"the cache says {cache.algorithm}, which calibrates after fusion: its names "
            f"are those of one device; {ENTROPY2} and {MINMAX} calibrate before",
            remedy=f"calibrate again: {calibrate_command(cache.tensorrt, cache.bundle)}",
        )


def algorithm_header(cache: CacheFacts) -> Iterator[Finding]:
    """Refuse a header that names no calibrator of TensorRT.

    The word decides which calibrator reads the cache: EntropyCalibration2 is read by trtexec, by
    every builder and for DLA; MinMaxCalibration by a builder whose calibrator is of that kind.

    Severity: error for a word no TensorRT writes; note for MinMaxCalibration.
    Source: github.com/NVIDIA/TensorRT, samples/sampleINT8/README.md of release/8.2 (a cache of
    another calibrator is not used); words seen in caches of TensorRT 5.1 to 10.14.
    Remedy: restamp it if it was made before fusion, else calibrate again.
    """
    if cache.algorithm is None:
        yield Finding(
            rule="algorithm-header",
            severity=Severity.ERROR,
            subject=cache.bundle,
            message=f"the cache's first line is {cache.header_text[:60]!r}, which names no "
            "calibrator",
            remedy=f"calibrate again: {calibrate_command(cache.tensorrt, cache.bundle)}",
        )
    elif cache.algorithm not in _KNOWN:
        yield Finding(
            rule="algorithm-header",
            severity=Severity.ERROR,
            subject=cache.bundle,
            message=f"the cache says {cache.algorithm!r}; TensorRT knows {', '.join(_KNOWN)}",
            remedy=f"calibrate again: {calibrate_command(cache.tensorrt, cache.bundle)}; where you "
            f"know that it was made before fusion: {_restamp(cache)} --force",
        )
    elif cache.algorithm == MINMAX:
        yield Finding(
            rule="algorithm-header",
            severity=Severity.NOTE,
            subject=cache.bundle,
            message=f"the cache says {MINMAX}; only a builder with such a calibrator reads it",
            remedy=f"for trtexec and DLA: {_restamp(cache)}",
        )


def trtexec_reads_entropy2(pair: Pairing) -> Iterator[Finding]:
    """Refuse a header that trtexec would ignore: it reads EntropyCalibration2 only.

    Its calibrator is a subclass of IInt8EntropyCalibrator2. Given another word it would calibrate
    on buffers it never allocated, and fail.

    Severity: error.
    Source: github.com/NVIDIA/TensorRT, samples/common/sampleEngines.cpp, release/8.0 to 10.16.
    Remedy: restamp the cache (its scales stay valid), or build with TensorRT's API.
    """
    cache, builder = pair.cache, pair.builder
    if cache is None or builder is None or builder.name != TRTEXEC or cache.algorithm != MINMAX:
        return
    yield Finding(
        rule="trtexec-reads-entropy2",
        severity=Severity.ERROR,
        subject=pair.target.name,
        message=f"the cache says {MINMAX}, and {builder.path} reads {ENTROPY2} only",
        remedy=f"set the header in a copy, its scales stay valid: {_restamp(cache)}; or build with "
        f"the tensorrt builder, which reads it as it is: {_other_way(pair)}",
    )


def _other_way(pair: Pairing) -> str:
    """Say how to come to the tensorrt builder."""
    found = next((one for one in pair.facts.builders if one.name == TENSORRT), None)
    if found is None:
        return "it needs TensorRT's Python API there, JetPack's package python3-libnvinfer"
    if pair.target.builder is None:
        return f"but {found.path} has TensorRT {found.tensorrt}, which is not the bundle's"
    return f"push --builder {TENSORRT}"


def dla_needs_entropy2(pair: Pairing) -> Iterator[Finding]:
    """Refuse another header than EntropyCalibration2 for a DLA.

    The numbers may come from any algorithm; what counts is the calibrator that the header names.

    Severity: error.
    Source: NvInfer.h of TensorRT, IInt8EntropyCalibrator2 ("required for DLA").
    Remedy: restamp the cache; its scales stay valid.
    """
    cache = pair.cache
    if cache is None or pair.options.dla_core is None or pair.builder_is(REFERENCE):
        return
    if cache.algorithm == MINMAX:
        yield Finding(
            rule="dla-needs-entropy2",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"the cache says {MINMAX}, and DLA core {pair.options.dla_core} needs "
            f"{ENTROPY2}",
            remedy=f"set the header in a copy, its scales stay valid: {_restamp(cache)}",
        )


def scale_suspicious(cache: CacheFacts) -> Iterator[Finding]:
    """Point out scales that are no positive numbers, or far from all others.

    TensorRT itself writes zero for tensors that were all zeros and infinity for masks, so such
    scales are read; a range that no data gave makes INT8 of that tensor worthless.

    Severity: error for NaN and negative scales, warning for zero, infinite, denormal and far ones,
    note for constants of zeros.
    Source: ITensor::setDynamicRange in NvInfer.h of release/10.16 (ranges are finite); tables of
    TensorRT 7.2 to 10.12 for what is usual.
    Remedy: calibrate with data that moves the tensor, or set its range with edgecal cache edit.
    """
    yield from cache.scales


def tensor_coverage(pair: Pairing) -> Iterator[Finding]:
    """Point out activations of the network that have no entry.

    TensorRT keeps the layers around a tensor without an entry out of INT8, with a line in its log
    and no error. The DLA runs them in FP16, and has nowhere to run them if FP16 and the GPU are
    both forbidden.

    Severity: warning; error if no input, or less than half of the activations have an entry, and
    on DLA with --no-gpu-fallback and --no-fp16.
    Source: NVIDIA Deep-Learning-Accelerator-SW, FAQ (a tensor without a scale goes to FP16); log
    lines quoted in github.com/NVIDIA/TensorRT/issues/3612.
    Remedy: calibrate with data that moves these tensors, or live with FP16 there.
    """
    if pair.cache is not None and not pair.builder_is(REFERENCE):
        yield from judge_coverage(pair.cache, pair.options, pair.target.name)


def judge_coverage(cache: CacheFacts, options: BuildOptions, subject: str) -> Iterator[Finding]:
    """Hold the record of what has an entry against what the build may use instead."""
    record = cache.coverage
    if record is None or not record.missing:
        return
    missing = record.missing
    if cache.inputs and set(cache.inputs) <= set(missing):
        yield _coverage(subject, f"no input of the network has an entry: {some(cache.inputs)}")
    if 2 * record.covered < record.activations:
        yield _coverage(
            subject,
            f"only {record.covered} of the network's {record.activations} activations have an "
            "entry",
        )
    dla = options.dla_core is not None
    strict = dla and not options.gpu_fallback and not options.fp16
    what = "TensorRT keeps the layers around them out of INT8"
    otherwise = "or leave it so: INT8 is only lost there"
    if strict:
        what = "the DLA needs FP16 for their layers, or the GPU, and both are forbidden"
        otherwise = "or leave out --no-fp16 or --no-gpu-fallback"
    elif dla:
        what = "the DLA runs their layers in FP16"
    yield Finding(
        rule="tensor-coverage",
        severity=Severity.ERROR if strict else Severity.WARNING,
        subject=subject,
        message=f"{len(missing)} of {record.activations} activations have no entry: "
        f"{some(missing)}; {what}",
        remedy=f"calibrate with data that moves these tensors; {otherwise}",
    )


def _coverage(subject: str, message: str) -> Finding:
    return Finding(
        rule="tensor-coverage",
        severity=Severity.ERROR,
        subject=subject,
        message=message,
        remedy="calibrate with data like that in use: these tensors were zero or not finite in "
        "every sample",
    )


def _restamp(cache: CacheFacts) -> str:
    return (
        f"edgecal cache restamp {cache.place} --algorithm {ENTROPY2} "
        f"-o {cache.bundle}-entropy2.edgecal"
    )
