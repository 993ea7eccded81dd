"""The `tensorrt` builder: build options to its argv, its own account of a build to a build result.

The script, `target_scripts/tensorrt_builder.py`, gives TensorRT a calibrator that has nothing but
the cache. So it knows what a log alone leaves open: whether TensorRT read the cache, and whether it
then wanted data, which it does only where it refused it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from edgecal.core import trtexec, trtexec_log
from edgecal.core.build import BuildResult, Proof

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgecal.core.build import BuildRequest

SCRIPT: Final = "tensorrt_builder.py"
ENGINE_FILE: Final = trtexec.ENGINE_FILE
MARK: Final = "edgecal-builder: "
"""Ahead of every line of the account; TensorRT's own lines never begin so."""

_TYPES: Final = {
    "int8": "Int8",
    "fp16": "Half",
    "half": "Half",
    "fp32": "Float",
    "float": "Float",
    "bf16": "BF16",
    "bfloat16": "BF16",
    "fp8": "FP8",
    "int32": "Int32",
    "int64": "Int64",
    "bool": "Bool",
    "uint8": "UInt8",
}
_REFUSALS: Final = ("refused", "unread")
"""What the script calls it when TensorRT did not take the cache."""
_WORD = re.compile(r"[A-Za-z]+[0-9]*")


def build_argv(request: BuildRequest) -> tuple[str, ...]:
    """Say how to build; without a cache, a network's own Q/DQ nodes are what makes INT8."""
    options = request.options
    precision = "fp16" if not options.int8 else "qdq" if request.cache_file is None else "int8"
    argv = [
        *(request.builder.path, "-u", SCRIPT, "build"),
        f"--model={request.model_file}",
        f"--engine={ENGINE_FILE}",
        f"--precision={precision}",
    ]
    if precision == "int8":
        argv.append(f"--calibration-cache={request.cache_file}")
    if not options.fp16:
        argv.append("--no-fp16")
    if options.dla_core is not None:
        argv.append(f"--dla={options.dla_core}")
        if options.gpu_fallback:
            argv.append("--gpu-fallback")
    if options.workspace_mib is not None:
        argv.append(f"--workspace-mib={options.workspace_mib}")
    if request.timing_cache is not None:
        argv.append(f"--timing-cache={request.timing_cache}")
    if precision == "int8":  # else nothing runs in INT8, or what does the network itself says
        argv += [f"--fp16-layer={name}" for name in request.fp16_layers]
    for name, shapes in request.profile().items():
        three = (shapes.least, shapes.usual, shapes.largest)
        argv.append(f"--shape={name}={','.join('x'.join(map(str, one)) for one in three)}")
    return tuple(argv)


def run_argv(request: BuildRequest, *, spec: str, output: str, bench: int = 0) -> tuple[str, ...]:
    """Say how to run the engine on all golden inputs.

    Parameters
    ----------
    bench
        So many runs more, timed one by one.
    """
    dla = request.options.dla_core
    return (
        *(request.builder.path, "-u", SCRIPT, "run"),
        f"--engine={ENGINE_FILE}",
        f"--runs={spec}",
        f"--output={output}",
        *(() if dla is None else (f"--dla={dla}",)),
        *((f"--bench={bench}",) if bench else ()),
    )


def read_log(lines: Iterable[str], *, entries: Sequence[str]) -> BuildResult:
    """Take the builder's own account, and what TensorRT's log says beside it.

    Parameters
    ----------
    lines
        Of the log, in order.
    entries
        Tensors of the cache.
    """
    kept = list(lines)
    account = _account(kept)
    said = trtexec_log.read_log(kept, entries=entries)
    proof, reason = _weigh(account, said)
    # what the network holds is known even where the log does not say which scales were taken
    if account.tensors and proof is not Proof.NOT_APPLICABLE:
        tensors, has_entry = account.tensors, set(entries)
        known = set(tensors)
        if said.used is None:
            said = replace(said, used=tuple(name for name in entries if name in known))
        if not said.missing:
            missing = (name for name in dict.fromkeys(tensors) if name not in has_entry)
            said = replace(said, missing=tuple(missing))
        said = replace(said, unused=tuple(name for name in entries if name not in known))
    layers = _count_types(account.layers)
    return replace(said, proof=proof, reason=reason, precisions=layers or said.precisions)


@dataclass(slots=True)
class _Account:
    """The builder's lines, read."""

    start: Mapping[str, Any] = field(default_factory=dict)
    built: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    tensors: list[str] = field(default_factory=list)
    """Those of the network that hold floats."""
    layers: list[object] = field(default_factory=list)


def _account(lines: Iterable[str]) -> _Account:
    """Gather the builder's lines; one that a full disk or a lost power supply cut short is none."""
    found = _Account()
    for line in lines:
        if not line.startswith(MARK):
            continue
        try:
            fields = json.loads(line.removeprefix(MARK))
        except (ValueError, RecursionError):
            continue
        match fields:
            case {"event": "start" | "built" | "failure" as event}:
                setattr(found, event, fields)
            case {"event": "tensors", "items": [*items]}:
                found.tensors += [one for one in items if isinstance(one, str)]
            case {"event": "layers", "items": [*items]}:
                found.layers += items
            case _:
                continue
    return found


def _weigh(account: _Account, said: BuildResult) -> tuple[Proof, str]:
    if account.failure is not None:
        refuted = account.failure.get("code") in _REFUSALS
        what = str(account.failure.get("what"))[:300]
        return Proof.REFUTED if refuted else Proof.UNPROVEN, f"the builder says: {what}"
    if account.start.get("precision") in {"fp16", "qdq"}:
        return Proof.NOT_APPLICABLE, "the engine was built without a calibration cache"
    if said.proof is Proof.REFUTED:
        return said.proof, said.reason
    if account.built is None:
        return Proof.UNPROVEN, "the tensorrt builder gave no account of what it built"
    reads = account.built.get("cache_reads")
    if not isinstance(reads, int) or reads < 1:
        return Proof.REFUTED, "TensorRT never read the calibration cache"
    return Proof.PROVED, "TensorRT read the cache and never asked its calibrator for data"


def _count_types(layers: Iterable[object]) -> dict[str, int]:
    """Count layers by the type of their first output, whose words differ by version."""
    counts: Counter[str] = Counter()
    for layer in layers:
        match layer:
            case [_, _, [str(text), *_]]:
                words = (word.lower() for word in _WORD.findall(text[:200]))
                counts[next((_TYPES[word] for word in words if word in _TYPES), "unknown")] += 1
            case _:
                continue
    return dict(sorted(counts.items()))
