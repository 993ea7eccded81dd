"""`edgecal trust`: meet a target's host key."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecal.cli.ask import confirm
from edgecal.cli.options import JsonOption, QuietOption, YesOption
from edgecal.cli.story import Story


def trust(
    target: Annotated[str, typer.Argument(metavar="T", help="The target.", show_default=False)],
    *,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            metavar="SHA256:…", help="Accept exactly this key, without asking.", show_default=False
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace another key that is known for this host.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a target's host key and add it to ~/.ssh/known_hosts after a yes.

    Compare the fingerprint with what the device itself says:
    ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub

    [bold]Example[/]

    edgecal trust nvidia@xavier.local
    """
    from edgecal.cli.wiring import lookup, remote
    from edgecal.errors import HostKeyError, InputError

    story = Story(as_json=as_json, quiet=quiet)
    wanted = lookup.target(target)
    shown = remote.host_key(wanted)
    place, known = remote.known_keys(wanted)
    changed = shown not in known
    where = f"{place.file}, host {place.host}, port {place.port}"
    if changed:
        if fingerprint and fingerprint != shown.fingerprint:
            raise HostKeyError(
                f"the host shows {shown}, not {fingerprint}",
                where=target,
                remedy="find out on the device itself which key is right; nothing was changed",
            )
        others = [key for key in known if key.key_type == shown.key_type]
        if others and not replace:
            raise InputError(
                f"another key is known for this host: {others[0]}; it shows {shown}",
                where=where,
                remedy="if the device was installed anew, pass --replace; else somebody may be "
                "in between",
            )
        story.tell(f"{target} shows [bold]{shown}[/]")
        if not fingerprint:
            confirm(f"add it to {where}", yes=yes, story=story)
        remote.remember_key(place, shown, replace=bool(others))
    document = {
        "schema": "edgecal.trust/1",
        "target": target,
        "key_type": shown.key_type,
        "fingerprint": shown.fingerprint,
        "known_hosts": str(place.file),
        "changed": changed,
    }
    words = f"added {shown} to {where}" if changed else f"{shown} is known already, in {where}"
    story.result(document, lambda console: console.print(words))
