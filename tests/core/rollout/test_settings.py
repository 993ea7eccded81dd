"""Table `[rollout]` of the settings."""

from __future__ import annotations

from typing import Any

import pytest

from edgecal.core.project import parse_project
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.plan import parse_waves
from edgecal.core.rollout.settings import ROLLOUT_KEYS, RolloutDefaults
from edgecal.core.rollout.state import OnFailure
from edgecal.errors import InputError

LINES = {("rollout",): 3, ("rollout", "waves"): 4, ("rollout", "soak"): 5}


def read(table: dict[str, Any]) -> RolloutDefaults:
    return parse_project({"rollout": table}, source="/p/edgecal.toml", lines=LINES).rollout


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"wave": "1"}, "unknown key 'wave'"),
        ({"waves": "10%,5%"}, "reaches as far|comes after"),
        ({"waves": True}, "waves wants a text"),
        ({"waves": [1, [2]]}, "waves wants a text"),
        ({"waves": 1.5}, "waves wants a text"),
        ({"success": "110%"}, "a share to 100%"),
        ({"failures": "never"}, "a share to 100%"),
        ({"missing": 0}, "a share to 100%"),
        ({"on_failure": "stop"}, "halt, rollback, continue"),
        ({"on_failure": ["halt"]}, "halt, rollback, continue"),
        ({"soak": 90}, "such as 30s"),
        ({"deadline": "tomorrow"}, "such as 30s"),
        ({"pause_after": "0"}, "waves from 1"),
        ({"pause_after": []}, "waves from 1"),
        ({"in_flight": 0}, "in_flight wants a count"),
        ({"tries": "4"}, "tries wants a count"),
        ({"connections": -1}, "connections wants a count"),
        ({"limit_rate": "fast"}, "500k or 2M"),
        ({"limit_rate_per_bastion": 0}, "500k or 2M"),
        ({"hook": "notify"}, "list of words"),
        ({"journal": 5432}, "journal wants a word"),
        ({"metrics": 1}, "metrics wants a path"),
    ],
)
def test_what_is_not_understood_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(table)


@pytest.mark.parametrize(("key", "line"), [("waves", 4), ("soak", 5), ("failures", 3)])
def test_a_wrong_text_is_named_with_its_line_and_key(key: str, line: int) -> None:
    with pytest.raises(InputError) as caught:
        read({key: "x"})
    assert caught.value.where == f"/p/edgecal.toml:{line}: [rollout] {key}"


def test_what_the_table_does_not_say_is_left_open() -> None:
    assert read({}) == RolloutDefaults()
    assert parse_project({}, source="edgecal.toml").rollout == RolloutDefaults()


def test_every_key_is_read() -> None:
    table = {
        "waves": [1, "10%", "100%"],
        "success": "90%,1",
        "failures": "10%,2",
        "missing": "50%",
        "on_failure": "rollback",
        "soak": "10m",
        "pause_after": [1, 2],
        "in_flight": 64,
        "deadline": 0,
        "tries": 3,
        "connections": 5,
        "transfers": 6,
        "builds": 7,
        "limit_rate": "2M",
        "limit_rate_per_bastion": "500k",
        "hook": ["notify", "--channel", "fleet"],
        "events": "events.jsonl",
        "metrics": "/var/lib/node_exporter/edgecal.prom",
        "journal": "postgresql://ops@db/edgecal",
    }
    assert table.keys() == ROLLOUT_KEYS.keys()
    assert read(table) == RolloutDefaults(
        waves=parse_waves("1,10%,100%"),
        success=Condition(minimum=1, percent=90),
        failures=Gate(minimum=2, percent=10),
        missing=Gate(minimum=1, percent=50),
        on_failure=OnFailure.ROLLBACK,
        soak_ms=600_000,
        pause_after="1,2",
        in_flight=64,
        deadline_ms=0,
        tries=3,
        connections=5,
        transfers=6,
        builds=7,
        limit_rate=2 << 20,
        limit_rate_per_bastion=500 << 10,
        hook=("notify", "--channel", "fleet"),
        events="/p/events.jsonl",
        metrics="/var/lib/node_exporter/edgecal.prom",
        journal="postgresql://ops@db/edgecal",
    )


def test_what_another_user_may_have_written_runs_nothing_and_writes_nowhere() -> None:
    table = {"hook": ["x"], "events": "e", "metrics": "m", "soak": "1m", "journal": "sqlite:////x"}
    project = parse_project({"rollout": table}, source="/p/edgecal.toml")
    assert project.commands() == ("hook", "events", "metrics")
    kept = project.without_commands()
    assert kept.commands() == ()
    assert kept.rollout == RolloutDefaults(soak_ms=60_000, journal="sqlite:////x")
