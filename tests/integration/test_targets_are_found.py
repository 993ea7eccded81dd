"""The platform tables, and what else is no Python, are found however edgecal was installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from edgecal.adapters.tables import load_platforms

REPOSITORY = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet")
COUNT = (
    "import edgecal; from importlib.resources import files; "
    "from edgecal.adapters.scripts import load_scripts; "
    "from edgecal.adapters.tables import load_platforms; "
    "assert load_scripts().agent and (files('edgecal') / 'demo_data' / 'fashion.zip').is_file(); "
    "print(edgecal.__file__, len(load_platforms().modules))"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Copy what a build needs, so that no artefact is left in the checkout."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    for name in ("edgecal", "targets"):
        shutil.copytree(
            REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return copy


def run(*argv: str, cwd: Path, pythonpath: Path | None = None) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if pythonpath is not None:
        env["PYTHONPATH"] = str(pythonpath)
    result = subprocess.run(
        argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def expected(package: Path) -> str:
    return f"{package / 'edgecal' / '__init__.py'} {len(load_platforms().modules)}\n"


def test_a_checkout_finds_its_tables(tree: Path, tmp_path: Path) -> None:
    found = run(sys.executable, "-c", COUNT, cwd=elsewhere(tmp_path), pythonpath=tree)
    assert found == expected(tree)


def test_a_wheel_carries_its_tables(tree: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    run(*PIP, "wheel", *OFFLINE, "--wheel-dir", str(tmp_path), str(tree), cwd=tmp_path)
    (wheel,) = tmp_path.glob("edgecal-*.whl")
    shutil.rmtree(tree)  # nothing may be read from there any more
    run(*PIP, "install", *OFFLINE, "--target", str(site), str(wheel), cwd=tmp_path)
    found = run(sys.executable, "-c", COUNT, cwd=elsewhere(tmp_path), pythonpath=site)
    assert found == expected(site)


def test_an_editable_install_finds_the_tables_of_its_checkout(tree: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    # The new environment borrows the packages of this one: hatchling now, numpy when it runs.
    # The name sorts last, so that an edgecal installed here stays in the shade.
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (site,) = (home / "lib").glob("python*/site-packages")
    (site / "zz_borrowed.pth").write_text("\n".join(borrowed), "utf-8")
    run(*PIP, "--python", str(python), "install", *OFFLINE, "--editable", str(tree), cwd=tmp_path)
    found = run(str(python), "-c", COUNT, cwd=elsewhere(tmp_path))
    assert found == expected(tree)
