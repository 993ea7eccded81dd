"""The target's side of a push, as calls: what its scripts are asked, and their answers read."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from edgecal.core.activations import Activation, parse_activation
from edgecal.core.manifest import Digest, digest_of
from edgecal.errors import CommandError, InputError, TargetError, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgecal.ports import CommandResult, Scripts, Transport

_SHORT_S: Final = 60.0
_HASHING_S: Final = 600.0

BUSY, MISSING_BLOB, CURRENT_CHANGED, ENGINE_CHANGED = 20, 21, 22, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFile:
    """Something the target needs, by digest."""

    digest: Digest
    size: int
    open: Callable[[], BinaryIO]

    @property
    def hex(self) -> str:
        """The digest's 64 digits."""
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseState:
    """What a target says of one release of one model."""

    current: str | None
    ready: bool
    job: str
    status: int | None
    lock_owner: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """How a build stands, and what its log said since the last look."""

    job: str
    status: int | None
    log: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """Everything a target keeps of one model."""

    name: str
    current: str | None
    releases: tuple[str, ...]
    activations: tuple[Activation, ...]


class Device:
    """One target over one transport; every method is one command there."""

    def __init__(self, transport: Transport, scripts: Scripts, root: str, target: str) -> None:
        self._transport = transport
        self._scripts = scripts
        self._root = root
        self._target = target
        self._agent_path = ""

    def install_agent(self, agent: DeviceFile) -> None:
        """Make sure that the target has the agent's script, whole."""
        self._agent_path = f"{self._root}/blobs/sha256/{agent.hex}"
        with contextlib.suppress(CommandError):  # no agent, or one that was cut
            if self.have([agent])[agent.hex] is None:
                return
        self.store(agent, offset=0, progress=None)

    def have(self, files: Sequence[DeviceFile]) -> dict[str, int | None]:
        """Ask what is there: by hex digest, `None` for whole files, else the bytes of a part."""
        digests = sorted({file.hex for file in files})
        answers: dict[str, int | None] = dict.fromkeys(digests, 0)
        for line in self._ask("have", *digests).splitlines():
            word, _, rest = line.partition(" ")
            digest, _, size = rest.partition(" ")
            if word == "full":
                answers[digest] = None
            elif word == "part":
                answers[digest] = int(size)
        return answers

    def store(
        self, file: DeviceFile, *, offset: int, progress: Callable[[int], None] | None
    ) -> None:
        """Upload one file from `offset` on; the target checks its digest before it counts.

        Raises
        ------
        TransferError
            If it could not be written or did not arrive as it was.
        """
        argv = (
            "sh",
            "-c",
            self._scripts.receive,
            "edgecal",
            self._root,
            file.hex,
            str(offset),
            str(file.size),
        )
        with file.open() as stream:
            stream.seek(offset)
            result = self._transport.send(
                argv, stream, offset=offset, timeout_s=_SHORT_S, progress=progress
            )
        if result.exit_status == 0:
            return
        words = _last_words(result)
        if result.exit_status == _NOT_WRITABLE:
            raise TransferError(
                f"the target could not write the file: {words}",
                where=self._target,
                remedy=f"free space in {self._root}, or check its permissions; nothing was "
                "activated, and the next push goes on from here",
            )
        raise TransferError(
            f"a file did not arrive as sent (receiver's status {result.exit_status}: {words})",
            where=self._target,
            remedy="push again; if it happens again, check the target's disk",
        )

    def state(self, name: str, release: str) -> ReleaseState:
        """Ask how one release stands."""
        answer = _pairs(self._ask("state", name, release))
        return ReleaseState(
            current=answer.get("current") or None,
            ready=answer.get("release") == "ready",
            job=answer.get("job", "none"),
            status=_number(answer.get("status")),
            lock_owner=answer.get("lock_owner") if answer.get("lock") == "held" else None,
        )

    def start(
        self, name: str, release: str, *, owner: str, links: Mapping[str, str], argv: Sequence[str]
    ) -> None:
        """Start a detached build, or join the one that already runs.

        Raises
        ------
        CommandError
            If another build of this model is running.
        """
        pairs = [f"{link}={digest}" for link, digest in links.items()]
        self._ask("start", name, release, owner, str(len(pairs)), *pairs, *argv)

    def wait(self, name: str, release: str, *, offset: int, seconds: int) -> JobState:
        """Wait for the build's end, at most `seconds`, and take its log since `offset`."""
        result = self._run(
            ("wait", name, release, str(offset), str(seconds)), timeout_s=_SHORT_S + seconds
        )
        head, _, log = result.stdout.partition(b"\n")
        answer = dict(word.partition("=")[::2] for word in head.decode().split(" "))
        return JobState(
            job=answer.get("job", "none"), status=_number(answer.get("status")), log=log
        )

    def reject(self, name: str, release: str) -> None:
        """Keep a finished job's log, but make sure that no later push takes its engine."""
        job = self.job_folder(name, release)
        self._transport.run(
            ("mv", "-fT", "--", f"{job}/status", f"{job}/status.rejected"), timeout_s=_SHORT_S
        )

    def cancel(self, name: str, release: str) -> None:
        """End a running build."""
        self._ask("cancel", name, release)

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
                f"the record of release {release} cannot be read: {_last_words(result) or error}",
                where=self._target,
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
            raise CommandError(
                f"the engine could not be run (status {result.exit_status}): {_last_words(result)}",
                where=self._target,
                remedy=f"look at verify.log in {folder} on the target",
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
    ) -> None:
        """Make a release the active one by one rename, if what is active is still `expected`."""
        line = json.dumps(record, separators=(",", ":"))
        self._ask(
            "activate",
            name,
            release,
            expected or "",
            engine,
            digest.removeprefix("sha256:"),
            line,
            timeout_s=_HASHING_S,
        )

    def models(self) -> tuple[ModelState, ...]:
        """List everything the target keeps."""
        found: list[dict[str, Any]] = []
        for line in self._ask("models").splitlines():
            key, _, value = line.partition("=")
            if key == "model":
                found.append({"name": value, "current": None, "releases": [], "activations": []})
            elif found and key == "current":
                found[-1]["current"] = value or None
            elif found and key == "release":
                found[-1]["releases"].append(value)
            elif found and key == "activation":
                activation = parse_activation(value)
                if activation is not None:
                    found[-1]["activations"].append(activation)
        return tuple(
            ModelState(
                name=one["name"],
                current=one["current"],
                releases=tuple(one["releases"]),
                activations=tuple(one["activations"]),
            )
            for one in found
        )

    def release_folder(self, name: str, release: str) -> str:
        """Say where a release lies."""
        return f"{self._root}/models/{name}/releases/{release}"

    def job_folder(self, name: str, release: str) -> str:
        """Say where a release is built."""
        return f"{self._root}/models/{name}/jobs/{release}"

    def _ask(self, *words: str, stdin: bytes = b"", timeout_s: float = _SHORT_S) -> str:
        return self._run(words, stdin=stdin, timeout_s=timeout_s).stdout.decode("utf-8", "replace")

    def _run(self, words: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        result = self._transport.run(
            ("sh", self._agent_path, self._root, *words), stdin=stdin, timeout_s=timeout_s
        )
        if result.exit_status == 0:
            return result
        raise _refusal(words[0], result, self._target)


_NOT_WRITABLE: Final = 12


def _refusal(operation: str, result: CommandResult, target: str) -> TargetError:
    said = _last_words(result)
    if result.exit_status == BUSY:
        owner = re.search(r"owner=(.*?)( release=|$)", said)
        return CommandError(
            f"somebody else is at work on this model there: {owner[1] if owner else said}",
            where=target,
            remedy="wait for that build to end, then push again",
        )
    if result.exit_status == MISSING_BLOB:
        return TransferError(
            f"a file vanished from the target's store: {said}",
            where=target,
            remedy="push again: it is sent anew",
        )
    if result.exit_status == CURRENT_CHANGED:
        return CommandError(
            f"another release was activated there in the meantime ({said})",
            where=target,
            remedy="look at 'edgecal status', then push again if this one is still wanted",
        )
    if result.exit_status == ENGINE_CHANGED:
        return CommandError(
            f"the engine on the target is not the one that was verified ({said})",
            where=target,
            remedy="push with --rebuild",
        )
    return CommandError(
        f"'{operation}' failed on the target with status {result.exit_status}: {said}",
        where=target,
        remedy="check the target's disk and permissions; nothing was activated",
    )


def _last_words(result: CommandResult) -> str:
    text = (result.stderr or result.stdout).decode("utf-8", "replace").strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = " / ".join(lines[-3:])[:500]
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1…", words)  # digests, as short as git's


def _pairs(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines())


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()


def file_of(data: bytes, digest: Digest) -> DeviceFile:
    """Make a device file of bytes at hand."""
    if not data:
        raise InputError("an empty file cannot be shipped", remedy="this is a bug in edgecal")
    return DeviceFile(digest=digest, size=len(data), open=lambda: io.BytesIO(data))
