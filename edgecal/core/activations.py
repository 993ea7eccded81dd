"""The record of what was active on a target, and where a rollback goes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One line of a target's record."""

    action: str
    """`activate`, `rollback`, `confirm` after a health check that passed, or `deactivate`."""
    release: str
    """What is active from then on; empty after `deactivate`."""
    time: str
    """UTC, by the controller's clock: many Jetsons have none that runs while they are off."""
    by: str
    target_time_s: int
    """Seconds since 1970 by the target's own clock."""
    reason: str | None = None
    """Why the target went back by itself."""
    rollout: str | None = None
    """The rollout that did it."""


def parse_activation(line: str) -> Activation | None:
    """Read one line; `None` for one that power loss cut off."""
    seconds, _, text = line.partition(" ")
    try:
        document = json.loads(text)
        return Activation(
            action=str(document["action"]),
            release=str(document["release"]),
            time=str(document["time"]),
            by=str(document["by"]),
            target_time_s=int(seconds),
            reason=str(document["reason"]) if "reason" in document else None,
            rollout=str(document["rollout"]) if "rollout" in document else None,
        )
    except (ValueError, KeyError, TypeError):
        return None


def activated_by(activations: Sequence[Activation], current: str) -> str | None:
    """Name the rollout that made a release the active one; `None` if none did."""
    happened = [one for one in activations if one.release == current and one.action != "confirm"]
    return happened[-1].rollout if happened else None


def previous_release(activations: Sequence[Activation], current: str | None) -> str | None:
    """Find what a rollback goes back to: the latest earlier activation not itself rolled back from.

    It never toggles: after A, B, C and two rollbacks A is active, and there is nothing before it.
    A last line whose activation never happened (the target lost power between record and rename)
    does not count, for `current` is what is really active.
    """
    happened = [one for one in activations if one.action != "confirm"]
    if happened and current is not None and happened[-1].release != current:
        happened.pop()
    stack: list[str] = []
    for activation in happened:
        release = activation.release
        if activation.action == "deactivate":
            stack.clear()
        elif activation.action != "rollback":
            if release in stack:
                stack.remove(release)
            stack.append(release)
        elif release in stack:
            del stack[stack.index(release) + 1 :]
        else:  # back to one that had itself been rolled back from, by its name
            stack[-1:] = [release]
    if current in stack:
        del stack[stack.index(current) :]
    return stack[-1] if stack else None
