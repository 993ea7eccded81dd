"""What `import edgecal` offers is there, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edgecal

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", edgecal.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(edgecal, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = edgecal.nonsense


def test_importing_edgecal_imports_nothing_heavy() -> None:
    code = "import sys, edgecal; print({'numpy', 'onnx', 'paramiko', 'typer'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
