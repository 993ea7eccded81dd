"""Commands that take several targets: each has its own result."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.cli.app import main
from edgecal.cli.several import ask_each, tell_failures
from edgecal.cli.story import Story
from edgecal.cli.wiring import remote
from edgecal.errors import ConnectError, EdgecalError, InputError
from tests.workflows.test_push import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.core.target import Target
    from tests.fakes import LocalTransport

GONE = ConnectError("no route to host", where="gone", remedy="plug it in")


def ask(name: str) -> int:
    if name == "gone":
        raise GONE
    if name == "wrong":
        raise InputError("no such model", where=name, remedy="name another")
    return len(name)


def test_a_single_target_that_fails_is_how_the_command_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConnectError):
        tell_failures(["gone"], {"gone": GONE}, Story())
    tell_failures(["gone", "here"], {"gone": GONE}, Story(quiet=True))
    assert capsys.readouterr().err == "error gone: no route to host\n  try: plug it in\n"


def test_of_several_every_one_has_its_answer_or_error_in_the_order_of_asking() -> None:
    found, errors = ask_each(["a", "gone", "abc", "a", "wrong"], ask)
    assert found == {"a": 1, "abc": 3}
    assert {name: error.exit_code for name, error in errors.items()} == {"gone": 4, "wrong": 2}
    assert ask_each(["gone", "wrong"], ask)[0] == {}


@pytest.mark.parametrize(
    "words", [("status",), ("prune", "--dry-run"), ("prune", "--yes")], ids=" ".join
)
def test_a_target_that_is_gone_does_not_end_it_for_the_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    bench = Bench(tmp_path / "bench")

    def connect(target: Target) -> LocalTransport:
        if target.host == "gone":
            raise GONE
        return bench.world.connect(target)  # type: ignore[return-value]

    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgecal.toml").write_text(
        f'[targets.here]\nhost = "here"\nroot = "{bench.root}"\n[targets.gone]\nhost = "gone"\n'
    )
    world = replace(bench.world, connect=connect)
    monkeypatch.setattr(remote, "world", lambda: world)
    with pytest.raises(SystemExit) as end:
        main([*words, "--target", "gone", "--target", "here", "--json"])
    assert end.value.code == 4
    heard = capsys.readouterr()
    assert "no route to host" in heard.err
    gone, here = json.loads(heard.out)["targets"]
    assert (gone["target"], gone["error"]["code"]) == ("gone", "connect")
    assert (here["target"], here["error"]) == ("here", None)


def test_an_error_gives_what_scripts_rely_on() -> None:
    error: EdgecalError = GONE
    assert error.to_json() == {
        "code": "connect",
        "what": "no route to host",
        "where": "gone",
        "remedy": "plug it in",
    }
