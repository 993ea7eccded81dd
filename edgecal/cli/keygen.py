"""`edgecal keygen`: a pair of keys for signing bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecal.cli.options import JsonOption, QuietOption
from edgecal.cli.passphrase import PassphraseFileOption, ask_passphrase, given_passphrase
from edgecal.cli.story import Story


def keygen(
    name: Annotated[
        Path,
        typer.Argument(metavar="NAME", help="Writes NAME.key and NAME.pem.", show_default=False),
    ],
    *,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase to lock the key with.")
    ] = False,
    passphrase_file: PassphraseFileOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a private key that signs bundles, and the public one that devices verify them with.

    NAME.key stays with whoever releases bundles; NAME.pem goes to every device, as root:
    /etc/edgecal/keys/NAME.pem. A line require_signature=yes in /etc/edgecal/policy there then
    refuses everything that is not signed.

    [bold]Example[/]

    edgecal keygen release
    """
    from rich.markup import escape

    from edgecal.cli.wiring import signing
    from edgecal.errors import InputError

    story = Story(as_json=as_json, quiet=quiet)
    private, public = (name.with_name(name.name + end) for end in (".key", ".pem"))
    secret = given_passphrase(passphrase_file)
    if secret is None and passphrase:
        secret = ask_passphrase(f"passphrase of {private}")
        if ask_passphrase("once more") != secret:
            raise InputError(
                "the two passphrases differ, so nothing was done",
                where="keygen",
                remedy="try again",
            )
    fingerprint = signing.make_keys(private, public, passphrase=secret)
    document = {
        "schema": "edgecal.keygen/1",
        "private": str(private),
        "public": str(public),
        "fingerprint": fingerprint,
        "encrypted": secret is not None,
    }
    story.result(
        document, lambda console: console.print(escape(f"{private}, {public}: {fingerprint}"))
    )
    story.tell(
        escape(f"on each device, as root: install -D -m 0644 {public} ")
        + escape(f"/etc/edgecal/keys/{public.name}")
    )
