"""The builder port over trtexec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecal.core import trtexec, trtexec_files, trtexec_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.core.build import BuildRequest, BuildResult
    from edgecal.core.latency import Latency
    from edgecal.ports import RunFiles


class TrtexecBuilder:
    """NVIDIA's own command-line builder, TensorRT 7.1 to 11."""

    name = "trtexec"
    engine_file = trtexec.ENGINE_FILE

    def support_files(self) -> Mapping[str, bytes]:
        """Need nothing: trtexec comes with JetPack."""
        return {}

    def build_argv(self, request: BuildRequest) -> tuple[str, ...]:
        """Say how to build."""
        return trtexec.build_argv(request)

    def read_log(self, lines: Iterable[str], entries: Sequence[str]) -> BuildResult:
        """Find out from the log what the build used."""
        return trtexec_log.read_log(lines, entries=entries)

    def run_argvs(
        self, request: BuildRequest, runs: Sequence[RunFiles], output: str
    ) -> tuple[tuple[str, ...], ...]:
        """Give one command per golden run."""
        return tuple(
            trtexec.run_argv(request, inputs=run.inputs, shapes=run.shapes, output=output)
            for run in runs
        )

    def parse_outputs(self, data: bytes, *, source: str) -> tuple[dict[str, npt.NDArray[Any]], ...]:
        """Read the outputs of one run."""
        return (trtexec_files.parse_output(data, source=source),)

    def bench_argv(self, request: BuildRequest, run: RunFiles, output: str) -> tuple[str, ...]:
        """Measure with the inputs of one golden run."""
        return trtexec.bench_argv(request, inputs=run.inputs, shapes=run.shapes, output=output)

    def parse_bench(self, data: bytes, *, source: str) -> Latency:
        """Read the times of the runs."""
        return trtexec_files.parse_times(data, source=source)
