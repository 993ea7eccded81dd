"""The journal on real databases: safe, chained, and driven by one controller at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import sqlalchemy as sa

from edgecal.adapters import holders
from edgecal.adapters.holders import Holder, this_process
from edgecal.adapters.journal import DatabaseJournal
from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.machine import replay
from edgecal.core.rollout.state import Phase, Plan, Policy
from edgecal.errors import InputError
from tests.users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
PLAN: Final = Plan(
    rollout="r1", bundles=("sha256:00",), waves=(("a", "b\udc80"),), refused={}, policy=Policy()
)
PLANNED: Final = Event(kind=Kind.PLANNED, at_ms=1, plan=PLAN)


def program(name: str) -> str | None:
    """Find a program of PostgreSQL, newest first; Debian keeps them off the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next(map(str, versions), None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Start a PostgreSQL of our own, without network; give its URL."""
    initdb, server = program("initdb"), program("postgres")
    if initdb is None or server is None:
        if os.environ.get("EDGECAL_REQUIRE_POSTGRES") == "1":
            pytest.fail("initdb and postgres are not installed")
        pytest.skip("initdb and postgres are not installed")
    user = NOBODY if os.geteuid() == 0 else None  # the server refuses to run as root
    groups: list[int] | None = None if user is None else []
    folder = Path(tempfile.mkdtemp(prefix="edgecal-pg-", dir="/tmp"))  # sockets have short paths
    data = folder / "data"
    if user is not None:
        os.chown(folder, user, user)
    try:
        subprocess.run(
            [initdb, "--no-sync", "--auth=trust", "--username=edgecal", "-D", data],
            check=True,
            capture_output=True,
            user=user,
            group=user,
            extra_groups=groups,
            cwd=folder,
            timeout=120,
        )
        process = subprocess.Popen(
            [server, "-D", data, "-k", folder, "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user,
            group=user,
            extra_groups=groups,
            cwd=folder,
        )
        try:
            url = f"postgresql://edgecal@/postgres?host={folder}"
            wait_for(url, process)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # the fast shutdown
            process.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _try in range(300):
        assert process.poll() is None, "the server ended"
        with contextlib.suppress(InputError):
            DatabaseJournal(url).close()
            return
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.sqlite'}"
    base: str = request.getfixturevalue("postgresql")
    execute(base, "DROP TABLE IF EXISTS edgecal_rollouts, edgecal_rollout_entries")
    return base


@pytest.fixture
def journal(url: str) -> Iterator[DatabaseJournal]:
    one = DatabaseJournal(url)
    yield one
    one.close()


def execute(url: str, words: str) -> None:
    """Meddle with the database behind the journal's back."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as base:
        base.exec_driver_sql(words)
    engine.dispose()


def wish(kind: Kind = Kind.PAUSED) -> Event:
    return Event(kind=kind, at_ms=7)


def filled(journal: DatabaseJournal, entries: int = 6) -> None:
    journal.create("r1", PLANNED)
    for place in range(1, entries):
        kind = Kind.RESUMED if place % 2 == 0 else Kind.PAUSED
        assert journal.append("r1", wish(kind), after=place)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("UPDATE edgecal_rollout_entries SET text = '{}' WHERE position = 3", "entry 3 is not"),
        ("UPDATE edgecal_rollout_entries SET digest = 'ab' WHERE position = 2", "entry 2 is not"),
        ("DELETE FROM edgecal_rollout_entries WHERE position = 1", "entry 1 is missing"),
        ("DELETE FROM edgecal_rollout_entries WHERE position = 4", "entry 4 is missing"),
        ("DELETE FROM edgecal_rollout_entries WHERE position > 4", "entry 5 is missing"),
        ("DELETE FROM edgecal_rollout_entries", "entry 1 is missing"),
        ("UPDATE edgecal_rollouts SET entries = 5", "entry 6 is not the last"),
        ("UPDATE edgecal_rollouts SET digest = 'ab'", "entry 6 is not the last"),
        ("DELETE FROM edgecal_rollouts", "the rollout's own row"),
    ],
)
def test_whatever_is_changed_or_deleted_is_told(
    journal: DatabaseJournal, url: str, words: str, told: str
) -> None:
    filled(journal)
    assert not journal.verify("r1")
    execute(url, words)
    assert told in journal.verify("r1")
    with pytest.raises(InputError, match="the journal was changed"):
        journal.read("r1")


def test_two_entries_that_change_places_are_told(journal: DatabaseJournal, url: str) -> None:
    filled(journal)
    for before, after in [(2, 99), (3, 2), (99, 3)]:
        execute(url, f"UPDATE edgecal_rollout_entries SET position={after} WHERE position={before}")
    assert "entry 2 is not the one" in journal.verify("r1")


def test_unknown_rollouts_and_taken_or_odd_names_are_refused(journal: DatabaseJournal) -> None:
    for ask in (journal.read, journal.verify, journal.acquire):
        with pytest.raises(InputError, match="there is no rollout 'r9'"):
            ask("r9")
    with pytest.raises(InputError, match="there is no rollout 'r9'"):
        journal.append("r9", wish(), after=1)
    journal.create("r1", PLANNED)
    with pytest.raises(InputError, match="there is a rollout 'r1' already"):
        journal.create("r1", PLANNED)
    for name in ["", "a b", "../x", "x" * 200, "a\x00", "\udc80", "a\n"]:
        with pytest.raises(InputError, match="expected a name"):
            journal.create(name, PLANNED)


@pytest.mark.parametrize(
    "url",
    ["nonsense", "oracle://u:topsecret@h/d", "sqlite://", "sqlite:///:memory:", "mysql://u@h/d"],
)
def test_urls_that_cannot_hold_a_journal_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        DatabaseJournal(url)
    assert "topsecret" not in str(caught.value)


def test_a_database_that_does_not_answer_is_an_error_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        DatabaseJournal(f"postgresql://me:topsecret@/d?host={tmp_path}")
    assert "topsecret" not in str(caught.value)
    file = tmp_path / "text.sqlite"
    file.write_text("no database at all, but long enough to be looked at " * 40, "ascii")
    with pytest.raises(InputError, match="not a database"):
        DatabaseJournal(f"sqlite:///{file}")


def test_what_was_written_is_read_whole_and_from_any_place_on(
    journal: DatabaseJournal, url: str
) -> None:
    filled(journal)
    other = DatabaseJournal(url)
    events = other.read("r1")
    assert events[0] == PLANNED
    assert [other.read("r1", since=place) for place in range(7)] == [
        events[place:] for place in range(7)
    ]
    with pytest.raises(InputError, match="entry 7 is missing"):
        other.read("r1", since=7)
    other.close()
    assert replay(events, source="x").phase is Phase.PAUSED


def test_an_entry_is_written_only_behind_the_one_its_writer_knows(
    journal: DatabaseJournal,
) -> None:
    filled(journal, 3)
    assert not journal.append("r1", wish(Kind.HALTED), after=2)
    assert not journal.append("r1", wish(Kind.HALTED), after=4)
    assert journal.append("r1", wish(Kind.HALTED), after=3)
    assert len(journal.read("r1")) == 4


def test_only_the_driver_writes_what_is_no_wish(journal: DatabaseJournal) -> None:
    journal.create("r1", PLANNED)
    event = Event(kind=Kind.WAVE_STARTED, at_ms=2, wave=0)
    with pytest.raises(ValueError, match="needs a lease"):
        journal.append("r1", event, after=1)
    with pytest.raises(InputError, match="another controller"):
        journal.append("r1", event, after=1, lease="made up")
    lease = journal.acquire("r1")
    assert journal.append("r1", event, after=1, lease=lease)
    assert journal.append("r1", wish(Kind.HALTED), after=2), "a person needs none"


def test_two_controllers_cannot_drive_one_rollout(journal: DatabaseJournal, url: str) -> None:
    journal.create("r1", PLANNED)
    lease = journal.acquire("r1")
    other = DatabaseJournal(url)
    with pytest.raises(InputError, match=f"drives this rollout: process {os.getpid()} on"):
        other.acquire("r1")
    assert journal.rollouts()[0].driver == str(this_process())
    journal.release("r1", "made up")
    with pytest.raises(InputError, match="another controller"):
        other.acquire("r1")
    journal.release("r1", lease)
    assert journal.rollouts()[0].driver == ""
    taken = other.acquire("r1")
    assert not journal.renew("r1", lease)
    assert other.renew("r1", taken)
    with pytest.raises(InputError, match="another controller"):
        journal.append("r1", wish(), after=1, lease=lease)
    other.close()


def test_a_lease_that_ran_out_may_be_taken_and_its_holder_writes_nothing_more(url: str) -> None:
    one, other = DatabaseJournal(url, lease_s=0), DatabaseJournal(url)
    one.create("r1", PLANNED)
    late = one.acquire("r1")
    assert one.renew("r1", late), "nobody has taken it so far"
    time.sleep(0.01)
    other.acquire("r1")
    with pytest.raises(InputError, match="another controller"):
        one.append("r1", wish(), after=1, lease=late)
    one.close()
    other.close()


WRITER: Final = """
import sys
from edgecal.adapters.journal import DatabaseJournal
from edgecal.core.rollout.events import Event, Kind
journal = DatabaseJournal(sys.argv[1])
lease = journal.acquire("r1")
place = len(journal.read("r1"))
while True:
    assert journal.append("r1", Event(kind=Kind.RESUMED, at_ms=place), after=place, lease=lease)
    place += 1
    print(place, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_chain_and_a_lease_to_take_over(
    journal: DatabaseJournal, url: str
) -> None:
    journal.create("r1", PLANNED)
    for round_ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, url],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        ) as process:
            assert process.stdout is not None
            said = [int(process.stdout.readline()) for _line in range(5 + round_)]
            process.send_signal(signal.SIGKILL)
            said += [int(line) for line in process.stdout if line.endswith(b"\n")]
        assert not journal.verify("r1")
        written = len(journal.read("r1"))
        assert said[-1] <= written <= said[-1] + 1, "what it was told is there"
    lease = journal.acquire("r1")  # although it has not run out: its holder is gone
    assert journal.append("r1", wish(), after=written, lease=lease)


def test_many_writers_at_once_write_one_chain(url: str) -> None:
    journal = DatabaseJournal(url)
    journal.create("r1", PLANNED)

    def write() -> None:
        own = DatabaseJournal(url)
        for _entry in range(5):
            while not own.append("r1", wish(), after=len(own.read("r1"))):
                pass
        own.close()

    threads = [threading.Thread(target=write) for _one in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(journal.read("r1")) == 21
    journal.close()


def test_only_a_process_that_certainly_ended_is_called_gone() -> None:
    here = this_process()
    assert not here.gone()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = holders._started(process.pid)
        child = Holder(host=here.host, system=here.system, pid=process.pid, started=started)
        assert not child.gone()
        assert Holder(host="", system=here.system, pid=process.pid, started="1").gone()
        elsewhere = Holder(host=here.host, system="another", pid=process.pid, started="1")
        assert not elsewhere.gone(), "its pid means nothing here"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert child.gone(), "a zombie"
    assert child.gone()
    assert not Holder(host="", system="", pid=process.pid, started="").gone()


def test_the_list_has_the_latest_first(journal: DatabaseJournal) -> None:
    assert journal.rollouts() == ()
    for at, name in enumerate(["one", "two"]):
        journal.create(name, Event(kind=Kind.PLANNED, at_ms=at, plan=PLAN))
    assert [(row.rollout, row.entries) for row in journal.rollouts()] == [("two", 1), ("one", 1)]


def test_sqlite_waits_for_the_disk_and_lies_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    journal = DatabaseJournal()
    assert (tmp_path / "edgecal" / "rollouts.sqlite").exists()
    with journal._engine.connect() as base:
        assert base.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert base.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    journal.close()
