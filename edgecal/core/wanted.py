"""Which TensorRT a user means: by version, by JetPack, or none at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgecal.core.hosts import takes_caches
from edgecal.core.platforms import jetpack_choices, newest_patch
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgecal.core.platforms import Platforms
    from edgecal.core.versions import TensorRTVersion

_FIRST_ENTROPY2: Final = (5, 1)


def wanted_versions(
    platforms: Platforms,
    *,
    tensorrt: Iterable[str] = (),
    jetpack: Iterable[str] = (),
    asked: Iterable[TensorRTVersion] = (),
    explicit: bool = False,
) -> tuple[TensorRTVersion, ...]:
    """Give one version for each major.minor that is meant, in the order given.

    Parameters
    ----------
    tensorrt
        `X.Y` means the patch of the newest JetPack with that minor, else 0.
    asked
        What targets said of themselves.
    explicit
        Whether a TensorRT may be meant that takes no caches, but networks with Q/DQ pairs.

    Raises
    ------
    InputError
        If nothing is meant (the message holds the table of JetPacks), a JetPack is unknown, or a
        version takes no calibration cache.
    """
    found: list[TensorRTVersion] = []
    for text in tensorrt:
        version = parse_tensorrt(text)
        if text.strip().count(".") == 1:
            patch = newest_patch(platforms, version.major, version.minor)
            version = replace(version, patch=patch)
        found.append(version)
    for text in jetpack:
        release = platforms.release_for_jetpack(text)
        if release is None or release.tensorrt is None:
            raise InputError(
                f"no table tells the TensorRT of JetPack {text!r}",
                where="--jetpack",
                remedy="give --tensorrt X.Y.Z, as 'dpkg -l libnvinfer*' shows it on the target",
            )
        found.append(release.tensorrt)
    found += asked
    if not found:
        rows = "\n".join(
            f"    JetPack {name:<16} TensorRT {version}"
            for name, version in jetpack_choices(platforms)
        )
        raise InputError(
            f"which TensorRT is this for? A calibration cache is good for one major.minor:\n{rows}",
            where="calibrate",
            remedy="add --tensorrt X.Y, --jetpack X.Y.Z, or --for TARGET to ask a device",
        )
    for version in found:
        if (version.major, version.minor) < _FIRST_ENTROPY2:
            raise InputError(
                f"TensorRT {version} does not know EntropyCalibration2; 5.1 is the first that does",
                where="--tensorrt",
                remedy="upgrade the target to JetPack 4.4 or later, whose trtexec edgecal drives",
            )
        if not explicit and not takes_caches(version):
            raise InputError(
                f"TensorRT {version} takes no calibration caches; 10.16 was the last that does",
                where="--tensorrt",
                remedy="put the scales into the network: edgecal calibrate --tensorrt "
                f"{version.major_minor} does, and edgecal cache convert FILE --to qdq --fp16",
            )
    return tuple({version.major_minor: version for version in found}.values())
