"""Rules about the programs on a target: tools of the system, trtexec, TensorRT's libraries."""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import TYPE_CHECKING

from edgecal.core.findings import Severity
from edgecal.core.rules.pairing import TRTEXEC
from edgecal.core.rules.visit import finding, has_trtexec, setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.findings import Finding
    from edgecal.core.rules.visit import Visit

_MISSING_LIBRARY = re.compile(r"shared libraries: (?P<library>[^\s:]+)")


def target_tools(visit: Visit) -> Iterator[Finding]:
    """Refuse a target without the programs that every step needs.

    Severity: error.
    Source: the probe, which looks for them and tries the options that GNU's have.
    Remedy: install GNU coreutils and util-linux.
    """
    if visit.facts.missing_tools:
        yield finding(
            visit,
            "target-tools",
            Severity.ERROR,
            f"lacks {', '.join(visit.facts.missing_tools)}",
            "install GNU coreutils (and util-linux for setsid and flock) on the target",
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
    paths = [one.path for one in facts.builders if one.name == TRTEXEC]
    if paths and facts.trtexec_on_path is False:
        yield finding(
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
                f"{setting(visit.target, words=(*words, *visit.target.exec))}"
            )
        else:
            remedy = f"run '{path} --help' there; install the TensorRT that is made for this system"
        yield finding(
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
    versions = {one.path: one.tensorrt for one in visit.facts.builders if one.name == TRTEXEC}
    for path in visit.facts.silent_trtexecs:
        version = versions.get(path)
        yield finding(
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
        if one.name == TRTEXEC and one.tensorrt is not None
    ]
    places += [(f"library {version}", version) for version in facts.libraries]
    if len({version.major_minor_patch for _, version in places}) > 1:
        yield finding(
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
    imported = re.match(r"[0-9]+\.[0-9]+\.[0-9]+", python.tensorrt)
    if imported is None or imported[0] == system.major_minor_patch:
        return
    folder = f" from {python.tensorrt_folder}" if python.tensorrt_folder else ""
    yield finding(
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
    if has_trtexec(facts) or facts.libraries or not facts.container_engines or visit.target.exec:
        return
    engine = facts.container_engines[0]
    running = ", ".join(f"{one.name} ({one.image})" for one in facts.containers[:10])
    name = facts.containers[0].name if len(facts.containers) == 1 else "CONTAINER"
    remedy = (
        "if the application runs in a container, name the way in, in edgecal.toml: "
        f"{setting(visit.target, words=(engine, 'exec', '-i', name))}"
    )
    if facts.containers_hidden and not {"docker", "root"} & {*facts.groups, facts.user}:
        user = shlex.quote(facts.user) if facts.user else "USER"
        remedy += f"; {visit.user} may not use docker yet: 'sudo usermod -aG docker {user}'"
    elif facts.containers_hidden:
        remedy += "; docker does not answer: 'sudo systemctl start docker'"
    yield finding(
        visit,
        "tensorrt-in-container",
        Severity.WARNING if facts.is_jetson else Severity.NOTE,
        f"the system has no TensorRT, but it has {engine}"
        + (f", which runs {running}" if running else ""),
        remedy,
    )
