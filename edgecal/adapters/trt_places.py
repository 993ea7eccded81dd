"""Where TensorRT runs: this Python, another one, or a container; how the worker starts there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from edgecal.adapters.trt_folder import disk_trouble
from edgecal.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

ASK_DOCKER_S: Final = 30.0
_WORKER: Final = "trt_calibrate.py"
_IN_CONTAINER: Final = "/edgecal"


@dataclass(frozen=True, slots=True)
class ThisPython:
    """Run TensorRT in the Python that runs edgecal, in a process of its own."""


@dataclass(frozen=True, slots=True)
class OtherPython:
    """Run TensorRT in another Python of this host, 3.6 or later: `--trt-python`."""

    path: Path


@dataclass(frozen=True, slots=True)
class InContainer:
    """Run TensorRT in an image that is here already: `--trt-container`."""

    image: str


Place = ThisPython | OtherPython | InContainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start the worker, and the paths that it sees."""

    argv: tuple[str, ...]
    model: str
    folder: str
    container: str | None = None


def launch_worker(place: Place, folder: Path, model: Path) -> Launch:
    """Put the worker into the folder and say how to run it.

    Raises
    ------
    InputError
        If the Python or the image is not there.
    """
    source = resources.files("edgecal") / "host_scripts" / _WORKER
    with disk_trouble(folder):
        (folder / _WORKER).write_bytes(source.read_bytes())
    model = model.resolve()
    if isinstance(place, InContainer):
        docker = _docker_with(place.image)
        # Docker reads a mount as a line of CSV
        if any(sign in str(path) for path in (folder, model.parent) for sign in ',"'):
            raise InputError(
                "Docker cannot mount a folder with a comma or a quote in its name",
                where=str(model.parent),
                remedy="move the model to another folder",
            )
        name = f"edgecal-{folder.name.rpartition('-')[2]}"
        return Launch(
            argv=(
                *(docker, "run", "--rm", "--interactive", "--name", name, "--gpus", "all"),
                *("--network", "none"),
                *("--mount", f"type=bind,src={folder},dst={_IN_CONTAINER}/job"),
                *("--mount", f"type=bind,src={model.parent},dst={_IN_CONTAINER}/model,readonly"),
                *(place.image, "python3", "-u"),
                *(f"{_IN_CONTAINER}/job/{_WORKER}", f"{_IN_CONTAINER}/job/job.json"),
            ),
            model=f"{_IN_CONTAINER}/model/{model.name}",
            folder=f"{_IN_CONTAINER}/job",
            container=name,
        )
    python = sys.executable if isinstance(place, ThisPython) else shutil.which(str(place.path))
    if python is None:
        raise InputError(
            "expected a Python to run, found none",
            where=f"--trt-python {place.path}" if isinstance(place, OtherPython) else "",
            remedy="give the path of a Python 3.6 or later that has tensorrt",
        )
    return Launch(
        argv=(python, "-u", str(folder / _WORKER), str(folder / "job.json")),
        model=str(model),
        folder=str(folder),
    )


def _docker_with(image: str) -> str:
    """Find Docker, and make sure that the image is here: fetching gigabytes is the user's to do."""
    docker = shutil.which("docker")
    if docker is None:
        raise InputError(
            "Docker is not installed",
            where=f"--trt-container {image}",
            remedy="install Docker and NVIDIA's container toolkit, or use --trt-python",
        )
    try:
        done = subprocess.run(
            [docker, "image", "inspect", "--format", "{{.Id}}", image],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_DOCKER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"Docker does not answer: {error}",
            where=f"--trt-container {image}",
            remedy="see 'docker info'",
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[:300]
        absent = "no such image" in said.lower()
        raise InputError(
            "the image is not here" if absent else f"Docker cannot be asked: {said}",
            where=f"--trt-container {image}",
            remedy=f"docker pull {image}" if absent else "see 'docker info'",
        )
    return docker
