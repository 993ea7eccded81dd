"""Table `[rollout]` of `edgecal.toml`: what a rollout need not be told on the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from edgecal.core.bandwidth import parse_rate
from edgecal.core.rollout.plan import MOST_BOUNDS, parse_waves
from edgecal.core.rollout.state import OnFailure
from edgecal.core.rollout.wording import (
    parse_condition,
    parse_duration,
    parse_gate,
    parse_missing,
    parse_pauses,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgecal.core.rollout.gates import Condition, Gate
    from edgecal.core.rollout.plan import Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDefaults:
    """What the table says; `None` where it does not. Paths are absolute, or begin with `~`."""

    waves: tuple[Bound, ...] | None = None
    success: Condition | None = None
    failures: Gate | None = None
    missing: Gate | None = None
    on_failure: OnFailure | None = None
    soak_ms: int | None = None
    pause_after: str | None = None
    """As it is written: only the waves of the rollout that is begun tell what it means."""
    in_flight: int | None = None
    deadline_ms: int | None = None
    tries: int | None = None
    connections: int | None = None
    transfers: int | None = None
    builds: int | None = None
    limit_rate: float | None = None
    limit_rate_per_bastion: float | None = None
    hook: tuple[str, ...] = ()
    events: str | None = None
    metrics: str | None = None
    journal: str | None = None

    def commands(self) -> tuple[str, ...]:
        """Name what makes something run, or write to a file: nobody else may have said it."""
        return tuple(name for name in _COMMANDS if getattr(self, name))

    def without_commands(self) -> RolloutDefaults:
        """Give the table without these."""
        return replace(self, hook=(), events=None, metrics=None)


_COMMANDS: Final = ("hook", "events", "metrics")
ROLLOUT_KEYS: Final = {
    "waves": "parts",
    "success": "parts",
    "failures": "parts",
    "missing": "parts",
    "on_failure": "failure",
    "soak": "parts",
    "pause_after": "parts",
    "in_flight": "count",
    "deadline": "parts",
    "tries": "count",
    "connections": "count",
    "transfers": "count",
    "builds": "count",
    "limit_rate": "parts",
    "limit_rate_per_bastion": "parts",
    "hook": "argv",
    "events": "path",
    "metrics": "path",
    "journal": "word",
}
"""The kind of value that each key of the table wants."""


def _pauses(text: str, source: str) -> str:
    parse_pauses(text, waves=MOST_BOUNDS, source=source)
    return text


_READERS: Final[Mapping[str, tuple[str, Callable[[str, str], object]]]] = {
    "waves": ("waves", lambda text, source: parse_waves(text, source=source)),
    "success": ("success", lambda text, source: parse_condition(text, source=source)),
    "failures": ("failures", lambda text, source: parse_gate(text, source=source)),
    "missing": ("missing", lambda text, source: parse_missing(text, source=source)),
    "on_failure": ("on_failure", lambda text, _source: OnFailure(text)),
    "soak": ("soak_ms", lambda text, source: parse_duration(text, source=source)),
    "pause_after": ("pause_after", _pauses),
    "deadline": ("deadline_ms", lambda text, source: parse_duration(text, source=source)),
    "limit_rate": ("limit_rate", lambda text, source: parse_rate(text, source=source)),
    "limit_rate_per_bastion": (
        "limit_rate_per_bastion",
        lambda text, source: parse_rate(text, source=source),
    ),
}


def read_rollout(values: Mapping[str, Any], where: Callable[[str], str]) -> RolloutDefaults:
    """Make the table of values of the right kinds.

    Parameters
    ----------
    where
        Names the place of a key, for messages.

    Raises
    ------
    InputError
        If a text is not what its key wants.
    """
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name, read = _READERS.get(key, (key, None))
        settings[name] = value if read is None else read(value, f"{where(key)} {key}")
    return RolloutDefaults(**settings)
