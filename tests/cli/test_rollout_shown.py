"""What people read of rollouts: drafts and standings of thousands of devices stay readable."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgecal.cli.rollout.documents import draft_document
from edgecal.cli.rollout.shown import show_draft, show_rollout
from edgecal.cli.rollout.standing import Standing
from edgecal.core.findings import Finding, Severity
from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.machine import advance
from edgecal.core.rollout.state import Fault, Plan, Policy, begin
from edgecal.errors import ConnectError
from edgecal.ports import JournalRow
from edgecal.workflows.report import PushReport
from edgecal.workflows.rollout.draft import Draft

NAMES = tuple(f"camera-{number:04}" for number in range(5000))
OFF = NAMES[3000:3100]
OLD = NAMES[4000:4100]


def finding(rule: str, severity: Severity, target: str) -> Finding:
    return Finding(
        rule=rule,
        severity=severity,
        subject=target,
        message=f"{target} \x1b[2J[red]",
        remedy="mend it",
    )


def draft() -> Draft:
    """Five thousand devices: a hundred are off, a hundred refused, and a rule warns of the rest."""
    reports = {
        name: PushReport(target=name, state="planned", bytes_to_send=1000, to_build=True)
        for name in NAMES
    }
    for name in NAMES:
        reports[name].findings = (
            finding("scale-suspicious", Severity.WARNING, name),
            finding("source-not-checked", Severity.NOTE, name),
        )
    for name in OFF:
        reports[name] = PushReport(
            target=name,
            state="unreachable",
            error=ConnectError("no route to host", where=name, remedy="plug it in"),
        )
    for name in OLD:
        reports[name].findings = (finding("tensorrt-version", Severity.ERROR, name),)
        reports[name].state = "refused"
    left = [name for name in NAMES if name not in OLD]
    return Draft(
        plan=Plan(
            rollout="net-1",
            bundles=("sha256:00",),
            waves=((left[0],), tuple(left[1:490]), tuple(left[490:])),
            refused=dict.fromkeys(OLD, ("tensorrt-version",)),
            policy=Policy(soak_ms=60_000, pause_after=frozenset({0, 2})),
        ),
        reports=reports,
    )


def drawn(*, verbose: bool, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, soft_wrap=True, highlight=False)
    show_draft(console, draft(), verbose=verbose)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_draft_of_five_thousand_devices_fits_on_a_screen() -> None:
    text = drawn(verbose=False)
    assert len(text.splitlines()) < 30
    for words in (
        "net-1: 4900 devices in 3 waves, 4.8 MB to send, 4800 engines to build",
        "refused, and in no wave: 100 devices",
        "tensorrt-version: camera-4000, camera-4001",
        "not known yet: 100 devices",
        "and waited for 1d if it is offline then",
        "connect: camera-3000",
        "warning scale-suspicious: camera-0000",
        "after wave 1 it waits until a person promotes",
        "between waves it soaks for 1m",
    ):
        assert words in text
    assert "source-not-checked" not in text
    assert "note source-not-checked" in drawn(verbose=True)
    assert "camera-4999" in drawn(verbose=True)


@pytest.mark.parametrize("width", [80, 200])
def test_what_rules_say_of_devices_cannot_move_the_cursor(width: int) -> None:
    text = drawn(verbose=False, width=width)
    assert "\x1b" not in text
    assert r"\x1b[2J[red]" in text


def test_the_document_of_a_draft_has_every_device_and_the_sums() -> None:
    document = draft_document(draft())
    assert len(document["targets"]) == 5000
    assert [one["bytes_to_send"] for one in document["waves"]] == [1000, 489_000, 4_310_000]
    assert document["counts"] == {"pending": 4900, "refused": 100}


def test_of_many_devices_that_are_not_fine_some_are_named_and_the_rest_counted() -> None:
    plan = Plan(
        rollout="net-1",
        bundles=("x",),
        waves=(NAMES[:60],),
        refused={},
        policy=Policy(in_flight=60),
    )
    rollout = advance(begin(plan), Event(kind=Kind.WAVE_STARTED, at_ms=0, wave=0))
    fault = Fault(code="build", what="it fails", remedy="read the log")
    for name in NAMES[:60]:
        rollout = advance(rollout, Event(kind=Kind.PUSH_STARTED, at_ms=0, target=name))
        ended = Event(kind=Kind.PUSH_FAILED, at_ms=0, target=name, fault=fault)
        rollout = advance(rollout, ended)
    row = JournalRow(rollout="net-1", created_ms=0, entries=9, digest="d", driver="process 7 on x")
    standing = Standing(rollout=rollout, entries=9, row=row, reason="")

    def said(*, verbose: bool) -> str:
        console = Console(file=io.StringIO(), width=80, soft_wrap=True, highlight=False)
        show_rollout(console, standing, now_ms=0, verbose=verbose)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    text = said(verbose=False)
    assert text.count("it fails") == 20
    assert "and 40 more that are not fine: -v names them" in text
    assert "driven by process 7 on x" in text
    assert text.endswith("to try them again: edgecal rollout retry net-1 --failed\n")
    assert said(verbose=True).count("it fails") == 60
