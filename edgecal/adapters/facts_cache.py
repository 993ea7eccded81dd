"""The last answer of each target's probe, kept with its time in the user's state folder."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from edgecal.adapters.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SCHEMA: Final = "edgecal.facts/1"
_LARGEST_BYTES: Final = 1 << 20
"""A probe prints some kilobytes; what is larger is no answer of ours."""


class FactsCache:
    """Answers on disk, one file a target. It never fails: what it cannot do it says in a note.

    Answers are kept as the target gave them, so that a newer edgecal reads more in an old one.

    Parameters
    ----------
    folder
        Made when the first answer is stored.
    note
        Hears one sentence whenever an answer cannot be kept or a kept one cannot be used.
    """

    def __init__(self, folder: Path, *, note: Callable[[str], object] = lambda _text: None) -> None:
        self._folder = folder
        self._note = note

    def store(self, target_name: str, text: str, now: datetime, *, address: str = "") -> None:
        """Keep a target's answer in place of its last one; whole or not at all.

        Parameters
        ----------
        now
            When it was given; aware.
        address
            Where it came from: the same name may mean another machine in another project.
        """
        document = {
            "schema": _SCHEMA,
            "target": target_name,
            "address": address,
            "taken": now.astimezone(timezone.utc).isoformat(timespec="seconds"),
            "text": text,
        }
        data = json.dumps(document, indent=2).encode("ascii")
        if len(data) > _LARGEST_BYTES:
            self._note(f"the answer of {target_name} is not kept: it has {len(data)} bytes")
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._file(target_name), data, mode=0o600)
        except OSError as error:
            self._note(f"the answer of {target_name} is not kept: {error}")

    def load(self, target_name: str, *, address: str = "") -> tuple[str, datetime] | None:
        """Give a target's last answer and when it was given; `None` if there is none to rely on.

        Parameters
        ----------
        address
            If given, an answer that is known to come from elsewhere does not count.
        """
        file = self._file(target_name)
        try:
            with file.open("rb") as stream:
                data = stream.read(_LARGEST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note(f"the last answer of {target_name} cannot be read: {error}")
            return None
        try:
            kept_from, text, taken = _read(data, target_name)
        except (ValueError, OverflowError) as error:
            self._note(f"the last answer of {target_name} is ignored, {file} is damaged: {error}")
            return None
        if address and kept_from and kept_from != address:
            self._note(
                f"the last answer of {target_name} is ignored: it came from {kept_from}, and the "
                f"name now means {address}"
            )
            return None
        return text, taken

    def _file(self, target_name: str) -> Path:
        """Name the file: readable for people, and another one for every target."""
        digest = hashlib.sha256(target_name.encode("utf-8", "surrogatepass")).hexdigest()
        readable = re.sub(r"[^A-Za-z0-9._@-]+", "_", target_name).lstrip(".")[:60]
        return self._folder / f"{readable}-{digest[:16]}.json"


def _read(data: bytes, target_name: str) -> tuple[str, str, datetime]:
    """Read a file of the cache; raises ValueError for whatever it cannot be."""
    if len(data) > _LARGEST_BYTES:
        raise ValueError("it is too large")
    try:
        document: Any = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
        raise ValueError(f"it is no {_SCHEMA}")
    if document.get("target") != target_name:
        raise ValueError(f"it speaks of {document.get('target')!r}")
    taken = _word(document, "taken")
    moment = datetime.fromisoformat(taken)
    if moment.tzinfo is None:
        raise ValueError(f"the time {taken!r} has no zone")
    return _word(document, "address"), _word(document, "text"), moment.astimezone(timezone.utc)


def _word(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if isinstance(value, str):
        return value
    raise ValueError(f"expected a text for {key!r}, found {value!r:.40}")
