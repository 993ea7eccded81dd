"""Which share of the data comes from which folder or has which label."""

from __future__ import annotations

import posixpath
from collections import Counter
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MOST: Final = 0.8
_LEAST: Final = 0.01
_LEAST_OF_EVEN: Final = 0.1
"""Of a thousand classes each has a thousandth: that is even, not too little."""
_NAMED: Final = 5


def shares_of_folders(folders: Mapping[str, int]) -> dict[str, int]:
    """Count samples by the first folder in which their paths differ, most of them first.

    Parameters
    ----------
    folders
        Samples by folder, with `/` between parts; empty for the top.
    """
    parts = {folder: folder.split("/") if folder else [] for folder in folders}
    common = len(posixpath.commonprefix(list(parts.values()))) if parts else 0
    counts: Counter[str] = Counter()
    for folder, count in folders.items():
        counts["/".join(parts[folder][: common + 1]) or "."] += count
    return sort_shares(counts)


def sort_shares(counts: Mapping[str, int]) -> dict[str, int]:
    """Put the largest group first; equal ones by name."""
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def judge_shares(groups: Mapping[str, int], *, source: str) -> Iterator[Finding]:
    """Warn where one folder or label has nearly all samples, or has nearly none.

    Ranges are measured on what is there: of a night in a hundred samples of day little is seen, and
    what occurs once hardly counts in the histograms. A group is too small below a hundredth of all,
    and below a tenth of an even share.

    Severity: warning.
    Source: NVIDIA TensorRT developer guide, "Post-Training Quantization Using Calibration": the
    data should be representative of what the network sees at run time.
    Remedy: take samples of every kind in the shares in which the application meets them.
    """
    total = sum(groups.values())
    if len(groups) < 2:  # one group has no share
        return
    largest = max(groups, key=lambda name: groups[name])
    least = min(_LEAST, _LEAST_OF_EVEN / len(groups)) * total
    small = [name for name, count in groups.items() if count < least]
    said = []
    if groups[largest] > _MOST * total:
        said.append(f"{_share(largest, groups, total)} of {total} samples")
    if small:
        shown = ", ".join(_share(name, groups, total) for name in small[:_NAMED])
        more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
        said.append(f"hardly any of {shown}{more}")
    if said:
        yield Finding(
            rule="lopsided-data",
            severity=Severity.WARNING,
            subject=source,
            message="; ".join(said),
            remedy="take as many samples of each folder or label as the application will meet, or "
            "list them in a file for --data",
        )


def describe_shares(groups: Mapping[str, int], *, most: int = 8) -> str:
    """Write shares for people: `night 12 (60 %), rain 8 (40 %)`."""
    total = sum(groups.values())
    shown = ", ".join(_share(name, groups, total) for name in list(groups)[:most])
    return shown + (f" and {len(groups) - most} more" if len(groups) > most else "")


def _share(name: str, groups: Mapping[str, int], total: int) -> str:
    return f"{name} {groups[name]} ({round(100 * groups[name] / total, 2):g} %)"
