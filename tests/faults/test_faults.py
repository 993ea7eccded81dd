"""Every row of the fault table, each as a test: what goes wrong, and what is left of it.

All rows on devices of this machine, with real processes and real SIGKILLs; some, or with `--slow`
all, through a real sshd.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.scripts import load_scripts
from tests.faults.bench import Outcome, fake_time, make_workshop
from tests.faults.faults import DISK_FULL, FAULTS, SIGNATURES, TARGETS_CLOCK
from tests.faults.table import Row, read_table
from tests.faults.walk import walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgecal.adapters.loopback import LoopbackServer
    from tests.faults.bench import Workshop

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not all(map(shutil.which, ("setsid", "openssl"))),
    reason="needs Linux, setsid and openssl, as a target has them",
)

ROWS = read_table()
_AT_ONCE = 2
"""A push waits for one command after the other, so a second row has room beside it."""

Walk = tuple[Outcome, str]
"""How the push ended, and what is active afterwards."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each row."""
    if "row" in metafunc.fixturenames:
        rows = ROWS
        if "sshd" in metafunc.function.__name__ and not metafunc.config.getoption("--slow"):
            rows = [row for row in ROWS if row.sshd]
        metafunc.parametrize("row", rows, ids=[row.id for row in rows])


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    # not pytest's own folder, which is closed to the devices' user
    folder = Path(tempfile.mkdtemp(prefix="edgecal-faults-"))
    folder.chmod(0o711)
    made = make_workshop(folder)
    yield made
    made.controllers.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def has_faketime(tmp_path_factory: pytest.TempPathFactory) -> bool:
    clock = tmp_path_factory.mktemp("clock") / "clock"
    clock.write_text("-20y")
    try:
        environment = {**os.environ, **fake_time(clock)}
    except FileNotFoundError:
        works = False
    else:
        done = subprocess.run(["date", "+%Y"], env=environment, capture_output=True, check=True)
        works = int(done.stdout) < 2020
    if not works and os.environ.get("EDGECAL_REQUIRE_FAKETIME") == "1":
        pytest.fail("faketime is not here, or does not work")
    return works


@pytest.fixture(scope="session")
def walks(
    workshop: Workshop, request: pytest.FixtureRequest, *, has_faketime: bool
) -> Iterator[dict[str, Future[Walk]]]:
    """Every row that was asked for, being walked on devices of this machine."""
    asked = []
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == test_local.__name__:
            row = item.callspec.params["row"]
            assert isinstance(row, Row)
            asked.append(row)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {
            row.id: pool.submit(walk, workshop, row, workshop.folder / f"row {number}")
            for number, row in enumerate(asked)
            if has_faketime or row.fault != TARGETS_CLOCK
        }
        pool.shutdown(cancel_futures=True)


def check(row: Row, walked: Walk) -> None:
    outcome, active = walked
    assert (active, outcome.state, outcome.code, outcome.exit_code) == (
        row.active,
        row.state,
        row.code,
        row.exit,
    ), outcome
    assert any(words in outcome.said for words in row.words.split("|")), outcome.said
    assert "try: " in outcome.said or row.exit <= 0


def test_every_row_is_there_once_and_every_kind_of_fault() -> None:
    counts = Counter(row.id for row in ROWS)
    assert [name for name, count in counts.items() if count > 1] == []
    assert {row.fault for row in ROWS} == {*FAULTS, *SIGNATURES}
    assert 12 <= sum(row.sshd for row in ROWS) <= 16


def test_no_row_leaves_the_target_without_an_engine() -> None:
    assert {row.active for row in ROWS} <= {"old", "new", "other"}
    for row in ROWS:
        assert (row.state == "active") <= (row.active == "new"), row
        assert (row.exit == 0) == (row.state == "active"), row


def test_every_step_of_the_agent_that_a_push_takes_has_a_kill_of_its_own() -> None:
    killed = {row.place for row in ROWS if row.fault == "target process killed"}
    agent = load_scripts().agent
    steps = {line.split()[2] for line in agent.splitlines() if line.strip().startswith(": step ")}
    others = {place for place in killed if place not in steps}
    elsewhere = {
        # pruning, and going back after a health check that failed or for a rollout's sake: not on
        # the way of a push
        *("lock-prune", "remove-folders", "remove-blob", "rename-gone"),
        *("go-back", "lock-deactivate", "deactivate"),
    }
    assert steps - killed == elsewhere
    assert others == {
        *("receive-write", "receive-rename", "judge", "keep-counter"),
        *("run-engine", "trtexec-build", "trtexec-run"),
    }


def test_local(row: Row, walks: dict[str, Future[Walk]]) -> None:
    if row.id not in walks:
        pytest.skip("needs faketime")
    check(row, walks[row.id].result())


@pytest.fixture(scope="module")
def server(
    workshop: Workshop, start_sshd: Callable[..., LoopbackServer]
) -> Iterator[LoopbackServer]:
    path = f"{workshop.folder / 'bin'}:{os.environ['PATH']}"
    with start_sshd(workshop.folder / "sshd", PATH=path) as made:
        yield made


@pytest.fixture(scope="module")
def server_in_time(
    workshop: Workshop, start_sshd: Callable[..., LoopbackServer], *, has_faketime: bool
) -> Iterator[LoopbackServer]:
    """A real sshd whose sessions tell the time that a file says."""
    if not has_faketime:
        pytest.skip("needs faketime")
    workshop.clock.write_text("+0")
    path = f"{workshop.folder / 'bin'}:{os.environ['PATH']}"
    with start_sshd(
        workshop.folder / "sshd in time", PATH=path, **fake_time(workshop.clock)
    ) as made:
        yield made


def test_over_sshd(row: Row, workshop: Workshop, request: pytest.FixtureRequest) -> None:
    if not workshop.mounts and (
        row.fault == DISK_FULL or (row.fault == "permission denied" and os.geteuid() == 0)
    ):
        pytest.skip("needs the right to mount, where the login is root's")
    name = "server_in_time" if row.fault == TARGETS_CLOCK else "server"
    number = ROWS.index(row)
    walked = walk(
        workshop, row, workshop.folder / f"sshd row {number}", request.getfixturevalue(name)
    )
    check(row, walked)
