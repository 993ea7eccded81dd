"""Signed bundles: what is signed, what a device's policy says, and what that protects from.

A signature is ECDSA on P-256 over the SHA-256 of `manifest.json`, DER-encoded in
`manifest.json.sig`: exactly what `openssl dgst -sha256 -sign` writes, and what OpenSSL verifies
from 1.0.2 on. The manifest lists every other file by digest, so the signature covers the whole
bundle. Whoever has the private key answers for it: network, cache, golden samples, `counter` and
`targets`.

On the device `/etc/edgecal` is put there once, by root: public keys in `keys/*.pem`, and `policy`
with lines `require_signature=yes`, `name=NAME` and `counter.BUNDLE=N` (no older one, ever). Before
a build a script there verifies the signature with the device's own openssl, then from the signed
manifest alone: that every file of the bundle which the build uses has the digest written there,
that the cache differs from the signed one in its header line at most (it is re-headed for the
target's TensorRT), that the counter is not below the last one activated, and that `targets` names
this device.

What this covers: a bundle changed on a mirror, a shared disk, a build server or on its way; one
that was signed by somebody else; an old one with a known fault that is offered again; one for other
devices. What it does not cover:

- A hostile account on the device. Whoever may push may also run any program as that user, and may
  write edgecal's folder: engines, the record of counters (`counters`; the floors in `policy` stay),
  the symlink that applications open. Files under /etc/edgecal are out of reach, unless the user is
  root, may use sudo, or was given the right to write there, of which the rule `signature` warns.
- A hostile host. The pushing edgecal sends the script that verifies, makes the golden inputs from
  `golden.npz` (whose digest it checks itself), and chooses the builder, the options and the name on
  the target. Whoever controls the operator's machine or login needs no bundle.
- The engine after the build, a stolen private key (remove its .pem from the devices), and the
  confidentiality of anything.
- A bundle whose signature was removed, wherever none is required.
- Containers: with `exec` the container's own /etc/edgecal is the one that counts.

`rollback` looks at no signature, and `rebuild` at the floors only, not at the record of counters:
what they use was judged when it came.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.manifest import SCHEMA, parse_manifest, write_document
from edgecal.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SIGNING_FOLDER: Final = "/etc/edgecal"
MOST_COUNTER: Final = 10**15 - 1
"""15 digits: every shell can compare them."""

_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,255}")
_DEVICE = re.compile(r"[A-Za-z0-9._-]{1,255}")
_FLOOR = re.compile(r"counter\.[A-Za-z0-9._-]{1,64}=[0-9]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a device's `policy` says, as far as a push must know it beforehand."""

    required: bool = False
    name: str | None = None
    problem: str | None = None
    """A line that cannot be followed; then the device refuses every push."""


def parse_policy(lines: Iterable[str]) -> Policy:
    """Read a device's policy; the device's own script reads it in the same way."""
    required, name = False, None
    for line in lines:
        text = line.strip(" \t\r")
        if not text or text.startswith("#") or text == "require_signature=no":
            continue
        key, _, value = text.partition("=")
        if text == "require_signature=yes":
            required = True
        elif key == "name" and _DEVICE.fullmatch(value):
            name = value
        elif not _FLOOR.fullmatch(text):
            return Policy(required=required, name=name, problem=text)
    return Policy(required=required, name=name)


def parse_patterns(texts: Sequence[str], *, source: str) -> tuple[str, ...]:
    """Accept the names of the devices that a bundle is for; `*` and `?` stand for any letters.

    Raises
    ------
    InputError
        If no device could have such a name.
    """
    for text in texts:
        if _PATTERN.fullmatch(text) is None:
            raise InputError(
                "expected a device's name of letters, digits, '.', '_', '-', with '*' or '?' for "
                f"any, found {text!r}",
                where=source,
                remedy="write it as 'name' stands in the device's /etc/edgecal/policy, "
                "for example 'line3-*'",
            )
    return tuple(texts)


def names_device(patterns: Iterable[str], device: str) -> bool:
    """Tell whether a device is one of those."""
    return any(_glob(pattern).fullmatch(device) for pattern in patterns)


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern))


def manifest_to_sign(
    data: bytes, *, counter: int | None, targets: Sequence[str], source: str
) -> bytes:
    """Lay a manifest out as a device's script reads it, with what only a signer says.

    What is not said stays as it was. Nothing else changes: not even keys of a later edgecal.

    Raises
    ------
    BundleError
        If it is no manifest.
    InputError
        If counter or targets are none.
    """
    parse_manifest(data, source=source)
    document = json.loads(data)
    if counter is not None:
        document["counter"] = counter
    if targets:
        document["targets"] = list(parse_patterns(targets, source="--targets"))
    if not 1 <= document["counter"] <= MOST_COUNTER:
        raise InputError(
            f"expected a counter of 1 to {MOST_COUNTER}, found {document['counter']}",
            where=source if counter is None else "--counter",
            remedy="give a number above that of the bundle that it follows",
        )
    return write_document(document)


def check_layout(data: bytes, *, source: str) -> None:
    """Make sure that a device's script, which reads lines and not JSON, would read the same.

    Raises
    ------
    BundleError
        If somebody else than edgecal laid the manifest out.
    """
    manifest = parse_manifest(data, source=source)
    parse_patterns(manifest.targets or (), source=source)
    if write_document(json.loads(data)) != data or manifest.targets == ():
        raise BundleError(
            f"the manifest is of schema {SCHEMA}, but not laid out as edgecal writes it, and no "
            "device would read it",
            where=source,
            remedy="sign it with 'edgecal sign', which lays it out anew",
        )


def spelled(name: str, manifest: bytes) -> str:
    """Spell a file's name as that manifest does, without the quotes."""
    return json.dumps(name, ensure_ascii=manifest.isascii())[1:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a device says of a bundle's signature; a refusal is an error instead."""

    state: str
    """`verified`, `unsigned`, or `unchecked`: signed, but the device has no means to tell."""
    key: str | None = None
    """Fingerprint of the key that verified it."""
    bundle: str | None = None
    counter: int | None = None

    def to_json(self) -> dict[str, object]:
        """Give it for the record."""
        return {"state": self.state, "key": self.key, "counter": self.counter}
