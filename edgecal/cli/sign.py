"""`edgecal sign`: answer for a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecal.cli.options import JsonOption, QuietOption
from edgecal.cli.passphrase import PassphraseFileOption, ask_passphrase, given_passphrase
from edgecal.cli.story import Story
from edgecal.core.signing import MOST_COUNTER


def sign(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What to sign.", show_default=False)
    ],
    *,
    key: Annotated[
        Path,
        typer.Option(
            "--key", "-k", metavar="KEY", help="The private key, in PEM form.", show_default=False
        ),
    ],
    targets: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|GLOB",
            help="Only devices of that name take it; repeatable. Names stand in their "
            "/etc/edgecal/policy.",
            show_default="as before; at first all",
        ),
    ] = None,
    counter: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_COUNTER,
            metavar="N",
            help="Devices take no bundle of this name with a lower one afterwards.",
            show_default="the bundle's",
        ),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Sign a bundle's manifest, and with it every file that the manifest lists.

    The signature is manifest.json.sig, as 'openssl dgst -sha256 -sign' makes it. Counter and
    targets stand in the manifest, so giving them changes it, and with it the digest that names the
    bundle: devices build it anew.

    [bold]Examples[/]

    edgecal sign net.edgecal --key release.key

    edgecal sign net.edgecal --key release.key --targets 'line3-*' --counter 12
    """
    from rich.markup import escape

    from edgecal.cli.wiring import signing

    story = Story(as_json=as_json, quiet=quiet)
    signed = signing.sign(
        bundle,
        key=key,
        passphrase=lambda: (
            given_passphrase(passphrase_file) or ask_passphrase(f"passphrase of {key}")
        ),
        counter=counter,
        targets=targets or [],
    )
    if signed.key_exposed:
        story.tell(
            f"[yellow]warning[/] others than its owner may read {escape(str(key))}; 'chmod 600' it"
        )
    manifest = signed.bundle.manifest
    names = list(manifest.targets) if manifest.targets is not None else None
    document = {
        "schema": "edgecal.sign/1",
        "bundle": str(bundle),
        "manifest": signed.bundle.manifest_digest,
        "manifest_changed": signed.manifest_changed,
        "key": signed.key,
        "counter": manifest.counter,
        "targets": names,
    }
    shown = f"for {', '.join(names)}" if names is not None else "for every device"
    story.result(
        document,
        lambda console: console.print(
            escape(f"signed {bundle} with {signed.key}: counter {manifest.counter}, {shown}")
        ),
    )
