"""What a target says of itself: the answer of `target_scripts/probe.sh`, read into facts."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from edgecal.core.signing import parse_policy
from edgecal.core.target import (
    BuilderFact,
    ClosedNode,
    ContainerFact,
    PythonFact,
    SigningFacts,
    TargetFacts,
)
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import CommandError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgecal.core.platforms import Platforms
    from edgecal.core.target import Target

_MARK: Final = "edgecal:"
_SCHEMA: Final = "1"
_ORT_BUILDER_PYTHON: Final = (3, 10)
_TENSORRT_BUILDER_PYTHON: Final = (3, 6)

_LINE = re.compile(r"(?P<key>[a-z0-9_]+)=(?P<value>.*)", re.DOTALL)
_L4T_RELEASE = re.compile(
    r"R(?P<major>[0-9]{1,4})\b.*?REVISION:\s*(?P<revision>[0-9]+(?:\.[0-9]+)*)"
)
_SOC = re.compile(r"nvidia,(?P<soc>tegra[0-9]+)")
_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_LIBRARY_FILE = re.compile(r".*/libnvinfer\.so\.(?P<version>[0-9]+\.[0-9]+\.[0-9]+)")
_RUNNING = re.compile(r"&&&& RUNNING\b")
_NVIDIA_SMI = re.compile(r"(?P<name>[^,]+), (?P<compute_capability>[0-9]{1,3}\.[0-9]{1,2})")
_FIRST_NAMING_ITSELF: Final = 8
"""Since this TensorRT the banner of trtexec says which one it is."""
_LAST_SECOND: Final = 253402300799
"""The end of the year 9999."""

_Answers = dict[str, list[str]]


def parse_probe(text: str, platforms: Platforms, *, source: str) -> TargetFacts:
    """Read the answer of the probe.

    Lines without the mark `edgecal:` are noise: a motd, or a profile that talks.

    Parameters
    ----------
    text
        All that the target printed.
    platforms
        Tells JetPack by L4T, the module by the device tree, its compute capability and DLA cores.
    source
        The target's name, for errors.

    Raises
    ------
    CommandError
        If the answer is not whole, or not one of this probe.
    """
    answers = _answers(text, source)
    root = _first(answers, "root")
    if root is None or not root.startswith("/"):
        raise _broken(f"expected the absolute path of edgecal's folder, found {root!r}", source)
    compatible = (_first(answers, "compatible") or "").split()
    model = _first(answers, "model")
    memory_bytes = _integer(answers, "memory_bytes", source)
    soc = _soc(compatible)
    module = platforms.module_for(compatible=compatible, model=model, memory_bytes=memory_bytes)
    l4t = _l4t(answers)
    release = None if l4t is None else platforms.release_for_l4t(l4t)
    python = _python(answers)
    libraries = _libraries(answers)
    found = _trtexecs(answers, libraries, python)
    mount = (_first(answers, "root_mount") or "").split()
    # flags alone: lowerdir=... of an overlay is long, and nobody's business
    options = tuple(word for word in "".join(mount[1:2]).split(",") if word and "=" not in word)
    writable = _claim(answers, "root_writable")
    gpu = _NVIDIA_SMI.fullmatch(_first(answers, "gpu") or "")
    capability = gpu and gpu["compute_capability"]
    nodes = [line.split(" ") for line in answers.get("gpu_node", ())]
    return TargetFacts(
        root=root,
        # busybox calls everything writable for root
        root_writable=False if "ro" in options else writable,
        root_filesystem=mount[0] if mount else None,
        root_mount_options=options,
        is_jetson="nv_tegra_release" in answers or "tegra" in " ".join([model or "", *compatible]),
        tensorrt=next(
            (builder.tensorrt for builder in found.builders if builder.tensorrt is not None),
            _with_build(max(libraries, default=None), libraries, python),
        ),
        builders=(
            *found.builders,
            *_tensorrt_builder(python, libraries),
            *_reference_builder(python),
        ),
        libraries=libraries,
        trtexec_on_path=bool(_first(answers, "trtexec_on_path")) if found.builders else None,
        silent_trtexecs=found.silent,
        broken_trtexecs=found.broken,
        l4t=l4t,
        jetpack=None if release is None else release.jetpack,
        module=None if module is None else module.slug,
        model=model,
        soc=soc,
        compute_capability=capability if soc is None else platforms.compute_capability(soc),
        dla_cores=None if module is None else module.dla_cores,
        cuda=_cuda(answers),
        python=python,
        gpu=gpu and gpu["name"],
        gpu_access=_gpu_access(nodes),
        closed_nodes=tuple(
            ClosedNode(path=node[0], group=node[2] if node[2:] else None)
            for node in nodes
            if node[1:2] == ["no"]
        ),
        arch=_first(answers, "arch"),
        user=_first(answers, "user"),
        groups=tuple((_first(answers, "groups") or "").split()),
        hostname=_first(answers, "hostname"),
        container=_first(answers, "container"),
        container_engines=tuple(answers.get("container_engine", ())),
        containers=tuple(_containers(answers)),
        containers_hidden=_claim(answers, "containers_hidden") is True,
        disk_free_bytes=_integer(answers, "disk_free_bytes", source),
        memory_bytes=memory_bytes,
        memory_available_bytes=_integer(answers, "memory_available_bytes", source),
        swap_bytes=_integer(answers, "swap_bytes", source),
        clock=_clock(answers, source),
        power_mode=_first(answers, "power_mode"),
        missing_tools=tuple(answers.get("missing_tool", ())),
        signing=_signing(answers),
    )


def has_answer(text: str) -> bool:
    """Tell whether the probe ran at all, whatever it found."""
    return any(line.startswith(_MARK) for line in text.split("\n"))


def no_way_in(target: Target, *, status: int, said: str) -> CommandError:
    """Say why the words of `exec` did not lead to a shell that read the probe.

    `docker exec` without `-i` gives a shell that reads nothing, ends at once and is content.
    """
    words = shlex.join(target.exec)
    last = " / ".join(line.strip() for line in said.splitlines() if line.strip())[-300:]
    if status == 0:
        return CommandError(
            f"{words!r} leads to a shell that gets no input",
            where=target.name,
            remedy=f"add -i: exec = {json.dumps(_with_input(target.exec))}",
        )
    login = f"{target.user}@{target.host}" if target.user else target.host
    port = f"-p {target.port} " if target.port else ""
    advice = f"try 'ssh {port}{login} {words} true'"
    if "tty" in last.lower():
        advice = f"leave out -t: edgecal has no terminal there; {advice}"
    elif "permission denied" in last.lower() and "docker" in last.lower():
        advice = f"'sudo usermod -aG docker USER' on the target, then log in anew; {advice}"
    return CommandError(
        f"{words!r} does not lead to a shell (status {status}): {last or 'it says nothing'}",
        where=target.name,
        remedy=f"{advice}; the container must run and have sh, and exec must name it",
    )


def _with_input(words: Sequence[str]) -> list[str]:
    """Put -i behind the word `exec`, as docker, podman and nerdctl want it."""
    if "exec" not in words:
        return [*words, "-i"]
    after = words.index("exec") + 1
    return [*words[:after], "-i", *words[after:]]


def facts_to_json(facts: TargetFacts) -> dict[str, object]:
    """Give the keys that scripts rely on (`edgecal.probe/1`); unknown is null."""
    python = facts.python
    return {
        "tensorrt": _text(facts.tensorrt),
        "builders": [
            {"name": one.name, "path": one.path, "tensorrt": _text(one.tensorrt)}
            for one in facts.builders
        ],
        "l4t": facts.l4t,
        "jetpack": facts.jetpack,
        "module": facts.module,
        "model": facts.model,
        "soc": facts.soc,
        "compute_capability": facts.compute_capability,
        "dla_cores": facts.dla_cores,
        "cuda": facts.cuda,
        "python": python
        and {
            "path": python.path,
            "version": python.version,
            "numpy": python.numpy,
            "onnx": python.onnx,
            "onnxruntime": python.onnxruntime,
            "tensorrt": python.tensorrt,
            "tensorrt_folder": python.tensorrt_folder,
        },
        "gpu_access": facts.gpu_access,
        "disk_free_bytes": facts.disk_free_bytes,
        "memory_bytes": facts.memory_bytes,
        "memory_available_bytes": facts.memory_available_bytes,
        "power_mode": facts.power_mode,
        "root": facts.root,
        "root_writable": facts.root_writable,
        "is_jetson": facts.is_jetson,
        "arch": facts.arch,
        "user": facts.user,
        "hostname": facts.hostname,
        "missing_tools": list(facts.missing_tools),
        "libraries": [str(version) for version in facts.libraries],
        "trtexec_on_path": facts.trtexec_on_path,
        "silent_trtexecs": list(facts.silent_trtexecs),
        "broken_trtexecs": [{"path": path, "said": said} for path, said in facts.broken_trtexecs],
        "gpu": facts.gpu,
        "closed_nodes": [{"path": node.path, "group": node.group} for node in facts.closed_nodes],
        "groups": list(facts.groups),
        "container": facts.container,
        "container_engines": list(facts.container_engines),
        "containers": [
            {"engine": one.engine, "name": one.name, "image": one.image} for one in facts.containers
        ],
        "containers_hidden": facts.containers_hidden,
        "swap_bytes": facts.swap_bytes,
        "clock": None if facts.clock is None else facts.clock.isoformat(),
        "root_filesystem": facts.root_filesystem,
        "root_mount_options": list(facts.root_mount_options),
        "signing": facts.signing
        and {
            "present": facts.signing.present,
            "openssl": facts.signing.openssl,
            "required": facts.signing.required,
            "name": facts.signing.name,
            "problem": facts.signing.problem,
            "keys": list(facts.signing.keys),
            "unusable_keys": list(facts.signing.unusable_keys),
            "writable": list(facts.signing.writable),
        },
    }


def _answers(text: str, source: str) -> _Answers:
    answers: _Answers = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.startswith(_MARK):
            continue
        match = _LINE.fullmatch(line.removeprefix(_MARK).removesuffix("\r"))
        if match is None:
            raise _broken(f"expected key=value in line {number}, found {line[:60]!r}", source)
        answers.setdefault(match["key"], []).append(match["value"].strip(" "))
    if "complete" not in answers.get("probe", ()):
        last = text.rstrip().rpartition("\n")[2]
        raise _broken(f"the answer ended early; its last line is {last[:60]!r}", source)
    if answers.get("schema") != [_SCHEMA]:
        raise _broken(f"expected schema 1, found {answers.get('schema', [])}", source)
    return answers


def _broken(what: str, source: str) -> CommandError:
    return CommandError(
        f"the probe gave no usable answer: {what}",
        where=source,
        remedy=f"run 'ssh {source} true': the login must give a POSIX shell and stay connected",
    )


def _first(answers: Mapping[str, Sequence[str]], key: str) -> str | None:
    return next(iter(answers.get(key, ())), None) or None


def _claim(answers: _Answers, key: str) -> bool | None:
    return {"yes": True, "no": False}.get(_first(answers, key) or "")


def _integer(answers: _Answers, key: str, source: str) -> int | None:
    value = _first(answers, key)
    if value is not None and not re.fullmatch(r"[0-9]{1,18}", value):
        raise _broken(f"expected a whole number for {key}, found {value[:60]!r}", source)
    return None if value is None else int(value)


def _l4t(answers: _Answers) -> str | None:
    """Read the release file, else the deb of its core package.

    The file's first line is like `# R35 (release), REVISION: 3.1, GCID: ..., BOARD: ...`, the deb
    version like `39.2.1-20260806224157` (jetson_stats, jtop/core/jetson_variables.py).
    """
    if match := _L4T_RELEASE.search(_first(answers, "nv_tegra_release") or ""):
        return f"{match['major']}.{match['revision']}"
    deb = _DOTTED.match(_first(answers, "l4t_core") or "")
    return None if deb is None else deb[0]


def _soc(compatible: Iterable[str]) -> str | None:
    """Read the SoC, which the device tree of a Jetson names last."""
    found = [match["soc"] for entry in compatible if (match := _SOC.fullmatch(entry))]
    return found[-1] if found else None


def _cuda(answers: _Answers) -> str | None:
    toolkit = _first(answers, "cuda")
    if toolkit is not None:
        return toolkit
    # the compiler's patch number is its own, not the toolkit's
    compiler = re.match(r"[0-9]+\.[0-9]+", _first(answers, "cuda_nvcc") or "")
    return None if compiler is None else compiler[0]


def _gpu_access(nodes: Iterable[Sequence[str]]) -> bool | None:
    """Judge by every GPU node that exists; `None` where there is none."""
    states = [node[1] for node in nodes if node[1:2] in (["yes"], ["no"])]
    return "no" not in states if states else None


def _clock(answers: _Answers, source: str) -> datetime | None:
    seconds = _integer(answers, "clock", source)
    if seconds is None or seconds > _LAST_SECOND:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc)


def _signing(answers: _Answers) -> SigningFacts | None:
    state = _first(answers, "signing")
    if state not in {"present", "absent"}:
        return None
    policy = parse_policy(answers.get("signing_policy", ()))
    return SigningFacts(
        present=state == "present",
        openssl=_claim(answers, "signing_openssl") is True,
        required=policy.required,
        name=policy.name,
        problem=_first(answers, "signing_problem")
        or (policy.problem and f"its policy says {policy.problem!r}"),
        keys=tuple(answers.get("signing_key", ())),
        unusable_keys=tuple(answers.get("signing_unusable_key", ())),
        writable=tuple(answers.get("signing_writable", ())),
    )


def _containers(answers: _Answers) -> Iterator[ContainerFact]:
    for line in answers.get("container_runs", ()):
        engine, _, container = line.partition(" ")
        name, _, image = container.partition(" ")
        if name:
            yield ContainerFact(engine=engine, name=name, image=image)


def _python(answers: _Answers) -> PythonFact | None:
    path, version = _first(answers, "python"), _first(answers, "python_version")
    if path is None or version is None:
        return None
    return PythonFact(
        path=path,
        version=version,
        numpy=_first(answers, "python_numpy"),
        onnx=_first(answers, "python_onnx"),
        onnxruntime=_first(answers, "python_onnxruntime"),
        tensorrt=_first(answers, "python_tensorrt"),
        tensorrt_folder=_first(answers, "python_tensorrt_folder"),
    )


def _tensorrt_builder(
    python: PythonFact | None, libraries: Sequence[TensorRTVersion]
) -> tuple[BuilderFact, ...]:
    version = _version(python.tensorrt or "") if python is not None else None
    if python is None or version is None or _release(python) < _TENSORRT_BUILDER_PYTHON:
        return ()
    whole = _with_build(version, libraries, None)
    return (BuilderFact(name="tensorrt", path=python.path, tensorrt=whole),)


def _release(python: PythonFact) -> tuple[int, ...]:
    return tuple(int(field) for field in re.findall(r"[0-9]{1,4}", python.version)[:2])


def _reference_builder(python: PythonFact | None) -> tuple[BuilderFact, ...]:
    if python is None or None in {python.numpy, python.onnx, python.onnxruntime}:
        return ()
    if _release(python) < _ORT_BUILDER_PYTHON:
        return ()
    return (BuilderFact(name="onnxruntime", path=python.path),)


def _libraries(answers: _Answers) -> tuple[TensorRTVersion, ...]:
    """Read which libnvinfer the system has, the oldest first.

    The debs say it like `libnvinfer8 8.5.2-1+cuda11.4`; a file `libnvinfer.so.8.5.2` of the same
    patch is the deb's.
    """
    debs = {_version(line.partition(" ")[2]) for line in answers.get("libnvinfer", ())}
    patches = {version.major_minor_patch for version in debs if version is not None}
    matches = (_LIBRARY_FILE.fullmatch(path) for path in answers.get("libnvinfer_file", ()))
    files = {_version(match["version"]) for match in matches if match}
    loose = {version for version in files if version and version.major_minor_patch not in patches}
    return tuple(sorted(version for version in debs | loose if version is not None))


@dataclass(frozen=True, slots=True)
class _Trtexecs:
    """What the trtexecs of a target say of themselves."""

    builders: tuple[BuilderFact, ...]
    silent: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]


def _trtexecs(
    answers: _Answers, libraries: Sequence[TensorRTVersion], python: PythonFact | None
) -> _Trtexecs:
    """Read what each trtexec says of itself.

    One that names no version, as before TensorRT 8, has that of the system's library if it lies
    under /usr, where the debs put it. One that does not start builds nothing.
    """
    builders, silent, broken = [], [], []
    for line in answers.get("trtexec", ()):
        path, _, banner = line.partition("\t")
        version = _version(banner)
        if version is None and banner and not _RUNNING.search(banner):
            broken.append((path, banner))
            continue
        if version is None:
            silent.append(path)
            if path.startswith("/usr/"):
                old = [one for one in libraries if one.major < _FIRST_NAMING_ITSELF]
                version = max(old or libraries, default=None)
        builders.append(
            BuilderFact(name="trtexec", path=path, tensorrt=_with_build(version, libraries, python))
        )
    return _Trtexecs(tuple(builders), tuple(silent), tuple(broken))


def _with_build(
    version: TensorRTVersion | None,
    libraries: Sequence[TensorRTVersion],
    python: PythonFact | None,
) -> TensorRTVersion | None:
    """Add the build number, where the deb or Python's package of the same patch agree on one.

    Older banners, and debs before 8.6.2, have three fields; Python's package has four.
    """
    if version is None or version.build is not None:
        return version
    packaged = _version(python.tensorrt or "") if python is not None else None
    same_patch = {
        known
        for known in (*libraries, packaged)
        if known is not None
        and known.build is not None
        and known.major_minor_patch == version.major_minor_patch
    }
    return same_patch.pop() if len(same_patch) == 1 else version


def _version(text: str) -> TensorRTVersion | None:
    try:
        return parse_tensorrt(text)
    except InputError:
        return None


def _text(version: TensorRTVersion | None) -> str | None:
    return None if version is None else str(version)
