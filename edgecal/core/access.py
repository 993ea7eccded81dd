"""What costs the first hour with a target: rules over its facts alone, no bundle needed."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from edgecal.core.target import Target, TargetFacts
    from edgecal.core.versions import TensorRTVersion

_TRTEXEC: Final = "trtexec"
_GIB: Final = 2**30
_LITTLE_MEMORY: Final = 1 * _GIB
_SWAP: Final = 4 * _GIB
_SMALL_BOARD: Final = 9 * _GIB
"""Boards of 8 GB and less: with these a build without swap is tight."""
_CLOCK_OFF: Final = timedelta(minutes=10)
_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
_LAYERED: Final = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})
_MISSING_LIBRARY = re.compile(r"shared libraries: (?P<library>[^\s:]+)")


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
        f"or name another folder in edgecal.toml: {_setting(visit.target, root='/data/edgecal')}"
    )
    if "ro" in facts.root_mount_options:
        yield _finding(
            visit,
            "root-writable",
            Severity.ERROR,
            f"{facts.root} lies on {facts.root_filesystem}, which is mounted read-only",
            f"mount it for writing ('sudo mount -o remount,rw ...'; a disk that turned read-only "
            f"by itself is failing: see 'dmesg'), {elsewhere}",
        )
        return
    owner = shlex.quote(facts.user) if facts.user else "USER"
    yield _finding(
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
        yield _finding(
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
    yield _finding(
        visit,
        "root-volatile",
        Severity.WARNING,
        f"{facts.root} lies on {facts.root_filesystem}: what is pushed is lost {lost}",
        f"name a folder {where} in edgecal.toml: {_setting(visit.target, root='/data/edgecal')}",
    )


def target_tools(visit: Visit) -> Iterator[Finding]:
    """Refuse a target without the programs that every step needs.

    Severity: error.
    Source: the probe, which looks for them and tries the options that GNU's have.
    Remedy: install GNU coreutils and util-linux.
    """
    if visit.facts.missing_tools:
        yield _finding(
            visit,
            "target-tools",
            Severity.ERROR,
            f"lacks {', '.join(visit.facts.missing_tools)}",
            "install GNU coreutils (and util-linux for setsid and flock) on the target",
        )


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
    if not facts.is_jetson and not _has_trtexec(facts):
        return
    if facts.is_jetson and facts.gpu_access is None:
        yield _finding(
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
    yield _finding(
        visit, "gpu-access", Severity.WARNING, f"{visit.user} cannot open {nodes}", remedy
    )


def trtexec_path(visit: Visit) -> Iterator[Finding]:
    """Note where trtexec was found, if a session does not find it by its name.

    JetPack 4 to 6 put it into /usr/src/tensorrt/bin, which is on nobody's PATH. edgecal looks there
    and calls it by its path.

    Severity: note.
    Source: the probe.
    Remedy: none needed for edgecal.
    """
    facts = visit.facts
    paths = [one.path for one in facts.builders if one.name == _TRTEXEC]
    if paths and facts.trtexec_on_path is False:
        yield _finding(
            visit,
            "trtexec-path",
            Severity.NOTE,
            f"trtexec is not on the PATH; it was found as {', '.join(paths)}",
            "nothing to do: edgecal calls it by its path; for yourself: "
            f"'export PATH=$PATH:{shlex.quote(posixpath.dirname(paths[0]))}'",
        )


def trtexec_broken(visit: Visit) -> Iterator[Finding]:
    """Warn of a trtexec that is there and does not start.

    One from an archive needs the libraries beside it, which a login over SSH does not look for.

    Severity: warning.
    Source: what it said when the probe asked it for its version.
    Remedy: name the folder of its libraries.
    """
    for path, said in visit.facts.broken_trtexecs:
        match = _MISSING_LIBRARY.search(said)
        archive = posixpath.dirname(posixpath.dirname(path))
        if match and archive.startswith(("/usr/src", "/usr/bin")):
            remedy = (
                f"install the package that has {match['library']}: 'sudo apt install "
                "nvidia-tensorrt' on JetPack"
            )
        elif match:
            words = ("env", f"LD_LIBRARY_PATH={archive}/lib")
            remedy = (
                f"if {match['library']} lies in {archive}/lib, say so in edgecal.toml: "
                f"{_setting(visit.target, words=(*words, *visit.target.exec))}"
            )
        else:
            remedy = f"run '{path} --help' there; install the TensorRT that is made for this system"
        yield _finding(
            visit,
            "trtexec-broken",
            Severity.WARNING,
            f"{path} does not start: {said[:200]}",
            remedy,
        )


def trtexec_silent(visit: Visit) -> Iterator[Finding]:
    """Note a trtexec that does not name its version.

    Those of TensorRT 6 and 7 do not. In /usr it counts as that of the installed library.

    Severity: note; warning where nothing else tells the version.
    Source: github.com/NVIDIA/TensorRT, samples/common/logger.h of release/7.1 and release/8.0.
    Remedy: install the debs, which name theirs.
    """
    versions = {one.path: one.tensorrt for one in visit.facts.builders if one.name == _TRTEXEC}
    for path in visit.facts.silent_trtexecs:
        version = versions.get(path)
        yield _finding(
            visit,
            "trtexec-silent",
            Severity.WARNING if version is None else Severity.NOTE,
            f"{path} does not name its version"
            + ("" if version is None else f"; the installed library is {version}"),
            "install TensorRT's debs, or put the trtexec of another TensorRT before it on the PATH"
            if version is None
            else "nothing to do if the two belong together, as JetPack installs them",
        )


def tensorrt_several(visit: Visit) -> Iterator[Finding]:
    """Warn of two TensorRTs on one target.

    An engine runs only in the TensorRT that built it. Of several edgecal takes a trtexec of the
    bundle's major.minor, the first it finds; the application may load another.

    Severity: warning.
    Source: each trtexec's banner and the installed libnvinfer.
    Remedy: remove one, or make sure which one the application loads.
    """
    facts = visit.facts
    places = [
        (f"{one.path} {one.tensorrt}", one.tensorrt)
        for one in facts.builders
        if one.name == _TRTEXEC and one.tensorrt is not None
    ]
    places += [(f"library {version}", version) for version in facts.libraries]
    if len({_patch(version) for _, version in places}) > 1:
        yield _finding(
            visit,
            "tensorrt-several",
            Severity.WARNING,
            f"there are several TensorRTs: {', '.join(text for text, _ in places)}",
            "remove those that the application does not load ('ldd' tells which libnvinfer.so it "
            "takes); 'dpkg -l \"libnvinfer*\"' lists the debs",
        )


def tensorrt_shadowed(visit: Visit) -> Iterator[Finding]:
    """Warn where Python imports another TensorRT than the one that builds.

    A wheel from pip brings its own library. It then loads engines that another TensorRT built, or
    rather refuses them.

    Severity: warning.
    Source: metadata of the Python package, where the probe found it.
    Remedy: remove the wheel, or let the application run where its TensorRT also builds.
    """
    facts = visit.facts
    python, system = facts.python, facts.tensorrt
    if python is None or python.tensorrt is None or system is None:
        return
    imported = re.match(r"([0-9]+)\.([0-9]+)\.([0-9]+)", python.tensorrt)
    if imported is None or tuple(int(field) for field in imported.groups()) == _patch(system):
        return
    folder = f" from {python.tensorrt_folder}" if python.tensorrt_folder else ""
    yield _finding(
        visit,
        "tensorrt-shadowed",
        Severity.WARNING,
        f"{python.path} imports TensorRT {python.tensorrt}{folder}, and the system's is {system}; "
        "neither runs the other's engines",
        f"'{shlex.quote(python.path)} -m pip uninstall tensorrt' if the application shall use the "
        f"system's {system}",
    )


def tensorrt_in_container(visit: Visit) -> Iterator[Finding]:
    """Name the way into a container, where TensorRT is perhaps.

    Where the application lives in a container, its TensorRT is there, and so must the probe, the
    build and the check of its outputs be.

    Severity: warning on a Jetson, else note.
    Source: the probe, which asks docker only where the system has no TensorRT.
    Remedy: name the way in.
    """
    facts = visit.facts
    if _has_trtexec(facts) or facts.libraries or not facts.container_engines or visit.target.exec:
        return
    engine = facts.container_engines[0]
    running = ", ".join(f"{one.name} ({one.image})" for one in facts.containers[:10])
    name = facts.containers[0].name if len(facts.containers) == 1 else "CONTAINER"
    remedy = (
        "if the application runs in a container, name the way in, in edgecal.toml: "
        f"{_setting(visit.target, words=(engine, 'exec', '-i', name))}"
    )
    if facts.containers_hidden and not {"docker", "root"} & {*facts.groups, facts.user}:
        user = shlex.quote(facts.user) if facts.user else "USER"
        remedy += f"; {visit.user} may not use docker yet: 'sudo usermod -aG docker {user}'"
    elif facts.containers_hidden:
        remedy += "; docker does not answer: 'sudo systemctl start docker'"
    yield _finding(
        visit,
        "tensorrt-in-container",
        Severity.WARNING if facts.is_jetson else Severity.NOTE,
        f"the system has no TensorRT, but it has {engine}"
        + (f", which runs {running}" if running else ""),
        remedy,
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
    yield _finding(
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
    yield _finding(
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
        yield _finding(
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
        yield _finding(
            visit,
            "platform-unknown",
            Severity.NOTE,
            f"{'; '.join(unknown)}; the device itself says TensorRT {facts.tensorrt or 'unknown'}",
            "nothing to do: rules that need the tables stay silent; 'edgecal targets list' shows "
            "what is known",
        )


RULES: Final[Mapping[str, Callable[[Visit], Iterator[Finding]]]] = MappingProxyType(
    {
        "root-writable": root_writable,
        "root-noexec": root_noexec,
        "root-volatile": root_volatile,
        "target-tools": target_tools,
        "gpu-access": gpu_access,
        "trtexec-path": trtexec_path,
        "trtexec-broken": trtexec_broken,
        "trtexec-silent": trtexec_silent,
        "tensorrt-several": tensorrt_several,
        "tensorrt-shadowed": tensorrt_shadowed,
        "tensorrt-in-container": tensorrt_in_container,
        "low-memory": low_memory,
        "clock-off": clock_off,
        "power-mode": power_mode,
        "platform-unknown": platform_unknown,
    }
)


def check_access(visit: Visit) -> tuple[Finding, ...]:
    """Apply every rule."""
    return tuple(finding for rule in RULES.values() for finding in rule(visit))


def _finding(visit: Visit, rule: str, severity: Severity, message: str, remedy: str) -> Finding:
    return Finding(
        rule=rule, severity=severity, subject=visit.target.name, message=message, remedy=remedy
    )


def _setting(target: Target, *, root: str | None = None, words: tuple[str, ...] = ()) -> str:
    """Write what a user puts into edgecal.toml: TOML's strings and lists are JSON's here."""
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", target.name) is not None
    table = f"[targets.{target.name}]" if bare else f"[targets.{json.dumps(target.name)}]"
    setting = f"root = {json.dumps(root)}" if root else f"exec = {json.dumps(list(words))}"
    return f"{setting} under {table}"


def _has_trtexec(facts: TargetFacts) -> bool:
    return any(one.name == _TRTEXEC for one in facts.builders)


def _patch(version: TensorRTVersion) -> tuple[int, int, int]:
    return version.major, version.minor, version.patch


def _gib(count: int | None) -> str:
    return "?" if count is None else f"{count / _GIB:.1f}"
