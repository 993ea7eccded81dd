"""The rule about signatures: what a target would refuse, found out before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.core.findings import Finding, Severity
from edgecal.core.signing import SIGNING_FOLDER, names_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.rules.pairing import Pairing
    from edgecal.core.target import SigningFacts

_KEYS = f"{SIGNING_FOLDER}/keys"


def signature(pair: Pairing) -> Iterator[Finding]:
    """Refuse a bundle that lacks the signature a target requires, or that it could not verify.

    Whether the signature is right, and its counter not too old, only the target itself can tell: it
    does so once the files are there, before it builds. Nothing is said where no signature is
    required and none is there.

    Severity: error; warning where the SSH user could change the keys or the policy, or nothing
    there can verify; note where the target has no keys.
    Source: edgecal's own; /etc/edgecal on the target, and require_signature of its settings.
    Remedy: sign the bundle, or put the public key on the target as root.
    """
    has = pair.facts.signing
    if pair.signed is None or has is None:
        return
    required = has.required or pair.target.require_signature
    if has.problem:
        yield _finding(
            pair,
            Severity.ERROR,
            f"its rules for signatures cannot be followed: {has.problem}",
            f"correct {SIGNING_FOLDER}/policy there, as root; its lines are require_signature=yes "
            "or no, name=NAME, counter.BUNDLE=NUMBER",
        )
    elif required and not pair.signed:
        by = "its policy" if has.required else "edgecal.toml"
        yield _finding(
            pair,
            Severity.ERROR,
            f"{by} requires a signature, and the bundle has none",
            f"edgecal sign {pair.place} --key KEY",
        )
    elif pair.signed:
        yield from _verifiable(pair, has, Severity.ERROR if required else Severity.WARNING)
    if has.writable and (required or pair.signed):
        root = pair.facts.user == "root"
        yield _finding(
            pair,
            Severity.WARNING,
            f"the user {pair.facts.user or 'of the login'} could change what judges signatures: "
            f"{', '.join(has.writable)}",
            "push as another user than root"
            if root
            else f"'sudo chown -R root:root {SIGNING_FOLDER}' and 'sudo chmod -R go-w "
            f"{SIGNING_FOLDER}' there",
        )


def _verifiable(pair: Pairing, has: SigningFacts, lacking: Severity) -> Iterator[Finding]:
    if not has.keys and not has.unusable_keys:
        yield _finding(
            pair,
            lacking if lacking is Severity.ERROR else Severity.NOTE,
            f"the bundle is signed, and there is no key in {_KEYS} to verify that with",
            f"copy the public key to {_KEYS}/NAME.pem there, as root",
        )
    elif not has.openssl:
        yield _finding(
            pair,
            lacking,
            "the bundle is signed, and no openssl is there to verify that with",
            "install openssl there",
        )
    elif not has.keys:
        yield _finding(
            pair,
            Severity.ERROR,
            f"the bundle is signed, and openssl takes none of {', '.join(has.unusable_keys)} for "
            "a public key",
            "put the .pem file there that 'edgecal keygen' wrote, readable by all",
        )
    elif pair.signed_for is not None:
        yield from _right_device(pair, has, pair.signed_for)


def _right_device(pair: Pairing, has: SigningFacts, names: tuple[str, ...]) -> Iterator[Finding]:
    shown = ", ".join(names)
    if has.name is None:
        yield _finding(
            pair,
            Severity.ERROR,
            f"the bundle is signed for {shown}, and the target does not know what it is called",
            f"add a line name=NAME to {SIGNING_FOLDER}/policy there, as root",
        )
    elif not names_device(names, has.name):
        yield _finding(
            pair,
            Severity.ERROR,
            f"the bundle is signed for {shown}, and this device is {has.name}",
            f"edgecal sign {pair.place} --key KEY --targets NAME, if it is meant for this one too",
        )


def _finding(pair: Pairing, severity: Severity, message: str, remedy: str) -> Finding:
    return Finding(
        rule="signature",
        severity=severity,
        subject=pair.target.name,
        message=message,
        remedy=remedy,
    )
