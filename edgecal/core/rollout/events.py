"""What a rollout's journal holds: events, each with its JSON form."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.job import job_json, parse_job
from edgecal.core.rollout.state import Fault, OnFailure, Plan, Policy, Retries
from edgecal.errors import InputError

SCHEMA: Final = "edgecal.rollout-event/1"


class Kind(enum.Enum):
    """What happened, or is about to: an event is written before it is acted on."""

    PLANNED = "planned"
    WAVE_STARTED = "wave-started"
    WAVE_PASSED = "wave-passed"
    WAVE_HELD = "wave-held"
    WAVE_FAILED = "wave-failed"
    WAVE_REVERTED = "wave-reverted"
    """It has failed, and its devices are to be taken back."""
    WAVE_EXCUSED = "wave-excused"
    """It has failed, and the rollout was told to go on."""
    ROLLBACK_ENDED = "rollback-ended"
    FINISHED = "finished"
    # wishes of people, from any shell
    RESUMED = "resumed"
    PAUSED = "paused"
    PROMOTED = "promoted"
    HALTED = "halted"
    RETRIED = "retried"
    DEVICE_REQUEUED = "device-requeued"
    """To be tried again once `retried` follows."""
    # devices
    PUSH_STARTED = "push-started"
    PUSH_ACTIVATED = "push-activated"
    PUSH_KEPT = "push-kept"
    PUSH_FAILED = "push-failed"
    PUSH_REFUSED = "push-refused"
    PUSH_UNREACHED = "push-unreached"
    PUSH_DEFERRED = "push-deferred"
    PUSH_STOPPED = "push-stopped"
    """Without a result: by a halt, or the controller is another one and the device has nothing."""
    ROLLBACK_STARTED = "rollback-started"
    ROLLBACK_DONE = "rollback-done"
    ROLLBACK_FAILED = "rollback-failed"
    ROLLBACK_DEFERRED = "rollback-deferred"
    ROLLBACK_STOPPED = "rollback-stopped"


WISHES: Final = frozenset(
    {
        Kind.RESUMED,
        Kind.PAUSED,
        Kind.PROMOTED,
        Kind.HALTED,
        Kind.RETRIED,
        Kind.DEVICE_REQUEUED,
    }
)
"""What may be written by somebody who does not drive the rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of the journal. `at_ms` is milliseconds since 1970, by the writer's clock."""

    kind: Kind
    at_ms: int
    target: str = ""
    wave: int = -1
    release: str = ""
    until_ms: int = 0
    """Of a deferred push: when it may be tried again."""
    why: str = ""
    """Of a wave: which condition failed. Of a wish: who had it."""
    fault: Fault | None = None
    plan: Plan | None = None


def event_json(event: Event) -> dict[str, Any]:
    """Spell an event; what it does not say is left out."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": event.kind.value,
        "at_ms": event.at_ms,
    }
    for key in _PLAIN:
        value = getattr(event, key)
        if value != _PLAIN[key]:
            document[key] = value
    if event.fault is not None:
        document["fault"] = asdict(event.fault)
    if event.plan is not None:
        document["plan"] = _plan_json(event.plan)
    return document


def event_text(event: Event) -> str:
    """Spell an event in the one way that digests are taken of: sorted keys, ASCII, no blanks."""
    return json.dumps(event_json(event), sort_keys=True, separators=(",", ":"))


_PLAIN: Final[dict[str, Any]] = {
    "target": "",
    "wave": -1,
    "release": "",
    "until_ms": 0,
    "why": "",
}


_FAULT: Final = ("code", "what", "remedy")


def parse_event(text: str, *, source: str) -> Event:
    """Read an event as `event_text` spells it.

    Raises
    ------
    InputError
        If it is anything else, or of a newer schema.
    """
    try:
        document = json.loads(text)
        if document.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {document.get('schema')!r:.60}")
        event = _event(document)
        if event_text(event) != json.dumps(document, sort_keys=True, separators=(",", ":")):
            raise ValueError("it says more than such an event can, or in another type")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"expected an event of {SCHEMA}, found {text!r:.80}: {error}",
            where=source,
            remedy="read it with the edgecal that wrote it, or a newer one",
        ) from error
    return event


def _event(document: dict[str, Any]) -> Event:
    plain = {key: document.get(key, default) for key, default in _PLAIN.items()}
    for key, value in plain.items():
        if type(value) is not type(_PLAIN[key]):
            raise TypeError(f"{key} is {value!r:.60}")
    if type(document["at_ms"]) is not int:
        raise TypeError(f"at_ms is {document['at_ms']!r:.60}")
    fault = document.get("fault")
    plan = document.get("plan")
    return Event(
        kind=Kind(document["kind"]),
        at_ms=document["at_ms"],
        fault=None if fault is None else Fault(**{key: str(fault[key]) for key in _FAULT}),
        plan=None if plan is None else _plan(plan),
        **plain,
    )


def _plan_json(plan: Plan) -> dict[str, Any]:
    policy = plan.policy
    return {
        "rollout": plan.rollout,
        "bundles": list(plan.bundles),
        "waves": [list(wave) for wave in plan.waves],
        "refused": {name: list(rules) for name, rules in plan.refused.items()},
        "policy": {
            "passing": asdict(policy.passing),
            "failing": asdict(policy.failing),
            "missing": None if policy.missing is None else asdict(policy.missing),
            "on_failure": policy.on_failure.value,
            "soak_ms": policy.soak_ms,
            "pause_after": sorted(policy.pause_after),
            "in_flight": policy.in_flight,
            "retries": asdict(policy.retries),
        },
        "job": job_json(plan.job),
    }


def _plan(document: dict[str, Any]) -> Plan:
    policy = document["policy"]
    missing = policy["missing"]
    return Plan(
        rollout=document["rollout"],
        bundles=tuple(document["bundles"]),
        waves=tuple(tuple(wave) for wave in document["waves"]),
        refused={name: tuple(rules) for name, rules in document["refused"].items()},
        policy=Policy(
            passing=Condition(**policy["passing"]),
            failing=Gate(**policy["failing"]),
            missing=None if missing is None else Gate(**missing),
            on_failure=OnFailure(policy["on_failure"]),
            soak_ms=policy["soak_ms"],
            pause_after=frozenset(policy["pause_after"]),
            in_flight=policy["in_flight"],
            retries=Retries(**policy["retries"]),
        ),
        job=parse_job(document["job"]),
    )
