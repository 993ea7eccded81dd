"""Calibrate INT8 networks on a host; let each target build, prove and activate its own engine.

What a command can do, the library can do without it. Names are imported when they are first used,
so that `import edgecal` costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgecal.adapters.onnx_model import read_model
    from edgecal.adapters.qdq import write_qdq
    from edgecal.adapters.qdq_reader import read_qdq
    from edgecal.adapters.scale_files import read_scales, write_scales
    from edgecal.core.build import BuildOptions
    from edgecal.core.cache import CalibrationCache, parse_cache, serialize_cache
    from edgecal.core.cache_diff import CacheDiff, diff_caches
    from edgecal.core.conversion import ScaleSet
    from edgecal.core.document import Document, cache_of, read_document
    from edgecal.core.edits import Edits, edit_cache
    from edgecal.core.fill import fill_cache
    from edgecal.core.findings import Finding, Severity
    from edgecal.core.manifest import Manifest, parse_manifest
    from edgecal.core.merging import merge_caches
    from edgecal.core.oddities import explain_header, judge_scales
    from edgecal.core.preprocess import Preprocess, parse_preprocess
    from edgecal.core.restamp import restamp
    from edgecal.core.target import Target, TargetFacts
    from edgecal.core.versions import TensorRTVersion, parse_tensorrt
    from edgecal.errors import EdgecalError
    from edgecal.workflows.calibrate import calibrate
    from edgecal.workflows.check_cache import check_cache
    from edgecal.workflows.collect import CalibrateOptions
    from edgecal.workflows.push import push
    from edgecal.workflows.report import PushOptions, PushReport
    from edgecal.workflows.targets import list_models, plan_rollback, probe_target, roll_back
    from edgecal.workflows.world import CancelToken, Limits, World

__version__ = "0.1.0"

# ONNX Runtime's packages (1.29 and later) report to Microsoft, unless they find this when loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "BuildOptions",
    "CacheDiff",
    "CalibrateOptions",
    "CalibrationCache",
    "CancelToken",
    "Document",
    "EdgecalError",
    "Edits",
    "Finding",
    "Limits",
    "Manifest",
    "Preprocess",
    "PushOptions",
    "PushReport",
    "ScaleSet",
    "Severity",
    "Target",
    "TargetFacts",
    "TensorRTVersion",
    "World",
    "__version__",
    "cache_of",
    "calibrate",
    "check_cache",
    "diff_caches",
    "edit_cache",
    "explain_header",
    "fill_cache",
    "judge_scales",
    "list_models",
    "merge_caches",
    "parse_cache",
    "parse_manifest",
    "parse_preprocess",
    "parse_tensorrt",
    "plan_rollback",
    "probe_target",
    "push",
    "read_document",
    "read_model",
    "read_qdq",
    "read_scales",
    "restamp",
    "roll_back",
    "serialize_cache",
    "write_qdq",
    "write_scales",
]

_HOMES: Final = {
    "BuildOptions": "edgecal.core.build",
    "CacheDiff": "edgecal.core.cache_diff",
    "CalibrateOptions": "edgecal.workflows.collect",
    "CalibrationCache": "edgecal.core.cache",
    "CancelToken": "edgecal.workflows.world",
    "Document": "edgecal.core.document",
    "EdgecalError": "edgecal.errors",
    "Edits": "edgecal.core.edits",
    "Finding": "edgecal.core.findings",
    "Limits": "edgecal.workflows.world",
    "Manifest": "edgecal.core.manifest",
    "Preprocess": "edgecal.core.preprocess",
    "PushOptions": "edgecal.workflows.report",
    "PushReport": "edgecal.workflows.report",
    "ScaleSet": "edgecal.core.conversion",
    "Severity": "edgecal.core.findings",
    "Target": "edgecal.core.target",
    "TargetFacts": "edgecal.core.target",
    "TensorRTVersion": "edgecal.core.versions",
    "World": "edgecal.workflows.world",
    "cache_of": "edgecal.core.document",
    "calibrate": "edgecal.workflows.calibrate",
    "check_cache": "edgecal.workflows.check_cache",
    "diff_caches": "edgecal.core.cache_diff",
    "edit_cache": "edgecal.core.edits",
    "explain_header": "edgecal.core.oddities",
    "fill_cache": "edgecal.core.fill",
    "judge_scales": "edgecal.core.oddities",
    "list_models": "edgecal.workflows.targets",
    "merge_caches": "edgecal.core.merging",
    "parse_cache": "edgecal.core.cache",
    "parse_manifest": "edgecal.core.manifest",
    "parse_preprocess": "edgecal.core.preprocess",
    "parse_tensorrt": "edgecal.core.versions",
    "plan_rollback": "edgecal.workflows.targets",
    "probe_target": "edgecal.workflows.targets",
    "push": "edgecal.workflows.push",
    "read_document": "edgecal.core.document",
    "read_model": "edgecal.adapters.onnx_model",
    "read_qdq": "edgecal.adapters.qdq_reader",
    "read_scales": "edgecal.adapters.scale_files",
    "restamp": "edgecal.core.restamp",
    "roll_back": "edgecal.workflows.targets",
    "serialize_cache": "edgecal.core.cache",
    "write_qdq": "edgecal.adapters.qdq",
    "write_scales": "edgecal.adapters.scale_files",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgecal' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
