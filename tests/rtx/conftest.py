"""Everything here asks TensorRT for RTX."""

from __future__ import annotations

import pytest

from tests.rtx.judge import need_rtx


@pytest.fixture(scope="session", autouse=True)
def rtx() -> None:
    """Skip, or fail where a run was told that the wheels are there."""
    need_rtx()
