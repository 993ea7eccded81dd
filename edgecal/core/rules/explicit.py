"""Rules about networks that carry their own scales, in bundles of form `qdq`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity
from edgecal.core.rules.pairing import REFERENCE, derive_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.rules.pairing import Pairing

_FIRST_UNKNOWN: Final = 9
"""Up to 8.x NVIDIA says that a DLA takes none; of later ones it is not said."""


def dla_takes_caches(pair: Pairing) -> Iterator[Finding]:
    """Refuse a network with Q/DQ pairs for a DLA that takes calibration caches only.

    Where a later TensorRT may take it, the pairs still are where the GPU wants them: a DLA needs
    them on every tensor, and runs the layers between in FP16 or leaves them to the GPU. No device
    of ours has tried.

    Severity: error up to TensorRT 8; warning later.
    Source: TensorRT 8.x documentation, Working with DLA; NVIDIA Deep-Learning-Accelerator-SW,
    tools/qdq-translator, which turns such networks into caches for DLA; changelog of
    nvidia-modelopt (pairs on all tensors for DLA under strong typing).
    Remedy: a bundle with a cache where TensorRT reads one, else the GPU.
    """
    have, core = pair.tensorrt, pair.options.dla_core
    if pair.explicit is None or core is None or have is None or pair.builder_is(REFERENCE):
        return
    if have.major < _FIRST_UNKNOWN:
        yield Finding(
            rule="dla-takes-caches",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"DLA core {core} was asked for, and the DLA of TensorRT {have} takes scales "
            "from a calibration cache only, while this bundle's are in its network",
            remedy=f"make a bundle with a cache of it: {derive_command(have, pair)}",
        )
    else:
        yield Finding(
            rule="dla-takes-caches",
            severity=Severity.WARNING,
            subject=pair.target.name,
            message=f"DLA core {core} was asked for, and the Q/DQ pairs of this bundle are placed "
            "for the GPU: a DLA needs them on every tensor to stay in INT8",
            remedy="leave --dla out: the GPU builds INT8"
            + (f"; or, with a cache: {derive_command(have, pair)}" if have.major == 10 else ""),
        )


def types_in_network(pair: Pairing) -> Iterator[Finding]:
    """Refuse `--no-fp16` for a network that is itself typed float16.

    Builders of strongly typed networks take every type from the network, so no flag of theirs can
    take that back.

    Severity: error.
    Source: TensorRT documentation, strongly typed networks; trtexec of TensorRT 11 has no --fp16.
    Remedy: derive a bundle whose network is typed float32.
    """
    explicit = pair.explicit
    if explicit is not None and explicit.fp16 and not pair.options.fp16:
        yield Finding(
            rule="types-in-network",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message="--no-fp16 was asked for, and the bundle's network is typed float16 where it "
            "is not quantized",
            remedy="leave --no-fp16 out; or type it float32: "
            f"{derive_command(pair.bundle_tensorrt, pair)} --no-fp16",
        )
