"""One look at a target, and what its rules have in common."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecal.core.findings import Finding
from edgecal.core.rules.pairing import TRTEXEC

if TYPE_CHECKING:
    from datetime import datetime

    from edgecal.core.findings import Severity
    from edgecal.core.target import Target, TargetFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What one look at a target found."""

    target: Target
    facts: TargetFacts
    at: datetime | None = None
    """When it answered, by our clock; aware."""

    @property
    def user(self) -> str:
        """Who logged in, for people."""
        return f"user {self.facts.user}" if self.facts.user else "the user of this login"


def finding(visit: Visit, rule: str, severity: Severity, message: str, remedy: str) -> Finding:
    """Make a finding about the target."""
    return Finding(
        rule=rule, severity=severity, subject=visit.target.name, message=message, remedy=remedy
    )


def setting(target: Target, *, root: str | None = None, words: tuple[str, ...] = ()) -> str:
    """Write what a user puts into edgecal.toml: TOML's strings and lists are JSON's here."""
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", target.name) is not None
    table = f"[targets.{target.name}]" if bare else f"[targets.{json.dumps(target.name)}]"
    line = f"root = {json.dumps(root)}" if root else f"exec = {json.dumps(list(words))}"
    return f"{line} under {table}"


def has_trtexec(facts: TargetFacts) -> bool:
    """Tell whether the target has a trtexec that starts."""
    return any(one.name == TRTEXEC for one in facts.builders)
