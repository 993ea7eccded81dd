"""`edgecal targets`: what a person and a script read of the platform tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.cli import app
from edgecal.core.platform_search import row_name

if TYPE_CHECKING:
    from edgecal.core.platform_search import Row


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    return end.value.code if isinstance(end.value.code, int) else 0


@pytest.fixture(autouse=True)
def _pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


def test_an_unknown_name_is_exit_2_with_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("targets", "show", "orin-nxx") == 2
    heard = capsys.readouterr()
    assert "'orin-nxx'" in heard.err
    assert "orin-nx-16gb" in heard.err
    assert run("targets", "show", "orin-nxx", "--json") == 2
    assert json.loads(capsys.readouterr().out)["schema"] == "edgecal.error/1"
    assert run("targets", "list", "toasters") == 2


@pytest.mark.parametrize("table", ["modules", "jetpacks", "gpus", "containers"])
def test_a_table_fits_a_hundred_columns_and_marks_what_is_not_confirmed(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("targets", "list", table) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("?: no source confirms it") for line in lines)
    assert any("?" in line for line in lines[2:-1])


def test_unconfirmed_cells_and_only_they_have_a_question_mark(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("targets", "list", "modules") == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert lines["orin-nx-8gb"][3] == "1?"
    assert lines["agx-orin-64gb"][3] == "2"
    assert lines["tx2"][4] == "no?"
    assert lines["nano"][4] == "no"
    assert run("targets", "list", "gpus") == 0
    (blackwell,) = [line for line in capsys.readouterr().out.splitlines() if "B200" in line]
    assert blackwell.split()[3:] == ["no", "no", "no", "no", "no", "yes?", "yes?", "yes?"]


def test_every_row_can_be_shown_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    platforms = load_platforms()
    rows: tuple[Row, ...] = (
        *platforms.modules,
        *platforms.releases,
        *platforms.host_gpus,
        *platforms.containers,
    )
    for row in rows:
        assert run("targets", "show", row_name(row)) == 0
        shown = capsys.readouterr().out
        assert "".join(row.source.split("; ")[0].split()) in "".join(shown.split())
        assert max(map(len, shown.splitlines())) <= 100


def test_a_document_holds_whole_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("targets", "list", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgecal.targets/1"
    assert set(document) == {"schema", "modules", "jetpacks", "gpus", "containers"}
    assert len(document["modules"]) == len(load_platforms().modules)
    assert all(row["source"] for row in document["gpus"])
    assert run("targets", "show", "jetpack", "5.1.2", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["table"], row["tensorrt"], row["verified"]) == ("jetpacks", "8.5.2.2", True)
    assert run("targets", "list", "jetpacks", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"schema", "jetpacks"}
