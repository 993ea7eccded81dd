"""Calibrate INT8 networks on a host; let each target build, prove and activate its own engine.

What a command can do, the library can do without it. Names are imported when they are first used,
so that `import edgecal` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgecal.core.build import BuildOptions
    from edgecal.core.cache import CalibrationCache, parse_cache, serialize_cache
    from edgecal.core.findings import Finding, Severity
    from edgecal.core.manifest import Manifest, parse_manifest
    from edgecal.core.preprocess import Preprocess, parse_preprocess
    from edgecal.core.target import Target, TargetFacts
    from edgecal.core.versions import TensorRTVersion, parse_tensorrt
    from edgecal.errors import EdgecalError
    from edgecal.workflows.calibrate import calibrate
    from edgecal.workflows.collect import CalibrateOptions
    from edgecal.workflows.push import push
    from edgecal.workflows.report import PushOptions, PushReport
    from edgecal.workflows.targets import list_models, plan_rollback, probe_target, roll_back
    from edgecal.workflows.world import CancelToken, Limits, World

__version__ = "0.1.0"

__all__ = [
    "BuildOptions",
    "CalibrateOptions",
    "CalibrationCache",
    "CancelToken",
    "EdgecalError",
    "Finding",
    "Limits",
    "Manifest",
    "Preprocess",
    "PushOptions",
    "PushReport",
    "Severity",
    "Target",
    "TargetFacts",
    "TensorRTVersion",
    "World",
    "__version__",
    "calibrate",
    "list_models",
    "parse_cache",
    "parse_manifest",
    "parse_preprocess",
    "parse_tensorrt",
    "plan_rollback",
    "probe_target",
    "push",
    "roll_back",
    "serialize_cache",
]

_HOMES: Final = {
    "BuildOptions": "edgecal.core.build",
    "CalibrateOptions": "edgecal.workflows.collect",
    "CalibrationCache": "edgecal.core.cache",
    "CancelToken": "edgecal.workflows.world",
    "EdgecalError": "edgecal.errors",
    "Finding": "edgecal.core.findings",
    "Limits": "edgecal.workflows.world",
    "Manifest": "edgecal.core.manifest",
    "Preprocess": "edgecal.core.preprocess",
    "PushOptions": "edgecal.workflows.report",
    "PushReport": "edgecal.workflows.report",
    "Severity": "edgecal.core.findings",
    "Target": "edgecal.core.target",
    "TargetFacts": "edgecal.core.target",
    "TensorRTVersion": "edgecal.core.versions",
    "World": "edgecal.workflows.world",
    "calibrate": "edgecal.workflows.calibrate",
    "list_models": "edgecal.workflows.targets",
    "parse_cache": "edgecal.core.cache",
    "parse_manifest": "edgecal.core.manifest",
    "parse_preprocess": "edgecal.core.preprocess",
    "parse_tensorrt": "edgecal.core.versions",
    "plan_rollback": "edgecal.workflows.targets",
    "probe_target": "edgecal.workflows.targets",
    "push": "edgecal.workflows.push",
    "roll_back": "edgecal.workflows.targets",
    "serialize_cache": "edgecal.core.cache",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgecal' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
