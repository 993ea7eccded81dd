from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecal.adapters.facts_cache import FactsCache

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 21, 8, 30, 5, tzinfo=timezone.utc)
ANSWER = "Welcome\nedgecal:schema=1\nedgecal:root=/r\nedgecal:probe=complete\n"


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, notes: list[str]) -> FactsCache:
    return FactsCache(tmp_path / "state" / "facts", note=notes.append)


def only_file(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "state" / "facts").iterdir()
    return file


DAMAGE = {
    "empty": b"",
    "cut": b'{"schema": "edgecal.facts/1", "tar',
    "no UTF-8": b"\xff\xfe\x00",
    "another document": b"[1, 2]",
    "another schema": b'{"schema": "edgecal.facts/2"}',
    "no text": json.dumps(
        {"schema": "edgecal.facts/1", "target": "jet", "taken": NOW.isoformat(), "address": ""}
    ).encode(),
    "no time": json.dumps(
        {"schema": "edgecal.facts/1", "target": "jet", "text": "", "taken": "now", "address": ""}
    ).encode(),
    "a time without a zone": json.dumps(
        {
            "schema": "edgecal.facts/1",
            "target": "jet",
            "text": "",
            "taken": "2026-11-21T08:30:05",
            "address": "",
        }
    ).encode(),
    "another target": json.dumps(
        {
            "schema": "edgecal.facts/1",
            "target": "other",
            "text": "",
            "taken": NOW.isoformat(),
            "address": "",
        }
    ).encode(),
    "nested deeply": b"[" * 200_000,
    "huge": b" " * (2 << 20),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_ignored_with_a_note_and_replaced_by_the_next_answer(
    cache: FactsCache, notes: list[str], tmp_path: Path, damage: bytes
) -> None:
    cache.store("jet", ANSWER, NOW)
    only_file(tmp_path).write_bytes(damage)
    assert cache.load("jet") is None
    (note,) = notes
    assert "jet" in note
    assert "ignored" in note
    cache.store("jet", ANSWER, NOW)
    assert cache.load("jet") == (ANSWER, NOW)


def test_a_target_that_was_never_asked_has_no_answer_and_no_note(
    cache: FactsCache, notes: list[str]
) -> None:
    assert cache.load("jet") is None
    assert notes == []


def test_an_answer_of_another_machine_by_that_name_does_not_count(
    cache: FactsCache, notes: list[str]
) -> None:
    cache.store("jet", ANSWER, NOW, address="nvidia@10.0.0.2")
    assert cache.load("jet", address="nvidia@10.0.0.3") is None
    assert "nvidia@10.0.0.2" in notes[0]
    assert cache.load("jet", address="nvidia@10.0.0.2") == (ANSWER, NOW)
    assert cache.load("jet") == (ANSWER, NOW)
    cache.store("jet", ANSWER, NOW)
    assert cache.load("jet", address="nvidia@10.0.0.3") == (ANSWER, NOW)


def test_where_nothing_can_be_written_there_is_a_note_and_no_error(
    tmp_path: Path, notes: list[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    FactsCache(tmp_path / "file", note=notes.append).store("jet", ANSWER, NOW)
    assert "not kept" in notes[0]


def test_a_file_that_cannot_be_read_is_a_note(
    cache: FactsCache, notes: list[str], tmp_path: Path
) -> None:
    cache.store("jet", ANSWER, NOW)
    file = only_file(tmp_path)
    file.unlink()
    file.mkdir()
    assert cache.load("jet") is None
    assert "cannot be read" in notes[0]
    cache.store("jet", ANSWER, NOW)
    assert "not kept" in notes[1]
    assert only_file(tmp_path) == file


def test_an_answer_too_large_to_be_one_is_not_kept(cache: FactsCache, notes: list[str]) -> None:
    cache.store("jet", "x" * (2 << 20), NOW)
    assert "not kept" in notes[0]
    assert cache.load("jet") is None


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=3, unique=True),
    text=st.text(),
    age=st.timedeltas(timedelta(0), timedelta(days=9999)),
)
def test_every_target_keeps_its_own_last_answer(
    tmp_path: Path, names: list[str], text: str, age: timedelta
) -> None:
    cache = FactsCache(tmp_path / "facts")
    taken = NOW - timedelta(seconds=int(age.total_seconds()))
    for name in names:
        cache.store(name, f"before {name}", NOW)
        cache.store(name, f"{text}{name}", taken)
    for name in names:
        assert cache.load(name) == (f"{text}{name}", taken)


def test_nobody_else_reads_the_folder_and_nothing_is_left_aside(
    cache: FactsCache, tmp_path: Path
) -> None:
    cache.store("nvidia@xavier.local", ANSWER, NOW)
    file = only_file(tmp_path)
    assert file.name.startswith("nvidia@xavier.local-")
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0


def test_answers_stored_at_once_leave_a_whole_one(cache: FactsCache) -> None:
    answers = [f"{number}\n" * 5000 for number in range(16)]
    threads = [threading.Thread(target=cache.store, args=("jet", one, NOW)) for one in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = cache.load("jet")
    assert found is not None
    assert found[0] in answers
