"""What costs the first hour with a target: rules over its facts alone, no bundle needed."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from edgecal.core.rules import boards, folders, installations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgecal.core.findings import Finding
    from edgecal.core.rules.visit import Visit

RULES: Final[Mapping[str, Callable[[Visit], Iterator[Finding]]]] = MappingProxyType(
    {
        "root-writable": folders.root_writable,
        "root-noexec": folders.root_noexec,
        "root-volatile": folders.root_volatile,
        "target-tools": installations.target_tools,
        "gpu-access": boards.gpu_access,
        "trtexec-path": installations.trtexec_path,
        "trtexec-broken": installations.trtexec_broken,
        "trtexec-silent": installations.trtexec_silent,
        "tensorrt-several": installations.tensorrt_several,
        "tensorrt-shadowed": installations.tensorrt_shadowed,
        "tensorrt-in-container": installations.tensorrt_in_container,
        "low-memory": boards.low_memory,
        "clock-off": boards.clock_off,
        "power-mode": boards.power_mode,
        "platform-unknown": boards.platform_unknown,
    }
)


def check_access(visit: Visit) -> tuple[Finding, ...]:
    """Apply every rule."""
    return tuple(finding for rule in RULES.values() for finding in rule(visit))
