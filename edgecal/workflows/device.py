"""The target's side of a push, as calls: what its scripts are asked, and their answers read."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any, Final

from edgecal.core.manifest import Digest, digest_of
from edgecal.errors import BusyError, CommandError, TransferError
from edgecal.workflows.answers import (
    TrialState,
    read_job_state,
    read_pairs,
    read_pruned,
    read_release_state,
)
from edgecal.workflows.kept import parse_models
from edgecal.workflows.refusals import last_words, refusal
from edgecal.workflows.upload import Uploader, file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgecal.core.pruning import Doomed
    from edgecal.ports import CommandResult, Scripts, Transport
    from edgecal.workflows.answers import JobState, Pruned, ReleaseState, Trial
    from edgecal.workflows.kept import ModelState
    from edgecal.workflows.upload import DeviceFile

_SHORT_S: Final = 60.0
_HASHING_S: Final = 600.0
_CANCEL_S: Final = 240.0
"""A build that is ended lets `post_build` go on for two minutes."""


class Device:
    """One target over one transport; every method is one command there."""

    def __init__(
        self,
        transport: Transport,
        scripts: Scripts,
        root: str,
        target: str,
        *,
        break_lock: bool = False,
    ) -> None:
        self._transport = transport
        self._scripts = scripts
        self._root = root
        self.target = target
        self._break_lock = break_lock
        self._agent_path = ""

    def install_agent(self) -> None:
        """Make sure that the target has the agent's script, whole."""
        agent = file_of(self._scripts.agent.encode())
        self._agent_path = f"{self._root}/blobs/sha256/{agent.hex}"
        with contextlib.suppress(CommandError):  # no agent, or one that was cut
            if self.have([agent])[agent.hex] is None:
                return
        self.store(agent, offset=0, progress=None)

    def look(self, files: Sequence[DeviceFile]) -> dict[str, int | None]:
        """Ask what is there, as `have` does, without leaving an agent behind.

        Raises
        ------
        CommandError
            If there is no answer.
        """
        digests = sorted({file.hex for file in files})
        result = self._transport.run(
            ("sh", "-s", "--", self._root, "have", *digests),
            stdin=self._scripts.agent.encode(),
            timeout_s=_SHORT_S,
        )
        if result.exit_status != 0:
            raise refusal("have", result, self.target)
        return _read_stored(result.stdout.decode("utf-8", "replace"), digests)

    def have(self, files: Sequence[DeviceFile]) -> dict[str, int | None]:
        """Ask what is there: by hex digest, `None` for whole files, else the bytes of a part."""
        return self._stored(["have"], files)

    def want(
        self, name: str, release: str, files: Sequence[DeviceFile], *, owner: str
    ) -> dict[str, int | None]:
        """Ask what is there, and see to it that nobody removes that before it is used."""
        return self._stored(["want", name, release, owner], files)

    def _stored(self, words: Sequence[str], files: Sequence[DeviceFile]) -> dict[str, int | None]:
        digests = sorted({file.hex for file in files})
        return _read_stored(self._ask(*words, *digests), digests)

    def store(
        self, file: DeviceFile, *, offset: int, progress: Callable[[int], None] | None
    ) -> None:
        """Upload one file from `offset` on; the target checks its digest before it counts."""
        Uploader(
            transport=self._transport,
            script=self._scripts.receive,
            root=self._root,
            target=self.target,
        ).upload(file, offset=offset, progress=progress)

    def state(self, name: str, release: str) -> ReleaseState:
        """Ask how one release stands."""
        return read_release_state(self._ask("state", name, release))

    def start(
        self,
        name: str,
        release: str,
        *,
        owner: str,
        links: Mapping[str, str],
        argv: Sequence[str],
        timeout_s: float = 0,
        before: Sequence[str] = (),
        after: Sequence[str] = (),
    ) -> None:
        """Start a detached build, or join the one that already runs.

        Parameters
        ----------
        timeout_s
            How long the target itself lets the build run; 0 for ever.
        before, after
            Commands around the build; `after` runs however the build ends.

        Raises
        ------
        BusyError
            If another build of this model is running.
        """
        pairs = [f"{link}={digest}" for link, digest in links.items()]
        numbers = (math.ceil(timeout_s), len(pairs), len(before), len(after))
        self._ask("start", name, release, owner, *map(str, numbers), *pairs, *before, *after, *argv)

    def wait(self, name: str, release: str, *, offset: int, seconds: int) -> JobState:
        """Wait for the build's end, at most `seconds`, and take its log since `offset`."""
        result = self._run(
            ("wait", name, release, str(offset), str(seconds)), timeout_s=_SHORT_S + seconds
        )
        return read_job_state(result.stdout)

    def reject(self, name: str, release: str) -> None:
        """Keep a finished job's log, but make sure that no later push takes its engine."""
        job = self.job_folder(name, release)
        self._transport.run(
            ("mv", "-fT", "--", f"{job}/status", f"{job}/status.rejected"), timeout_s=_SHORT_S
        )

    def cancel(self, name: str, release: str) -> bool:
        """End a running build; tell whether one ran."""
        answer = self._ask("cancel", name, release, timeout_s=_CANCEL_S)
        return answer.strip() == "cancelled"

    def install(self, name: str, release: str, record: Mapping[str, Any]) -> None:
        """Make a finished job a release, in place of an older one of the same id."""
        data = _json(record)
        digest = digest_of(data).removeprefix("sha256:")
        self._ask("install", name, release, digest, stdin=data)

    def record(self, name: str, release: str) -> dict[str, Any]:
        """Read a release's record."""
        path = f"{self.release_folder(name, release)}/build.json"
        result = self._transport.run(("cat", path), timeout_s=_SHORT_S)
        try:
            document = json.loads(result.stdout)
        except ValueError as error:
            raise CommandError(
                f"the record of release {release} cannot be read: {last_words(result) or error}",
                where=self.target,
                remedy="push with --rebuild",
            ) from error
        return document if isinstance(document, dict) else {}

    def digest(self, folder: str, file: str) -> Digest | None:
        """Digest a file on the target; `None` if it is not there."""
        return self.digests(folder, [file])[file]

    def digests(self, folder: str, files: Sequence[str]) -> dict[str, Digest | None]:
        """Digest files of one folder on the target; `None` for what cannot be read."""
        result = self._transport.run(
            (
                "sh",
                "-c",
                self._scripts.digests,
                "edgecal",
                folder,
                *(f"./{file}" for file in files),
            ),
            timeout_s=_HASHING_S,
        )
        lines = result.stdout.decode("ascii", "replace").split()
        if len(lines) != len(files):
            return dict.fromkeys(files)  # not even the folder is there
        return {
            file: None if line == "-" else Digest(f"sha256:{line}")
            for file, line in zip(files, lines, strict=True)
        }

    def run_engine(self, folder: str, *, output: str, argv: Sequence[str]) -> bytes:
        """Run a command in a job's or release's folder and take the file it wrote.

        Raises
        ------
        CommandError
            If it failed; the message quotes its last words.
        """
        result = self._transport.run(
            (
                "sh",
                "-c",
                self._scripts.run,
                "edgecal",
                folder,
                output,
                *argv,
            ),
            timeout_s=_HASHING_S,
        )
        if result.exit_status != 0:
            said = last_words(result) or "it said nothing"  # a full disk takes no words
            raise CommandError(
                f"the engine could not be run (status {result.exit_status}): {said}",
                where=self.target,
                remedy=f"look at verify.log in {folder} there, and whether its disk is full",
            )
        return result.stdout

    def activate(
        self,
        name: str,
        release: str,
        *,
        expected: str | None,
        engine: str,
        digest: Digest,
        record: Mapping[str, Any],
        force: bool = False,
        trial: Trial | None = None,
    ) -> None:
        """Make a release the active one by one rename, if what is active is still `expected`.

        Parameters
        ----------
        force
            Do so although an application asked that nothing be activated now.
        trial
            What the target does by itself if the release turns out to be bad.
        """
        more: tuple[str, ...] = ()
        if trial is not None:
            more = (trial.back or "", str(trial.soak_s), _line(trial.record), *trial.health)
        self._ask(
            "activate",
            name,
            release,
            expected or "",
            engine,
            digest.removeprefix("sha256:"),
            _line(record),
            "now" if force else "",
            *more,
            timeout_s=_HASHING_S,
        )

    def deactivate(self, name: str, release: str, record: Mapping[str, Any]) -> None:
        """Have nothing of a model active any more, if what is active is still this release."""
        self._ask("deactivate", name, release, _line(record))

    def trial(self, name: str, release: str, *, seconds: int) -> TrialState:
        """Wait for the end of a trial's soak time, so long at most, and tell how it stands."""
        answer = read_pairs(
            self._ask("trial_state", name, release, str(seconds), timeout_s=_SHORT_S + seconds)
        )
        return TrialState(state=answer.get("trial", "none"), reason=answer.get("reason", ""))

    def confirm(self, name: str, release: str, record: Mapping[str, Any]) -> None:
        """Say that the controller is still there, so that a release that passed stays active."""
        self._ask("confirm", name, release, _line(record))

    def prune(self, doomed: Sequence[Doomed], *, remove: bool, force: bool) -> Pruned:
        """Remove releases and jobs, and every stored file that nothing refers to then."""
        words = [
            word for one in doomed for word in (one.kind, one.name, one.current or "", one.release)
        ]
        text = self._ask(
            "prune",
            "remove" if remove else "plan",
            "now" if force else "",
            *words,
            timeout_s=_HASHING_S,
        )
        return read_pruned(text)

    def blob(self, digest: Digest) -> bytes:
        """Read a stored file back.

        Raises
        ------
        TransferError
            If it is not there, or not what it was.
        """
        path = f"{self._root}/blobs/sha256/{digest.removeprefix('sha256:')}"
        result = self._transport.run(("cat", path), timeout_s=_HASHING_S)
        if result.exit_status != 0 or digest_of(result.stdout) != digest:
            raise TransferError(
                f"a file in the target's store cannot be read back: {path}",
                where=self.target,
                remedy="push the bundle: what is missing or damaged is sent again",
            )
        return result.stdout

    def models(self) -> tuple[ModelState, ...]:
        """List everything the target keeps."""
        return parse_models(self._ask("models"))

    def judge_signature(self, *words: str) -> CommandResult:
        """Run the script that judges signatures; what it says is the caller's to read."""
        return self._transport.run(
            ("sh", "-c", self._scripts.verify, "edgecal", self._root, *words),
            timeout_s=_HASHING_S,
        )

    def make_folder(self, path: str) -> None:
        """Make a folder of the target's, and those it lies in."""
        self._transport.run(("mkdir", "-p", "--", path), timeout_s=_SHORT_S)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        self._transport.run(("rm", "-f", "--", path), timeout_s=_SHORT_S)

    def release_folder(self, name: str, release: str) -> str:
        """Say where a release lies."""
        return f"{self._root}/models/{name}/releases/{release}"

    def job_folder(self, name: str, release: str) -> str:
        """Say where a release is built."""
        return f"{self._root}/models/{name}/jobs/{release}"

    def _ask(self, *words: str, stdin: bytes = b"", timeout_s: float = _SHORT_S) -> str:
        return self._run(words, stdin=stdin, timeout_s=timeout_s).stdout.decode("utf-8", "replace")

    def _run(self, words: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        argv = ("sh", self._agent_path, self._root, *words)
        result = self._transport.run(argv, stdin=stdin, timeout_s=timeout_s)
        if result.exit_status == 0:
            return result
        error = refusal(words[0], result, self.target)
        if not (self._break_lock and isinstance(error, BusyError) and all(error.holder)):
            raise error
        model = words[1] if words[0] != "prune" else "-"
        self._transport.run(
            ("sh", self._agent_path, self._root, "break", model, *error.holder),
            timeout_s=_CANCEL_S,
        )
        result = self._transport.run(argv, stdin=stdin, timeout_s=timeout_s)
        if result.exit_status != 0:
            raise refusal(words[0], result, self.target)
        return result


def _read_stored(text: str, digests: Sequence[str]) -> dict[str, int | None]:
    answers: dict[str, int | None] = dict.fromkeys(digests, 0)
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        digest, _, size = rest.partition(" ")
        if word == "full":
            answers[digest] = None
        elif word == "part":
            answers[digest] = int(size)
    return answers


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"))


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()
