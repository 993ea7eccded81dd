"""Which backend calibrates: options of `edgecal calibrate`, and what they come to on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.cli.story import Story
    from edgecal.core.hosts import HostFacts
    from edgecal.core.project import CalibrateDefaults, Project
    from edgecal.core.versions import TensorRTVersion

_PANEL = "Calibration by TensorRT itself"

BackendOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|tensorrt|onnxruntime",
        help="tensorrt: TensorRT's own calibrator, on a GPU of this host; entropy2, minmax, "
        "entropy or legacy. onnxruntime: on the CPU. auto: tensorrt where a place of one is given, "
        "or where this Python has the right one and the GPU can.",
        rich_help_panel=_PANEL,
        show_default="auto",
    ),
]
TrtPythonOption = Annotated[
    str | None,
    typer.Option(
        metavar="PYTHON",
        help="A Python, 3.6 or later, that has the TensorRT to calibrate for: a path, or a name on "
        "the PATH.",
        rich_help_panel=_PANEL,
        show_default="this one",
    ),
]
TrtContainerOption = Annotated[
    str | None,
    typer.Option(
        metavar="IMAGE",
        help="A Docker image that has it; 'edgecal doctor' names one. It is not fetched.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRequest:
    """What the command line says."""

    backend: str | None
    python: str | None
    container: str | None

    @property
    def place(self) -> bool:
        """Tell whether it says where TensorRT lies."""
        return self.python is not None or self.container is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRequest:
    """Calibration by TensorRT, for one version, in one place of a host that can."""

    tensorrt: TensorRTVersion
    host: HostFacts
    python: Path | None
    container: str | None


def settle_backend(
    request: BackendRequest,
    project: Project,
    *,
    algorithm: str,
    versions: Sequence[TensorRTVersion],
    resume: bool,
    story: Story,
) -> NativeRequest | None:
    """Find out, before the work, whether TensorRT calibrates and where; `None` for ONNX Runtime.

    Raises
    ------
    InputError
        If the options contradict each other, or TensorRT has no such algorithm.
    IncompatibleError
        If TensorRT is to calibrate, and this host cannot for that version.
    """
    from rich.markup import escape

    from edgecal.cli.wiring import lookup, machine
    from edgecal.core import backends
    from edgecal.core.trt_job import check_host

    request = _with_defaults(request, project.calibrate, f"{project.source}: [calibrate]")
    choice = backends.choose_backend(
        request.backend or backends.AUTO,
        place=request.place,
        algorithm=algorithm,
        versions=versions,
        package=machine.tensorrt_package(),
        host=machine.host_facts,
        platforms=lookup.platforms(),
    )
    story.detail(escape(f"backend: {choice.backend} ({choice.reason})"))
    if choice.backend != backends.TENSORRT:
        return None
    if resume:
        raise _contradiction(
            "TensorRT calibrates in one go, and cannot go on with a pass that was stopped",
            "--resume",
            "leave --resume out, or use --backend onnxruntime",
        )
    backends.choose_calibrator(algorithm)
    version = backends.the_one_version(versions)
    host = machine.host_facts()
    check_host(host, version, lookup.platforms())
    return NativeRequest(
        tensorrt=version,
        host=host,
        python=None if request.python is None else _python(request.python),
        container=request.container,
    )


def _with_defaults(
    request: BackendRequest, defaults: CalibrateDefaults, source: str
) -> BackendRequest:
    """Fill in what the project says; a place on the command line outweighs one in the project."""
    from edgecal.core.backends import ONNXRUNTIME

    if request.place:
        _check_places(request, "--trt-python and --trt-container")
        if request.backend == ONNXRUNTIME:
            raise _contradiction(
                "--backend onnxruntime runs in this Python, and a place of TensorRT is given",
                "--backend",
                "leave --trt-python and --trt-container out, or use --backend tensorrt",
            )
        return request
    backend = request.backend or defaults.backend
    if backend == ONNXRUNTIME:
        return BackendRequest(backend=backend, python=None, container=None)
    made = BackendRequest(
        backend=backend, python=defaults.trt_python, container=defaults.trt_container
    )
    _check_places(made, source)
    return made


def _python(text: str) -> Path:
    """Tell a path from a name on the PATH, which a `Path` of './python3' would be."""
    path = Path(text).expanduser()
    return path.absolute() if "/" in text else path


def _check_places(request: BackendRequest, where: str) -> None:
    if request.python is not None and request.container is not None:
        raise _contradiction(
            "a Python and a container are given, and TensorRT runs in one of them",
            where,
            "give one",
        )


def _contradiction(what: str, where: str, remedy: str) -> Exception:
    from edgecal.errors import InputError

    return InputError(what, where=where, remedy=remedy)
