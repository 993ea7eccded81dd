"""What a target says of itself: the answer of `target_scripts/probe.sh`, read into facts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edgecal.core.target import BuilderFact, PythonFact, TargetFacts
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import CommandError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgecal.core.platforms import Platforms

_MARK: Final = "edgecal:"
_SCHEMA: Final = "1"
_ORT_BUILDER_PYTHON: Final = (3, 10)

_LINE = re.compile(r"(?P<key>[a-z0-9_]+)=(?P<value>.*)", re.DOTALL)
_L4T_RELEASE = re.compile(
    r"R(?P<major>[0-9]{1,4})\b.*?REVISION:\s*(?P<revision>[0-9]+(?:\.[0-9]+)*)"
)
_SOC = re.compile(r"nvidia,(?P<soc>tegra[0-9]+)")
_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+)+")

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
    trtexecs = _trtexecs(answers, libraries, python)
    return TargetFacts(
        root=root,
        root_writable=_claim(answers, "root_writable"),
        is_jetson="nv_tegra_release" in answers or "tegra" in " ".join([model or "", *compatible]),
        tensorrt=next(
            (builder.tensorrt for builder in trtexecs if builder.tensorrt is not None),
            _with_build(max(libraries, default=None), libraries, python),
        ),
        builders=(*trtexecs, *_reference_builder(python)),
        l4t=l4t,
        jetpack=None if release is None else release.jetpack,
        module=None if module is None else module.slug,
        model=model,
        soc=soc,
        compute_capability=None if soc is None else platforms.compute_capability(soc),
        dla_cores=None if module is None else module.dla_cores,
        cuda=_cuda(answers),
        python=python,
        gpu_access=_gpu_access(answers),
        arch=_first(answers, "arch"),
        user=_first(answers, "user"),
        hostname=_first(answers, "hostname"),
        disk_free_bytes=_integer(answers, "disk_free_bytes", source),
        memory_bytes=memory_bytes,
        memory_available_bytes=_integer(answers, "memory_available_bytes", source),
        power_mode=_first(answers, "power_mode"),
        missing_tools=tuple(answers.get("missing_tool", ())),
    )


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


def _gpu_access(answers: _Answers) -> bool | None:
    """Judge by every GPU node that exists; `None` where there is none."""
    states = [node.rpartition(" ")[2] for node in answers.get("gpu_node", ())]
    present = [state for state in states if state != "absent"]
    return all(state == "yes" for state in present) if present else None


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
    )


def _reference_builder(python: PythonFact | None) -> tuple[BuilderFact, ...]:
    if python is None or None in {python.numpy, python.onnx, python.onnxruntime}:
        return ()
    release = tuple(int(field) for field in re.findall(r"[0-9]{1,4}", python.version)[:2])
    if release < _ORT_BUILDER_PYTHON:
        return ()
    return (BuilderFact(name="onnxruntime", path=python.path),)


def _libraries(answers: _Answers) -> list[TensorRTVersion]:
    """Read the versions of the installed libnvinfer debs: `libnvinfer8 8.5.2-1+cuda11.4`."""
    versions = (_version(line.partition(" ")[2]) for line in answers.get("libnvinfer", ()))
    return [version for version in versions if version is not None]


def _trtexecs(
    answers: _Answers, libraries: Sequence[TensorRTVersion], python: PythonFact | None
) -> tuple[BuilderFact, ...]:
    """Read what each trtexec says of itself.

    One that says nothing, as before TensorRT 8, has the version of the system's library if it
    lies under /usr, where the debs put it.
    """
    found = []
    for line in answers.get("trtexec", ()):
        path, _, banner = line.partition("\t")
        version = _version(banner)
        if version is None and path.startswith("/usr/"):
            version = max(libraries, default=None)
        found.append(
            BuilderFact(name="trtexec", path=path, tensorrt=_with_build(version, libraries, python))
        )
    return tuple(found)


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
        and (known.major, known.minor, known.patch) == (version.major, version.minor, version.patch)
    }
    return same_patch.pop() if len(same_patch) == 1 else version


def _version(text: str) -> TensorRTVersion | None:
    try:
        return parse_tensorrt(text)
    except InputError:
        return None


def _text(version: TensorRTVersion | None) -> str | None:
    return None if version is None else str(version)
