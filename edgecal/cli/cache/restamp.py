"""`edgecal cache restamp`: a cache under another header, in a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgecal.cli.cache.outcome import (
    FileArgument,
    Outcome,
    OutOption,
    Source,
    read_source,
    write_outcome,
)
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.core.manifest import Manifest
    from edgecal.core.versions import TensorRTVersion


def restamp(
    file: FileArgument,
    *,
    out: OutOption,
    tensorrt: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y.Z", help="Which TensorRT the header shall name.", show_default=False
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="EntropyCalibration2, the only one trtexec and DLA read, or MinMaxCalibration.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Although TensorRT wrote it for another major.minor."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Set the header of a cache in a copy; its scales stay as they are.

    Of a bundle, an OUT that ends in .edgecal is a new bundle. Where TensorRT
    wrote the cache for another major.minor, push wants --accept-restamped.

    [bold]Examples[/]

    edgecal cache restamp net.cache --tensorrt 8.5.3 -o net-8.5.3.cache

    edgecal cache restamp minmax.cache --algorithm EntropyCalibration2 -o for-trtexec.cache
    """
    from edgecal.core.restamp import restamp as set_header

    source = read_source(file)
    version = _version(tensorrt) if tensorrt else None
    cache, findings = set_header(
        source.cache,
        tensorrt=version,
        algorithm=algorithm,
        origin=source.past.origin,
        force=force,
        source=str(file),
    )
    write_outcome(
        Outcome(
            command="restamp",
            sources=[source],
            out=out,
            cache=cache,
            options={
                "tensorrt": str(version) if version else None,
                "algorithm": algorithm,
                "force": force,
            },
            origin=source.past.origin,
            findings=findings,
            manifest=_manifest(source, version, out),
        ),
        Story(as_json=as_json, quiet=quiet, verbose=verbose),
    )


def _version(text: str) -> TensorRTVersion:
    """Read a version; X.Y means the patch of the newest JetPack with that minor, else 0."""
    from dataclasses import replace

    from edgecal.cli.wiring import lookup
    from edgecal.core.platforms import newest_patch
    from edgecal.core.versions import parse_tensorrt

    version = parse_tensorrt(text)
    if text.strip().count(".") == 1:
        patch = newest_patch(lookup.platforms(), version.major, version.minor)
        version = replace(version, patch=patch)
    return version


def _manifest(source: Source, version: TensorRTVersion | None, out: Path) -> Manifest | None:
    """Describe the new bundle, if it is to be one."""
    from dataclasses import replace

    from edgecal import __version__
    from edgecal.cli.wiring import caches, machine
    from edgecal.core.manifest import bundle_name
    from edgecal.errors import InputError

    if out.suffix != ".edgecal":
        return None
    if source.manifest is None:
        raise InputError(
            f"{source.path} is no bundle, and a cache alone makes none",
            where=str(out),
            remedy="give the output a name that does not end in .edgecal, or restamp the bundle",
        )
    caches.check_new_bundle(out, source=source.path)
    made_for, says = source.past.origin.tensorrt, version or source.manifest.tensorrt
    return replace(
        source.manifest,
        name=bundle_name(out.name),
        created=machine.now(),
        edgecal=__version__,
        tensorrt=says,
        restamped_from=made_for if made_for != says else None,
    )
