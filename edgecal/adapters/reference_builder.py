"""The builder port over ONNX Runtime on the target: every step for real where no TensorRT is."""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.reference import read_log
from edgecal.errors import BuildError, IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.core.build import BuildRequest, BuildResult
    from edgecal.ports import RunFiles

_ARCHIVE: Final = "reference.pyz"
_MODULES: Final = (
    "__init__.py",
    "errors.py",
    "core/__init__.py",
    "core/build.py",
    "core/cache.py",
    "core/graph.py",
    "core/manifest.py",
    "core/placement.py",
    "core/quant.py",
    "core/reference.py",
    "core/shapes.py",
    "core/versions.py",
    "adapters/__init__.py",
    "adapters/float32.py",
    "adapters/onnx_checks.py",
    "adapters/onnx_digest.py",
    "adapters/onnx_errors.py",
    "adapters/onnx_graph.py",
    "adapters/onnx_model.py",
    "adapters/onnx_order.py",
    "adapters/onnx_outline.py",
    "adapters/onnx_weights.py",
    "adapters/other_networks.py",
    "adapters/plugins.py",
    "adapters/protobuf_schemas.py",
    "adapters/qdq.py",
    "target_scripts/__init__.py",
    "target_scripts/reference_builder.py",
)


class ReferenceBuilder:
    """An INT8 Q/DQ network: made on the target from the shipped cache, or shipped as such."""

    name = "onnxruntime"
    engine_file = "model.int8.onnx"

    def support_files(self) -> Mapping[str, bytes]:
        """Give a zipapp of the modules it takes; the same bytes for the same edgecal."""
        package = resources.files("edgecal")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in _MODULES:
                _add(archive, f"edgecal/{name}", package.joinpath(name).read_bytes())
            _add(
                archive,
                "__main__.py",
                b"from edgecal.target_scripts.reference_builder import main\n\nmain()\n",
            )
        return {_ARCHIVE: buffer.getvalue()}

    def build_argv(self, request: BuildRequest) -> tuple[str, ...]:
        """Say how to build; a network that carries its scales is taken as it is.

        Raises
        ------
        IncompatibleError
            If there is nothing to make INT8 of.
        """
        if not request.options.int8:
            raise IncompatibleError(
                "the reference builder makes INT8 networks, and nothing else",
                where=request.builder.path,
                remedy="leave out --precision fp16, or build with trtexec or tensorrt",
            )
        return (
            request.builder.path,
            _ARCHIVE,
            "build",
            request.model_file,
            self.engine_file,
            *(() if request.cache_file is None else (request.cache_file,)),
        )

    def read_log(self, lines: Iterable[str], entries: Sequence[str]) -> BuildResult:
        """Take the builder's own account."""
        return read_log(lines, entries=entries)

    def run_argvs(
        self, request: BuildRequest, runs: Sequence[RunFiles], output: str
    ) -> tuple[tuple[str, ...], ...]:
        """Run all golden inputs in one go."""
        argv = (request.builder.path, _ARCHIVE, "run", self.engine_file, runs[0].spec, output)
        return ((*argv, "--as-written") if request.cache_file is None else argv,)

    def parse_outputs(self, data: bytes, *, source: str) -> tuple[dict[str, npt.NDArray[Any]], ...]:
        """Read the outputs of all runs."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                names = [str(name) for name in file["names"]]
                count = (len(file.files) - 1) // len(names)
                return tuple(
                    {name: file[f"{run}/{position}"] for position, name in enumerate(names)}
                    for run in range(count)
                )
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise BuildError(
                f"cannot read what the reference builder wrote as output: {error}",
                where=source,
                remedy="look at verify.log in the release's folder on the target",
            ) from error


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # of 1980: the archive's digest must not hang on file times
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)
