"""The steps that run a new engine: on the golden inputs to judge it, and for its latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgecal.core.verification import verify_outputs
from edgecal.errors import VerificationError
from edgecal.ports import Bencher
from edgecal.workflows.events import EngineMeasured, EngineVerified, PushEvent, Step, StepDue

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from edgecal.core.verification import Verification
    from edgecal.workflows.plan import Plan
    from edgecal.workflows.site import Site

_OUTPUT: Final = "verify.out"


def verify(plan: Plan, folder: str, site: Site) -> Generator[PushEvent, None, Verification]:
    """Hold the engine in a folder against what the host computed.

    Raises
    ------
    VerificationError
        If an output is worse than the thresholds let it be.
    """
    yield StepDue(Step.VERIFY, f"{len(plan.golden)} golden runs")
    outputs: list[Mapping[str, Any]] = []
    for argv in plan.kind.run_argvs(plan.request, plan.runs, _OUTPUT):
        site.world.cancel.check()
        data = site.device.run_engine(folder, output=_OUTPUT, argv=argv)
        outputs += plan.kind.parse_outputs(data, source=site.target.name)
    verification = verify_outputs(
        plan.golden,
        outputs,
        batch=plan.bundle.manifest.golden.batch,
        thresholds=site.options.thresholds,
        dla=plan.options.dla_core is not None,
        int8=plan.options.int8,
    )
    site.report.verification = verification
    if not verification.passed:
        bad = next(output for output in verification.outputs if not output.passed)
        why = bad.problem or (
            f"cosine to FP32 is {bad.cosine_min:.4f}, at least {bad.threshold:.4f} is needed"
        )
        raise VerificationError(
            f"output {bad.name!r} of the engine is wrong: {why}",
            where=site.target.name,
            remedy="what was active stays active; check the bundle's quality on the host, or "
            "set [verify] margin in edgecal.toml if this is good enough for you",
        )
    yield EngineVerified(verification)
    return verification


def measure(plan: Plan, folder: str, site: Site) -> Iterator[PushEvent]:
    """Measure the engine in a folder, if that was asked for."""
    if not site.options.bench:
        return
    site.world.cancel.check()
    if isinstance(plan.kind, Bencher):
        argv = plan.kind.bench_argv(plan.request, plan.runs[0], _OUTPUT)
        data = site.device.run_engine(folder, output=_OUTPUT, argv=argv)
        site.report.latency = plan.kind.parse_bench(data, source=site.target.name)
    yield EngineMeasured(site.report.latency, site.facts.power_mode)
