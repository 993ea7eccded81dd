"""The step between shipping and building: the target itself judges the bundle's signature."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity
from edgecal.core.manifest import CACHE_FILE, GOLDEN_FILE, MANIFEST_FILE, SIGNATURE_FILE
from edgecal.core.signing import SIGNING_FOLDER, Verdict, spelled
from edgecal.errors import CommandError, IncompatibleError, TargetError, TransferError
from edgecal.workflows.events import SignatureChecked, Step, StepDue
from edgecal.workflows.refusals import last_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgecal.core.target import Target, TargetFacts
    from edgecal.ports import BundleFiles, CommandResult
    from edgecal.workflows.device import Device
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.upload import DeviceFile

_DAMAGED, _REFUSED = 21, 30
_NOT_COMPARED: Final = frozenset({CACHE_FILE, GOLDEN_FILE})
"""The cache is compared in a way of its own; golden samples are sent unpacked."""


class SignatureStep:
    """What is done about one bundle's signature on one target; nothing where none is asked for."""

    def __init__(
        self, device: Device, bundle: BundleFiles, facts: TargetFacts, target: Target
    ) -> None:
        self._device = device
        self._bundle = bundle
        self._target = target
        self._signature = bundle.shipped().get(SIGNATURE_FILE)
        self._due = target.require_signature or bool(facts.signing and facts.signing.present)
        self.verdict: Verdict | None = None
        """What the target said, once it was asked."""

    def check(self, files: Mapping[str, DeviceFile], *, building: bool) -> Iterator[PushEvent]:
        """Have the signature judged, and before a build every file that the bundle brings to it.

        Parameters
        ----------
        files
            The job's files by name.
        building
            Whether these files are going to be read; else they were, and only the manifest is
            judged: it may be too old by now, or for another device.

        Raises
        ------
        IncompatibleError
            If the target refuses.
        TargetError
            If it could not tell.
        """
        if not self._due:
            return
        yield StepDue(Step.SIGNATURE)
        if not building:
            self._ship([files[name] for name in (MANIFEST_FILE, SIGNATURE_FILE) if name in files])
        result = self._device.judge_signature(*self._words(files, building=building))
        self.verdict = self._read(result)
        yield SignatureChecked(self.verdict)

    def keep(self) -> None:
        """Have the target remember the counter of what is about to become active."""
        verdict = self.verdict
        if verdict is None or verdict.bundle is None:
            return
        result = self._device.judge_signature("keep", verdict.bundle, str(verdict.counter))
        if result.exit_status != 0:
            said = last_words(result) or f"status {result.exit_status}"
            raise CommandError(
                f"the target could not note the bundle's counter: {said}",
                where=self._target.name,
                remedy="check the target's disk and permissions, then push again; 'edgecal status' "
                "says what is active",
            )

    def _ship(self, wanted: list[DeviceFile]) -> None:
        there = self._device.have(wanted)
        for file in wanted:
            if there[file.hex] is not None:
                self._device.store(file, offset=0, progress=None)

    def _words(self, files: Mapping[str, DeviceFile], *, building: bool) -> list[str]:
        words = [
            "check",
            "yes" if self._target.require_signature else "no",
            "here" if self._bundle.on_target else "host",
            files[MANIFEST_FILE].hex,
        ]
        if self._signature is None:
            return [*words, "-", "-", "-"]
        words.append(files[SIGNATURE_FILE].hex)
        if not building:
            return [*words, "-", "-"]
        signed, built = self._bundle.manifest.files.get(CACHE_FILE), files.get(CACHE_FILE)
        if signed is None or built is None:
            words += ["-", "-"]
        else:  # the build may read one with another header
            words += [signed.digest.removeprefix("sha256:"), built.hex]
        with self._bundle.open(MANIFEST_FILE) as stream:
            manifest = stream.read()
        for name in self._bundle.manifest.files:
            if name in files and name not in _NOT_COMPARED:
                words += [spelled(name, manifest), files[name].hex]
        return words

    def _read(self, result: CommandResult) -> Verdict:
        said = result.stdout.decode("utf-8", "replace").strip().split("\n")[-1]
        state, _, rest = said.partition(" ")
        if result.exit_status == _REFUSED and state == "refused":
            raise self._refusal(*rest.partition(" ")[::2])
        if result.exit_status == 0 and state in {"unsigned", "unchecked"}:
            return Verdict(state=state)
        words = rest.split(" ")
        if result.exit_status == 0 and state == "verified" and len(words) == 3:
            key, bundle, counter = words
            return Verdict(state=state, key=key, bundle=bundle, counter=int(counter))
        raise self._failure(result)

    def _refusal(self, word: str, detail: str) -> IncompatibleError:
        message, remedy = _explain(word, detail, shlex.quote(self._bundle.manifest.name))
        finding = Finding(
            rule="signature",
            severity=Severity.ERROR,
            subject=self._target.name,
            message=message,
            remedy=remedy,
        )
        return IncompatibleError(
            f"signature: {message}", where=self._target.name, remedy=remedy, findings=(finding,)
        )

    def _failure(self, result: CommandResult) -> TargetError:
        said = (result.stderr or result.stdout).decode("utf-8", "replace").strip()[-300:]
        if result.exit_status == _DAMAGED:
            return TransferError(
                f"a stored file on the target is missing or damaged: {said}",
                where=self._target.name,
                remedy="push again: it is sent anew; check the target's disk",
            )
        return CommandError(
            f"the signature could not be judged (status {result.exit_status}: {said})",
            where=self._target.name,
            remedy="look at the target; nothing was built or activated",
        )


def _explain(word: str, detail: str, bundle: str) -> tuple[str, str]:
    """Say why a target refused, and what to do; the words are those of its script."""
    first, _, second = detail.partition(" ")
    again = "get the bundle from where it was released; do not sign what you cannot explain"
    known = {
        "unsigned": (
            "the target requires a signature, and the bundle has none",
            f"edgecal sign {bundle}.edgecal --key KEY",
        ),
        "policy": (
            f"the target's {SIGNING_FOLDER} cannot be followed: {detail}",
            f"correct {SIGNING_FOLDER}/policy there, as root",
        ),
        "no-openssl": (
            "the target requires a signature, and has no openssl to verify it with",
            "install openssl there",
        ),
        "no-key": (
            f"the target requires a signature, and has no key in {SIGNING_FOLDER}/keys",
            f"copy the public key to {SIGNING_FOLDER}/keys/NAME.pem there, as root",
        ),
        "wrong-signature": (
            f"none of the target's {detail} keys made this signature over this manifest",
            f"{again}; for a new key put its .pem in {SIGNING_FOLDER}/keys there, as root",
        ),
        "layout": (
            f"the signed manifest is not laid out as edgecal writes it (at {detail!r})",
            "sign it with 'edgecal sign', which lays it out anew",
        ),
        "unnamed": (
            "the bundle is signed for certain devices, and this one does not know its name",
            f"add a line name=NAME to {SIGNING_FOLDER}/policy there, as root",
        ),
        "other-device": (
            f"the bundle is signed for other devices than {detail}",
            "sign it with --targets for this device too, if it is meant for it",
        ),
        "old": (
            f"the bundle's counter is {first}, and this device has had {second} already",
            f"push the newest one, or 'edgecal rollback'; or sign it with --counter {second}",
        ),
        "cache": (
            "the cache to build from differs from the signed one in more than its header",
            again,
        ),
        "file": (f"the signed manifest does not list {detail!r} with this digest", again),
    }
    return known.get(word, (f"the target refuses: {word} {detail}", "look at the target"))
