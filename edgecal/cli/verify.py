"""`edgecal verify`: whether a bundle is whole and signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecal.cli.options import JsonOption, QuietOption
from edgecal.cli.story import Story


def verify(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What to verify.", show_default=False)
    ],
    *,
    keys: Annotated[
        list[Path],
        typer.Option(
            "--key",
            "-k",
            metavar="PUB",
            help="A public key, in PEM form; of several one has to fit.",
            show_default=False,
        ),
    ],
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify a bundle's signature and the digest of every file, as a device would.

    The exit code is 2 for a bundle that is damaged, 3 for one that is not signed by such a key. No
    signature expires; whether its counter is old only a device can tell.

    [bold]Example[/]

    edgecal verify net.edgecal --key release.pem
    """
    from rich.markup import escape

    from edgecal.cli.wiring import signing

    story = Story(as_json=as_json, quiet=quiet)
    read, key = signing.verify(bundle, keys)
    manifest = read.manifest
    names = list(manifest.targets) if manifest.targets is not None else None
    document = {
        "schema": "edgecal.verify/1",
        "bundle": str(bundle),
        "manifest": read.manifest_digest,
        "key": key,
        "counter": manifest.counter,
        "targets": names,
        "files": len(manifest.files),
    }
    shown = f"for {', '.join(names)}" if names is not None else "for every device"
    story.result(
        document,
        lambda console: console.print(
            escape(
                f"{bundle} is signed with {key} and whole ({len(manifest.files)} files): "
                f"counter {manifest.counter}, {shown}"
            )
        ),
    )
