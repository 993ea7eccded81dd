"""Rules about the board: its GPU, memory, clock, power, and whether it is known."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Severity
from edgecal.core.rules.visit import finding, has_trtexec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.findings import Finding
    from edgecal.core.rules.visit import Visit

_GIB: Final = 2**30
_LITTLE_MEMORY: Final = 1 * _GIB
_SWAP: Final = 4 * _GIB
_SMALL_BOARD: Final = 9 * _GIB
"""Boards of 8 GB and less: with these a build without swap is tight."""
_CLOCK_OFF: Final = timedelta(minutes=10)


def gpu_access(visit: Visit) -> Iterator[Finding]:
    """Warn where the user cannot open the GPU's device nodes.

    Otherwise CUDA says that there is no GPU. The owners are groups video and render on JetPack; a
    login sees a new group only after it began anew.

    Severity: warning.
    Source: the probe, which opens them; github.com/NVIDIA/nvidia-docker, issue 1449 (a user outside
    of video finds no GPU).
    Remedy: add the user to the groups that own the nodes.
    """
    facts = visit.facts
    if not facts.is_jetson and not has_trtexec(facts):
        return
    if facts.is_jetson and facts.gpu_access is None:
        yield finding(
            visit,
            "gpu-access",
            Severity.WARNING,
            "there are no device nodes of a GPU" + (" in the container" if facts.container else ""),
            "start the container with '--runtime nvidia'"
            if facts.container
            else "look for the GPU's driver there: 'lsmod | grep -i nv', 'dmesg | grep -i nvgpu'",
        )
        return
    if facts.gpu_access is not False:
        return
    owners = {node.group for node in facts.closed_nodes if node.group} or {"video", "render"}
    joinable = sorted(owners - {"root", "UNKNOWN", *facts.groups})
    nodes = ", ".join(
        f"{node.path} (group {node.group or 'unknown'})" for node in facts.closed_nodes
    )
    if joinable and facts.container:
        remedy = f"start the container with '--group-add {' --group-add '.join(joinable)}'"
    elif joinable:
        user = shlex.quote(facts.user) if facts.user else "USER"
        remedy = (
            f"'sudo usermod -aG {','.join(joinable)} {user}' on the target; it counts from the "
            "next login on"
        )
    elif facts.container:
        remedy = "start the container with '--runtime nvidia'; it may not open the nodes it shows"
    else:
        remedy = (
            "give the nodes to a group of this user by a udev rule on the target, such as "
            'KERNEL=="nvmap", GROUP="video", MODE="0660"; or log in as a user who may open them'
        )
    yield finding(
        visit, "gpu-access", Severity.WARNING, f"{visit.user} cannot open {nodes}", remedy
    )


def low_memory(visit: Visit) -> Iterator[Finding]:
    """Warn of little memory, and note the lack of swap.

    A Jetson's GPU takes from the same memory. Default images of Orin Nano can come without swap.

    Severity: warning below 1 GiB; note on boards of up to 8 GB without swap.
    Source: MemAvailable and SwapTotal of /proc/meminfo.
    Remedy: stop what is not needed during the build, or add swap.
    """
    facts = visit.facts
    free, whole, swap = facts.memory_available_bytes, facts.memory_bytes, facts.swap_bytes
    little = free is not None and free < _LITTLE_MEMORY
    tight = facts.is_jetson and swap == 0 and whole is not None and whole < _SMALL_BOARD
    if not little and not tight:
        return
    had = f"{_gib(free)} of {_gib(whole)} GiB of memory are available"
    yield finding(
        visit,
        "low-memory",
        Severity.WARNING if little else Severity.NOTE,
        had + (", and there is no swap" if swap == 0 else ""),
        "stop programs and the desktop while it builds ('sudo systemctl isolate multi-user')"
        + (
            ", or add swap: 'sudo fallocate -l 4G /swapfile && sudo chmod 600 /swapfile && "
            "sudo mkswap /swapfile && sudo swapon /swapfile'"
            if swap == 0 and (facts.disk_free_bytes or 0) > 2 * _SWAP
            else ""
        ),
    )


def clock_off(visit: Visit) -> Iterator[Finding]:
    """Note a clock that is far off.

    Jetsons have no battery behind their clock. edgecal does not rely on it: times in its records
    are the controller's.

    Severity: note.
    Source: date on the target against our own clock.
    Remedy: let it fetch the time.
    """
    clock, now = visit.facts.clock, visit.at
    if clock is None or now is None or abs(clock - now) < _CLOCK_OFF:
        return
    yield finding(
        visit,
        "clock-off",
        Severity.NOTE,
        f"its clock says {clock:%Y-%m-%d %H:%M} UTC, ours {now:%Y-%m-%d %H:%M}",
        "'sudo timedatectl set-ntp true' on the target, with a time server that it can reach",
    )


def power_mode(visit: Visit) -> Iterator[Finding]:
    """Note a power mode that is not the fastest.

    Builds and measurements take longer in others; results are the same.

    Severity: note.
    Source: nvpmodel -q; the fastest mode is called MAXN where a board has one by that name.
    Remedy: choose another mode by hand: some ask for a reboot.
    """
    mode = visit.facts.power_mode
    if visit.facts.is_jetson and mode is not None and not mode.upper().startswith("MAXN"):
        yield finding(
            visit,
            "power-mode",
            Severity.NOTE,
            f"the power mode is {mode}; builds take longer than in the fastest one",
            "'sudo nvpmodel -p --verbose' lists the modes, 'sudo nvpmodel -m ID' chooses one; it "
            "may ask for a reboot",
        )


def platform_unknown(visit: Visit) -> Iterator[Finding]:
    """Note a board or release that the tables do not know.

    What they do not know the device says itself: its TensorRT decides, not its name.

    Severity: note.
    Source: /etc/nv_tegra_release and the device tree against targets/*.csv.
    Remedy: none needed; a newer edgecal may know it.
    """
    facts = visit.facts
    if not facts.is_jetson:
        return
    unknown = []
    if facts.l4t is None:
        where = f" in the {facts.container} container" if facts.container else ""
        unknown.append(f"no L4T release is named{where}")
    elif facts.jetpack is None:
        unknown.append(f"no single JetPack is known for L4T {facts.l4t}")
    if facts.module is None:
        tree = facts.model or "nothing"
        unknown.append(f"the module is not known; the device tree says {tree} ({facts.soc})")
    if unknown:
        yield finding(
            visit,
            "platform-unknown",
            Severity.NOTE,
            f"{'; '.join(unknown)}; the device itself says TensorRT {facts.tensorrt or 'unknown'}",
            "nothing to do: rules that need the tables stay silent; 'edgecal targets list' shows "
            "what is known",
        )


def _gib(count: int | None) -> str:
    return "?" if count is None else f"{count / _GIB:.1f}"
