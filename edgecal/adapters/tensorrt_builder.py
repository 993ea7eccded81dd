"""The builder port over TensorRT's Python API on the target."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from edgecal.core import tensorrt_builder
from edgecal.core.latency import latency_of
from edgecal.core.npz import read_arrays
from edgecal.errors import BuildError, BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.core.build import BuildRequest, BuildResult
    from edgecal.core.latency import Latency
    from edgecal.ports import RunFiles

_BENCH_RUNS: Final = 200


class TensorRTBuilder:
    """A script of ours over the `tensorrt` package that the target's Python has."""

    name = "tensorrt"
    engine_file = tensorrt_builder.ENGINE_FILE

    def support_files(self) -> Mapping[str, bytes]:
        """Give the script."""
        folder = resources.files("edgecal") / "target_scripts"
        return {tensorrt_builder.SCRIPT: (folder / tensorrt_builder.SCRIPT).read_bytes()}

    def build_argv(self, request: BuildRequest) -> tuple[str, ...]:
        """Say how to build."""
        return tensorrt_builder.build_argv(request)

    def read_log(self, lines: Iterable[str], entries: Sequence[str]) -> BuildResult:
        """Take the builder's own account, and what TensorRT says beside it."""
        return tensorrt_builder.read_log(lines, entries=entries)

    def run_argvs(
        self, request: BuildRequest, runs: Sequence[RunFiles], output: str
    ) -> tuple[tuple[str, ...], ...]:
        """Run all golden inputs in one go."""
        return (tensorrt_builder.run_argv(request, spec=runs[0].spec, output=output),)

    def parse_outputs(self, data: bytes, *, source: str) -> tuple[dict[str, npt.NDArray[Any]], ...]:
        """Read the outputs of all runs."""
        arrays = _read(data, source)
        try:
            names = [str(name) for name in arrays["names"]]
            numbers = {int(key.partition("/")[0]) for key in arrays if "/" in key}
            return tuple(
                {name: arrays[f"{run}/{position}"] for position, name in enumerate(names)}
                for run in range(len(numbers))
            )
        except (KeyError, ValueError, TypeError) as error:
            raise _unreadable(f"it lacks {error}", source) from error

    def bench_argv(self, request: BuildRequest, run: RunFiles, output: str) -> tuple[str, ...]:
        """Measure with the inputs of one golden run."""
        return tensorrt_builder.run_argv(request, spec=run.spec, output=output, bench=_BENCH_RUNS)

    def parse_bench(self, data: bytes, *, source: str) -> Latency:
        """Read the times of the runs."""
        arrays = _read(data, source)
        try:
            return latency_of(arrays["latency_ms"].tolist())
        except (KeyError, ValueError, TypeError) as error:
            raise _unreadable(f"no latencies: {error}", source) from error


def _read(data: bytes, source: str) -> dict[str, npt.NDArray[Any]]:
    try:
        return read_arrays(data, source=source)
    except BundleError as error:
        raise _unreadable(error.what, source) from error


def _unreadable(why: str, source: str) -> BuildError:
    return BuildError(
        f"cannot read what the tensorrt builder wrote as output: {why}",
        where=source,
        remedy="look at verify.log in the release's folder on the target",
    )
