"""The builder port over ONNX Runtime on the target: every step for real where no TensorRT is."""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.reference import read_log
from edgecal.errors import BuildError

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
    "core/versions.py",
    "adapters/__init__.py",
    "adapters/onnx_model.py",
    "adapters/qdq.py",
    "target_scripts/__init__.py",
    "target_scripts/reference_builder.py",
)


class ReferenceBuilder:
    """An INT8 Q/DQ network made on the target from the shipped cache."""

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
        """Say how to build."""
        return (
            request.builder.path,
            _ARCHIVE,
            "build",
            request.model_file,
            request.cache_file,
            self.engine_file,
        )

    def read_log(self, lines: Iterable[str], entries: Sequence[str]) -> BuildResult:
        """Take the builder's own account."""
        return read_log(lines, entries=entries)

    def run_argvs(
        self, request: BuildRequest, runs: Sequence[RunFiles], output: str
    ) -> tuple[tuple[str, ...], ...]:
        """Run all golden inputs in one go."""
        return ((request.builder.path, _ARCHIVE, "run", self.engine_file, runs[0].spec, output),)

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
