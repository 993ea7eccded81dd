"""Facts of a device that nobody asked, made from the platform tables."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgecal.core.platforms import newest_patch
from edgecal.core.rules.pairing import BUILDERS, REFERENCE, TENSORRT, TRTEXEC
from edgecal.core.target import BuilderFact, Target, TargetFacts
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgecal.core.platforms import JetPackRelease, Module, Platforms
    from edgecal.core.versions import TensorRTVersion

_TRTEXEC_PATH: Final = "/usr/src/tensorrt/bin/trtexec"
"""Where JetPack's packages put it."""


def assume_target(
    platforms: Platforms,
    *,
    device: str | None,
    tensorrt: str | None,
    jetpack: str | None,
    builder: str | None,
) -> tuple[Target, TargetFacts]:
    """Describe a device that has what the tables say, and of which nothing else is known.

    Parameters
    ----------
    device
        Slug of a module.
    tensorrt
        `X.Y` means the patch of the newest JetPack with that minor, else 0. It counts for more
        than the JetPack's own, as another one may be installed.

    Raises
    ------
    InputError
        If a name is unknown (the message holds near misses, and the list), or nothing tells the
        TensorRT.
    """
    module = _module(platforms, device) if device is not None else None
    release = _release(platforms, jetpack) if jetpack is not None else None
    version = _version(platforms, tensorrt, release, module)
    name = builder or TRTEXEC
    if name not in BUILDERS:
        raise InputError(
            f"unknown builder {name!r}",
            where="--builder",
            remedy=f"use one of {', '.join(BUILDERS)}",
        )
    facts = {
        REFERENCE: BuilderFact(name=REFERENCE, path="python3"),
        TENSORRT: BuilderFact(name=TENSORRT, path="python3", tensorrt=version),
        TRTEXEC: BuilderFact(name=TRTEXEC, path=_TRTEXEC_PATH, tensorrt=version),
    }
    shown = device or "a device"
    on = f", JetPack {release.jetpack}" if release else ""
    return (
        Target(name=f"{shown} (TensorRT {version}{on})", host=shown, builder=builder),
        TargetFacts(
            root="~/.edgecal",
            is_jetson=True,
            tensorrt=version,
            builders=(facts[name],),
            l4t=release.l4t if release else None,
            jetpack=release.jetpack if release else None,
            module=module.slug if module else None,
            soc=module.soc if module else None,
            compute_capability=module.compute_capability if module else None,
            dla_cores=module.dla_cores if module else None,
        ),
    )


def _module(platforms: Platforms, slug: str) -> Module:
    found = platforms.module(slug)
    if found is None:
        slugs = [one.slug for one in platforms.modules]
        raise InputError(
            f"no module of the platform tables is called {slug!r}{_near(slug, slugs)}; there are "
            f"{', '.join(slugs)}",
            where="--device",
            remedy="use one of these names; a module that is not there can be asked with --target",
        )
    return found


def _release(platforms: Platforms, name: str) -> JetPackRelease:
    found = platforms.release_for_jetpack(name)
    if found is None:
        names = list(dict.fromkeys(one.jetpack for one in platforms.releases))
        raise InputError(
            f"no JetPack of the platform tables is called {name!r}{_near(name, names)}; there are "
            f"{', '.join(names)}",
            where="--jetpack",
            remedy="use one of these names, or say --tensorrt X.Y.Z alone",
        )
    return found


def _version(
    platforms: Platforms,
    text: str | None,
    release: JetPackRelease | None,
    module: Module | None,
) -> TensorRTVersion:
    if text is not None:
        version = parse_tensorrt(text)
        if text.strip().count(".") == 1:
            patch = newest_patch(platforms, version.major, version.minor)
            version = replace(version, patch=patch)
        return version
    if release is not None:
        if release.tensorrt is not None:
            return release.tensorrt
        raise InputError(
            f"no table tells the TensorRT of JetPack {release.jetpack}",
            where="--jetpack",
            remedy="add --tensorrt X.Y.Z, as 'dpkg-query -W libnvinfer*' shows it on the device",
        )
    span = (
        f"; JetPacks for {module.name} bring {module.first_tensorrt} to {module.last_tensorrt}"
        if module and module.first_tensorrt and module.last_tensorrt
        else ""
    )
    raise InputError(
        f"which TensorRT does the device have{span}",
        where="--device",
        remedy="add --tensorrt X.Y.Z or --jetpack V, or ask a device with --target",
    )


def _near(wanted: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(wanted.casefold(), list(names), n=3, cutoff=0.5)
    return f"; near it: {', '.join(near)}" if near else ""
