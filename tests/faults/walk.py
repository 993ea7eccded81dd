"""Walks one row of the fault table: a push into its fault, what is left, and the push after it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.faults.bench import TRIAL, Bench, Outcome
from tests.faults.faults import (
    CONTROLLERS_CLOCK,
    DISK_FULL,
    FAULTS,
    SIGNATURES,
    TARGETS_CLOCK,
    heal,
)

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.loopback import LoopbackServer
    from tests.faults.bench import Workshop
    from tests.faults.table import Row


def walk(
    workshop: Workshop, row: Row, folder: Path, server: LoopbackServer | None = None
) -> tuple[Outcome, str]:
    """Give how the push ended, and what is active afterwards.

    Whatever happens, the next plain push ends with the new release active; or is refused as this
    one was, where the signature is to blame.
    """
    small = row.fault == DISK_FULL and workshop.mounts
    with contextlib.closing(
        Bench(workshop, folder, place=row.place, server=server, small=small)
    ) as bench:
        if row.fault == TARGETS_CLOCK:
            bench.targets_clock = folder / "clock" if server is None else workshop.clock
            bench.targets_clock.write_text("+0")
        if row.fault == CONTROLLERS_CLOCK:
            bench.controllers_clock = folder / "clock"
            bench.controllers_clock.write_text("+0y")
        if row.fault in SIGNATURES:
            return _walk_signature(bench, row)
        controller = bench.push(stops=True)
        pid = bench.breakpoint.wait(controller)
        assert pid is not None, (row.id, "no push comes by there", controller.outcome())
        FAULTS[row.fault](bench, controller, pid)
        outcome = controller.outcome()
        if row.place not in TRIAL:  # which goes on for a minute for want of a controller
            bench.settle()
        active = bench.check()
        heal(bench)
        again = bench.push().outcome()
        assert (again.state, again.exit_code) == ("active", 0), again
        bench.settle()
        assert bench.check() == "new"
        return outcome, active


def _walk_signature(bench: Bench, row: Row) -> tuple[Outcome, str]:
    bundle, prepare = SIGNATURES[row.fault]
    prepare(bench)
    outcome = bench.push(bundle).outcome()
    assert bench.push(bundle).outcome() == outcome
    bench.settle()
    return outcome, bench.check()
