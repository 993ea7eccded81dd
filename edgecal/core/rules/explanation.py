"""What a rule says, how much it weighs, why, where that comes from, and the way out."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PART = re.compile(r"^(?P<name>Severity|Source|Remedy): ", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A rule, for people."""

    rule: str
    says: str
    why: str
    severity: str
    source: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        """Give all of it by name."""
        return {
            "rule": self.rule,
            "says": self.says,
            "severity": self.severity,
            "why": self.why,
            "source": self.source,
            "remedy": self.remedy,
        }


def explain_rule(slug: str, rule: Callable[..., object]) -> Explanation:
    """Read a rule's docstring, which is the one place that says all this.

    Its first line says what the rule does; paragraphs on why follow; lines that begin with
    `Severity:`, `Source:` and `Remedy:` end it. Empty where docstrings were stripped.
    """
    text = inspect.cleandoc(rule.__doc__ or "")
    prose, *rest = _PART.split(text)
    parts = dict(zip(rest[::2], rest[1::2], strict=True))
    says, _, why = prose.partition("\n\n")
    return Explanation(
        rule=slug,
        says=_one_line(says),
        why=_one_line(why),
        severity=_one_line(parts.get("Severity", "")),
        source=_one_line(parts.get("Source", "")),
        remedy=_one_line(parts.get("Remedy", "")),
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
