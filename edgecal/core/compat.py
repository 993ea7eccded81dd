"""Whether a bundle fits a target with these build options: every rule, by its slug."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from edgecal.core.rules import caches, devices, explicit, places, signatures, versions
from edgecal.core.rules.pairing import (
    BUILDERS,
    REFERENCE,
    TRTEXEC,
    CacheFacts,
    Pairing,
    choose_builder,
    suspicious_scales,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgecal.core.findings import Finding

__all__ = [
    "BUILDERS",
    "CACHE_RULES",
    "REFERENCE",
    "RULES",
    "TRTEXEC",
    "CacheFacts",
    "Pairing",
    "check_cache",
    "check_pairing",
    "choose_builder",
    "suspicious_scales",
]

CACHE_RULES: Final[Mapping[str, Callable[[CacheFacts], Iterator[Finding]]]] = MappingProxyType(
    {
        "header-version": versions.header_version,
        "algorithm-header": caches.algorithm_header,
        "cache-not-portable": caches.cache_not_portable,
        "scale-suspicious": caches.scale_suspicious,
    }
)
"""What the cache alone tells, whichever the target."""

RULES: Final[Mapping[str, Callable[[Pairing], Iterator[Finding]]]] = MappingProxyType(
    {
        "builder-missing": places.builder_missing,
        "builder-unsupported": places.builder_unsupported,
        "tensorrt-version": versions.tensorrt_version,
        "implicit-int8-removed": versions.implicit_int8_removed,
        "implicit-int8-deprecated": versions.implicit_int8_deprecated,
        "trtexec-reads-entropy2": caches.trtexec_reads_entropy2,
        "tensor-coverage": caches.tensor_coverage,
        "int8-unsupported": devices.int8_unsupported,
        "dla-absent": devices.dla_absent,
        "dla-core": devices.dla_core,
        "dla-tensorrt-window": devices.dla_tensorrt_window,
        "dla-needs-entropy2": caches.dla_needs_entropy2,
        "dla-dynamic-shape": devices.dla_dynamic_shape,
        "dla-io-format": devices.dla_io_format,
        "dla-takes-caches": explicit.dla_takes_caches,
        "types-in-network": explicit.types_in_network,
        "host-gpu-window": devices.host_gpu_window,
        "reference-builder": places.reference_builder,
        "disk-space": places.disk_space,
        "memory": places.memory,
        "root-writable": places.root_writable,
        "target-tools": places.target_tools,
        "gpu-access": places.gpu_access,
        "signature": signatures.signature,
    }
)
"""What cache, target and build options tell together."""


ABOUT_CACHES: Final = frozenset(
    {
        "tensorrt-version",
        "implicit-int8-removed",
        "implicit-int8-deprecated",
        "trtexec-reads-entropy2",
        "tensor-coverage",
        "int8-unsupported",
        "dla-needs-entropy2",
        "dla-takes-caches",
        "types-in-network",
        "host-gpu-window",
    }
)
"""Rules about caches and INT8: an FP16 build uses neither."""


def check_pairing(pair: Pairing) -> tuple[Finding, ...]:
    """Apply every rule; those about the cache alone come first, where it was looked at."""
    if not pair.options.int8:
        rules = (rule for slug, rule in RULES.items() if slug not in ABOUT_CACHES)
        return tuple(finding for rule in rules for finding in rule(pair))
    about_cache = check_cache(pair.cache) if pair.cache is not None else ()
    return (*about_cache, *(finding for rule in RULES.values() for finding in rule(pair)))


def check_cache(cache: CacheFacts) -> tuple[Finding, ...]:
    """Apply the rules that need no target; nothing where the network carries the scales."""
    if cache.explicit is not None:
        return ()
    return tuple(finding for rule in CACHE_RULES.values() for finding in rule(cache))
