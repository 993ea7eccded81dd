"""Rollouts as JSON documents: `edgecal.rollout/1`."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from edgecal.cli.rollout.faults import remedy
from edgecal.core.rollout.counts import counts, wave_counts
from edgecal.core.rollout.state import DevicePhase, Phase
from edgecal.core.rollout.wording import spell_duration, spell_gate

if TYPE_CHECKING:
    from edgecal.core.rollout.state import Device, Plan, Rollout
    from edgecal.ports import JournalRow
    from edgecal.workflows.rollout.draft import Draft

SCHEMA: Final = "edgecal.rollout/1"


def rollout_document(rollout: Rollout, *, entries: int) -> dict[str, Any]:
    """Spell how a rollout stands.

    Parameters
    ----------
    entries
        How many entries of the journal say so.
    """
    plan = rollout.plan
    targets = [_target(name, device) for name, device in rollout.devices.items()]
    return {
        "schema": SCHEMA,
        "id": plan.rollout,
        "state": rollout.phase.value,
        "waves": [
            {
                "wave": at + 1,
                "state": wave_state(rollout, at),
                "devices": len(wave),
                "counts": wave_counts(rollout, at),
            }
            for at, wave in enumerate(plan.waves)
        ],
        "targets": [*targets, *(_left_out(plan, name) for name in plan.refused)],
        "counts": counts(rollout),
        "policy": _policy(plan),
        "bundles": list(plan.bundles),
        "entries": entries,
    }


def wave_state(rollout: Rollout, wave: int) -> str:
    """Say where a wave stands."""
    if wave == rollout.failed_wave:
        return "failed"
    if wave in rollout.excused:
        return "excused"
    if wave > rollout.wave:
        return "pending"
    if wave < rollout.wave or rollout.passed_ms is not None:
        return "passed"
    return "halted" if rollout.phase is Phase.HALTED else "running"


def draft_document(draft: Draft) -> dict[str, Any]:
    """Spell a rollout that has not begun, in the same form, with what a dry run found."""
    plan = draft.plan
    waves = {name: at + 1 for at, wave in enumerate(plan.waves) for name in wave}
    targets: list[dict[str, Any]] = [
        {
            "target": name,
            "wave": waves.get(name),
            "phase": "pending" if name in waves else "refused",
            "attempts": 0,
            "error": report.error.to_json() if report.error else None,
            "bundle": report.name,
            "release": report.release,
            "builder": report.builder,
            "bytes_to_send": report.bytes_to_send,
            "to_build": report.to_build,
            "findings": [finding.to_json() for finding in report.findings],
        }
        for name, report in draft.reports.items()
    ]
    return {
        "schema": SCHEMA,
        "id": plan.rollout,
        "state": "planned",
        "waves": [
            {
                "wave": at + 1,
                "state": "pending",
                "devices": len(wave),
                "targets": list(wave),
                "bytes_to_send": sum(draft.reports[name].bytes_to_send for name in wave),
            }
            for at, wave in enumerate(plan.waves)
        ],
        "targets": targets,
        "counts": {
            DevicePhase.PENDING.value: len(waves),
            DevicePhase.REFUSED.value: len(plan.refused),
        },
        "policy": _policy(plan),
        "bundles": list(plan.bundles),
    }


def list_document(rows: list[tuple[JournalRow, Rollout]]) -> dict[str, Any]:
    """Spell the rollouts of a journal."""
    return {
        "schema": SCHEMA,
        "rollouts": [
            {
                "id": row.rollout,
                "state": rollout.phase.value,
                "created": time_text(row.created_ms),
                "wave": rollout.wave + 1,
                "waves": len(rollout.plan.waves),
                "counts": counts(rollout),
                "driver": row.driver or None,
                "entries": row.entries,
                "digest": row.digest,
            }
            for row, rollout in rows
        ],
    }


def time_text(milliseconds: int) -> str:
    """Write a time as the records on targets do."""
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _target(name: str, device: Device) -> dict[str, Any]:
    error = None
    if device.fault is not None:
        error = {
            "code": device.fault.code,
            "what": device.fault.what,
            "where": name,
            "remedy": remedy(device, target=name),
        }
    return {
        "target": name,
        "wave": device.wave + 1,
        "phase": device.phase.value,
        "attempts": device.attempts,
        "release": device.release or None,
        "next_try": time_text(device.not_before_ms) if device.not_before_ms else None,
        "error": error,
    }


def _left_out(plan: Plan, name: str) -> dict[str, Any]:
    return {
        "target": name,
        "wave": None,
        "phase": DevicePhase.REFUSED.value,
        "attempts": 0,
        "release": None,
        "next_try": None,
        "error": {
            "code": "incompatible",
            "what": ", ".join(plan.refused[name]),
            "where": name,
            "remedy": f"see what the rules say: 'edgecal check BUNDLE --target {name}'",
        },
    }


def _policy(plan: Plan) -> dict[str, Any]:
    policy = plan.policy
    return {
        "success": spell_gate(policy.passing),
        "failures": spell_gate(policy.failing),
        "missing": spell_gate(policy.missing),
        "on_failure": policy.on_failure.value,
        "soak": spell_duration(policy.soak_ms),
        "pause_after": sorted(wave + 1 for wave in policy.pause_after),
        "in_flight": policy.in_flight,
        "deadline": spell_duration(policy.retries.deadline_ms),
        "tries": policy.retries.tries,
    }
