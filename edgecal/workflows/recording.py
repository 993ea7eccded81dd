"""What is written down of a build: the text of `build.json`, which lies beside the engine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgecal import __version__
from edgecal.core.build import count_entries
from edgecal.core.manifest import SCALES_FILE, digest_of
from edgecal.workflows.world import utc_text

if TYPE_CHECKING:
    from edgecal.core.verification import Verification
    from edgecal.workflows.building import Built
    from edgecal.workflows.plan import Plan
    from edgecal.workflows.site import Site


def record_of(
    plan: Plan,
    built: Built,
    site: Site,
    *,
    release: str,
    identity: str,
    verification: Verification,
) -> dict[str, Any]:
    """Write down what was built from what, by whom, and how it was judged.

    Parameters
    ----------
    identity
        Name that a release of this content has unless it is a second one beside the first.
    """
    manifest, result = plan.bundle.manifest, built.result
    return {
        "schema": "edgecal.build/1",
        "release": release,
        "identity": identity,
        "name": plan.name,
        "bundle": {
            "name": manifest.name,
            "manifest": plan.bundle.manifest_digest,
            "tensorrt": str(manifest.tensorrt),
            "restamped_from": str(manifest.restamped_from) if manifest.restamped_from else None,
            "created": manifest.created.isoformat(),
            "counter": manifest.counter,
        },
        "cache": {
            "bundled": manifest.files[SCALES_FILE[manifest.form]].digest,
            "built_from": digest_of(plan.cache) if plan.cache is not None else None,
            **count_entries(result),
        },
        "builder": {
            "name": plan.builder.name,
            "path": plan.builder.path,
            "tensorrt": str(plan.builder.tensorrt) if plan.builder.tensorrt else None,
        },
        "argv": list(plan.argv),
        "options": asdict(plan.options),
        "engine": {"file": plan.kind.engine_file, "digest": built.digest},
        "proof": {"verdict": result.proof.value, "reason": result.reason},
        "missing": list(result.missing or ()),
        "unused": list(result.unused or ()),
        "layers": {
            "precisions": result.precisions,
            "fell_back": list(result.fell_back),
            "fp16": list(plan.request.fp16_layers),
        },
        "files": {name: file.digest for name, file in plan.files.items()},
        "target": {
            "l4t": site.facts.l4t,
            "module": site.facts.module or site.facts.model,
            "power_mode": site.facts.power_mode,
        },
        "verification": {**verification.to_json(), "time": utc_text(site.world.now())},
        "latency": site.report.to_json()["latency"],
        "built": built.time,
        "seconds": round(built.seconds, 3),
        "by": site.world.owner,
        "edgecal": __version__,
    }
