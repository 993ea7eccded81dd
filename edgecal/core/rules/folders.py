"""Rules about the folder on a target that edgecal keeps its files in."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Severity
from edgecal.core.rules.visit import finding, setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.findings import Finding
    from edgecal.core.rules.visit import Visit

_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
_LAYERED: Final = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})


def root_writable(visit: Visit) -> Iterator[Finding]:
    """Refuse a target where nothing could be stored in edgecal's folder.

    Severity: error.
    Source: the probe, which tries the nearest folder that exists, and /proc/self/mounts.
    Remedy: another folder, other rights, or a file system that is not read-only.
    """
    facts = visit.facts
    if facts.root_writable is not False:
        return
    elsewhere = (
        f"or name another folder in edgecal.toml: {setting(visit.target, root='/data/edgecal')}"
    )
    if "ro" in facts.root_mount_options:
        yield finding(
            visit,
            "root-writable",
            Severity.ERROR,
            f"{facts.root} lies on {facts.root_filesystem}, which is mounted read-only",
            f"mount it for writing ('sudo mount -o remount,rw ...'; a disk that turned read-only "
            f"by itself is failing: see 'dmesg'), {elsewhere}",
        )
        return
    owner = shlex.quote(facts.user) if facts.user else "USER"
    yield finding(
        visit,
        "root-writable",
        Severity.ERROR,
        f"{visit.user} cannot write in {facts.root}",
        f"make it there: 'sudo install -d -o {owner} {shlex.quote(facts.root)}', {elsewhere}",
    )


def root_noexec(visit: Visit) -> Iterator[Finding]:
    """Note that no program could be started from edgecal's folder.

    edgecal itself starts none there: its scripts are read by sh, trtexec lies elsewhere, an engine
    is data. An application or plugin that was put beside the engines would not load.

    Severity: note.
    Source: /proc/self/mounts on the target; pushes to such a folder are tested.
    Remedy: none needed for edgecal.
    """
    if "noexec" in visit.facts.root_mount_options:
        yield finding(
            visit,
            "root-noexec",
            Severity.NOTE,
            f"{visit.facts.root} lies on a file system mounted noexec; edgecal starts no program "
            "from there",
            "nothing to do; keep your own programs and plugins elsewhere",
        )


def root_volatile(visit: Visit) -> Iterator[Finding]:
    """Warn where what is pushed would be lost with a reboot, or with its container.

    Severity: warning.
    Source: /proc/self/mounts on the target.
    Remedy: a folder on a disk, or one that is mounted into the container.
    """
    facts = visit.facts
    if facts.root_filesystem in _VOLATILE:
        lost, where = "at the next reboot", "on a disk"
    elif facts.container and facts.root_filesystem in _LAYERED:
        lost, where = "with this container", "that is mounted into the container"
    else:
        return
    yield finding(
        visit,
        "root-volatile",
        Severity.WARNING,
        f"{facts.root} lies on {facts.root_filesystem}: what is pushed is lost {lost}",
        f"name a folder {where} in edgecal.toml: {setting(visit.target, root='/data/edgecal')}",
    )
