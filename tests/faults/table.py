"""The fault table as values: see table.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("table.csv")


@dataclass(frozen=True, slots=True)
class Row:
    """One fault at one step of a push, and what comes of it."""

    place: str
    """`before` what the controller is about to ask for, or the name of a place in a script."""
    fault: str
    active: str
    """The engine that is active afterwards: old, new, or other, of a second operator."""
    state: str
    """Of the push; a dash where the controller did not live to tell."""
    code: str
    exit: int
    words: str
    """That the message has; alternatives stand between bars."""
    sshd: bool
    """Whether the row is among those that every run walks over a real sshd too."""

    @property
    def id(self) -> str:
        """Name the row."""
        return f"{self.place}: {self.fault}"


def read_table() -> list[Row]:
    """Read every row."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [
            Row(
                place=row["place"],
                fault=row["fault"],
                active=row["active"],
                state=row["state"],
                code=row["code"],
                exit=int(row["exit"]),
                words=row["words"],
                sshd=row["sshd"] == "yes",
            )
            for row in csv.DictReader(file)
        ]
