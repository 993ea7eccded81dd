"""A rollout's figures in Prometheus' text format, version 0.0.4.

See "Exposition formats" in Prometheus' documentation. No reading of Prometheus has seen it yet but
that of its own Python client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.counts import wave_counts
from edgecal.core.rollout.state import DevicePhase, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgecal.core.rollout.state import Rollout

FIRST_LINE: Final = "# HELP edgecal_rollout_info"
"""How every such text begins."""
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A rollout as one process sees it."""

    rollout: Rollout
    entries: int
    """How many the journal has."""
    event_ms: int | None = None
    """When the last of those that this process saw was written; milliseconds since 1970."""
    bytes_sent: int = 0
    """By this process."""


def exposition(sight: Sight) -> str:
    r"""Write the figures, each with what it means. Waves count from 1, as they do for people.

    >>> label("a\\b \"c\"\n")
    '"a\\\\b \\"c\\"\\n"'
    """
    return "".join(f"{line}\n" for line in _lines(sight))


def label(text: str) -> str:
    """Quote the value of a label; what is no Unicode becomes a question mark."""
    return f'"{text.encode("utf-8", "replace").decode().translate(_ESCAPES)}"'


def _lines(sight: Sight) -> Iterator[str]:
    rollout = sight.rollout
    name = label(rollout.plan.rollout)
    yield from _family(
        "info",
        "gauge",
        "The bundles of a rollout, by the digest of their manifests.",
        ((f"bundle={label(one)}", 1) for one in rollout.plan.bundles),
        name,
    )
    yield from _family(
        "phase",
        "gauge",
        "1 for the phase that the rollout is in.",
        ((f"phase={label(one.value)}", int(one is rollout.phase)) for one in Phase),
        name,
    )
    yield from _family(
        "wave", "gauge", "The wave that was started last, from 1.", [("", rollout.wave + 1)], name
    )
    yield from _family(
        "devices",
        "gauge",
        "Devices by wave and phase; those that the plan refused are in wave 0.",
        _devices(rollout),
        name,
    )
    yield from _family(
        "sent_bytes_total",
        "counter",
        "Bytes of files sent to devices since this controller began.",
        [("", sight.bytes_sent)],
        name,
    )
    yield from _family(
        "journal_entries", "gauge", "Entries in the journal.", [("", sight.entries)], name
    )
    if sight.event_ms is not None:
        yield from _family(
            "last_event_timestamp_seconds",
            "gauge",
            "When the last entry was written, since 1970.",
            [("", f"{sight.event_ms // 1000}.{sight.event_ms % 1000:03}")],
            name,
        )


def _devices(rollout: Rollout) -> Iterator[tuple[str, int]]:
    yield _device(0, DevicePhase.REFUSED.value), len(rollout.plan.refused)
    for wave in range(len(rollout.plan.waves)):
        for phase, count in wave_counts(rollout, wave).items():
            yield _device(wave + 1, phase), count


def _device(wave: int, phase: str) -> str:
    return f"wave={label(str(wave))},phase={label(phase)}"


def _family(
    name: str, kind: str, meaning: str, samples: Iterable[tuple[str, int | str]], rollout: str
) -> Iterator[str]:
    whole = f"edgecal_rollout_{name}"
    yield f"# HELP {whole} {meaning}"
    yield f"# TYPE {whole} {kind}"
    for labels, value in samples:
        yield f"{whole}{{rollout={rollout}{',' if labels else ''}{labels}}} {value}"
