"""Rollouts' events in a database, through SQLAlchemy: SQLite by default, PostgreSQL by URL.

**Safety.** Every entry is one transaction: the row, and the head kept in the rollout's own row
(`core/rollout/chain.py`). SQLite runs with a write-ahead log and `synchronous=FULL`, so a commit
has reached the disk when it returns; PostgreSQL gets `synchronous_commit = on` for every session.

**Leases.** Whoever drives a rollout holds a random token, and every entry it writes must find that
token in the same transaction: a controller that lost its lease while it slept writes nothing more.
Somebody else gets the lease if it was given back; if its holder was a process of this system's same
boot and process namespace that is gone (pid and start time, so a pid used anew is another one); or
if it ran out by the database's own clock. Clocks of controllers play no part. A holder on another
machine, or in another container, can only be waited for.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from edgecal.adapters.holders import read_holder, this_process
from edgecal.adapters.user_folders import state_folder
from edgecal.core.rollout.chain import Entry, Head, first_break, link
from edgecal.core.rollout.events import WISHES, Event, event_text, parse_event
from edgecal.core.rollout.plan import parse_rollout_name
from edgecal.errors import DependencyError, InputError
from edgecal.ports import JournalRow

if TYPE_CHECKING:
    from collections.abc import Iterator

LEASE_S: Final = 60
"""How long a lease holds without an entry or a renewal."""
_BUSY_MS: Final = 20_000
"""How long SQLite waits for another writer."""


class DatabaseJournal:
    """The journal in a database. Safe to use from several threads.

    Parameters
    ----------
    url
        As SQLAlchemy takes it; without one, `rollouts.sqlite` in the user's state folder.

    Raises
    ------
    DependencyError
        If SQLAlchemy or the database's driver is missing.
    InputError
        If the database cannot be opened.
    """

    def __init__(self, url: str = "", *, lease_s: float = LEASE_S) -> None:
        self._lease_ms = int(lease_s * 1000)
        self._engine = _engine(url or _default_url())
        self._where = self._engine.url.render_as_string(hide_password=True)
        self._rollouts, self._entries = _tables()
        with self._transaction() as base:
            # two processes may make them at once; SQLite's lock and this one keep them apart
            if self._engine.dialect.name == "postgresql":
                base.exec_driver_sql("SELECT pg_advisory_xact_lock(7209146)")
            self._rollouts.metadata.create_all(base)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def create(self, rollout: str, event: Event) -> None:
        """Write a rollout's first entry; its name must be new."""
        parse_rollout_name(rollout, source="rollout")
        with self._transaction() as base:
            if self._row(base, rollout) is not None:
                raise InputError(
                    f"there is a rollout {rollout!r} already",
                    where=self._where,
                    remedy="run 'edgecal rollout resume' to go on with it, or choose another name",
                )
            text = event_text(event)
            head = Head(entries=1, digest=link(rollout, 1, text, ""))
            base.execute(
                self._rollouts.insert().values(
                    rollout=rollout,
                    created_ms=event.at_ms,
                    entries=head.entries,
                    digest=head.digest,
                    token="",
                    holder="",
                    expires_ms=0,
                )
            )
            self._insert(base, rollout, text, head)

    def append(self, rollout: str, event: Event, *, after: int, lease: str = "") -> bool:
        """Write the entry that follows `after` others; False if that place is taken already."""
        if not lease and event.kind not in WISHES:
            raise ValueError(f"{event.kind.value} needs a lease")  # a bug of ours
        with self._transaction() as base:
            row = self._locked(base, rollout)
            if lease and row.token != lease:
                raise InputError(
                    f"another controller drives this rollout ({_driver(row) or 'it has ended'})",
                    where=f"rollout {rollout}",
                    remedy="follow it with 'edgecal rollout status --follow'",
                )
            if row.entries != after:
                return False
            text = event_text(event)
            place = after + 1
            head = Head(entries=place, digest=link(rollout, place, text, row.digest))
            values: dict[str, Any] = {"entries": head.entries, "digest": head.digest}
            if lease:
                values["expires_ms"] = self._now_ms(base) + self._lease_ms
            self._update(base, rollout, values)
            self._insert(base, rollout, text, head)
        return True

    def read(self, rollout: str, *, since: int = 0) -> tuple[Event, ...]:
        """Read the entries after the first `since`; raises InputError if the chain is broken."""
        rows, broken = self._chain(rollout, since)
        if broken:
            raise InputError(
                f"the journal was changed: {broken}",
                where=f"rollout {rollout} in {self._where}",
                remedy="find out who did, and ask the devices themselves with 'edgecal status'",
            )
        source = f"rollout {rollout}"
        return tuple(
            parse_event(row.text, source=f"{source}, entry {row.position}") for row in rows
        )

    def verify(self, rollout: str) -> str:
        """Say where the chain breaks first; nothing if it is whole."""
        return self._chain(rollout, 0)[1]

    def rollouts(self) -> tuple[JournalRow, ...]:
        """List the rollouts, the latest first."""
        table = self._rollouts
        order = (table.c.created_ms.desc(), table.c.rollout)
        with self._transaction() as base:
            rows = base.execute(table.select().order_by(*order)).all()
            now_ms = self._now_ms(base)
        return tuple(
            JournalRow(
                rollout=row.rollout,
                created_ms=row.created_ms,
                entries=row.entries,
                digest=row.digest,
                driver=_driver(row) if _is_driven(row, now_ms) else "",
            )
            for row in rows
        )

    def acquire(self, rollout: str) -> str:
        """Take the lease."""
        token = secrets.token_hex(16)
        with self._transaction() as base:
            row = self._locked(base, rollout)
            now_ms = self._now_ms(base)
            if row.token and now_ms < row.expires_ms and not read_holder(row.holder).gone():
                seconds = (row.expires_ms - now_ms) // 1000 + 1
                raise InputError(
                    f"another controller drives this rollout: {_driver(row)}",
                    where=f"rollout {rollout}",
                    remedy=f"stop that one, or wait: unless it is heard of, its lease ends in "
                    f"{seconds} s",
                )
            values = {"token": token, "holder": this_process().text}
            self._update(base, rollout, {**values, "expires_ms": now_ms + self._lease_ms})
        return token

    def renew(self, rollout: str, lease: str) -> bool:
        """Keep the lease; False if it is lost."""
        with self._transaction() as base:
            held = bool(self._locked(base, rollout).token == lease)
            if held:
                self._update(base, rollout, {"expires_ms": self._now_ms(base) + self._lease_ms})
        return held

    def release(self, rollout: str, lease: str) -> None:
        """Give the lease back."""
        with self._transaction() as base:
            if self._locked(base, rollout).token == lease:
                self._update(base, rollout, {"token": "", "holder": "", "expires_ms": 0})

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - the extra `fleet`

        try:
            with self._engine.begin() as base:
                yield base
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()
            raise InputError(
                f"the journal's database does not do its work: {cause[0] if cause else error!r}",
                where=self._where,
                remedy="mend the database, or name another; what was written before is kept",
            ) from error

    def _chain(self, rollout: str, since: int) -> tuple[tuple[Entry, ...], str]:
        table = self._entries
        with self._transaction() as base:
            # entries come in two statements: nobody may write between them
            row = self._row(base, rollout, lock=True)
            wanted = (table.c.rollout == rollout) & (table.c.position >= since)
            rows = base.execute(table.select().where(wanted).order_by(table.c.position)).all()
        found = tuple(
            Entry(position=one.position, text=one.text, digest=one.digest) for one in rows
        )
        if row is None:
            if found:
                return found, "the rollout's own row, which ends the chain, is missing"
            raise self._unknown(rollout)
        before = Head()
        if since and found and found[0].position == since:
            before, found = Head(entries=since, digest=found[0].digest), found[1:]
        elif since:
            return found, f"entry {since} is missing"
        head = Head(entries=row.entries, digest=row.digest)
        return found, first_break(rollout, found, head, since=before)

    def _row(self, base: sa.Connection, rollout: str, *, lock: bool = False) -> sa.Row[Any] | None:
        query = self._rollouts.select().where(self._rollouts.c.rollout == rollout)
        return base.execute(query.with_for_update() if lock else query).one_or_none()

    def _locked(self, base: sa.Connection, rollout: str) -> sa.Row[Any]:
        """Read a rollout's row so that nobody else writes it before this transaction's end."""
        row = self._row(base, rollout, lock=True)
        if row is None:
            raise self._unknown(rollout)
        return row

    def _unknown(self, rollout: str) -> InputError:
        return InputError(
            f"there is no rollout {rollout!r}",
            where=self._where,
            remedy="run 'edgecal rollout list' for those there are",
        )

    def _update(self, base: sa.Connection, rollout: str, values: dict[str, Any]) -> None:
        table = self._rollouts
        base.execute(table.update().where(table.c.rollout == rollout).values(values))

    def _insert(self, base: sa.Connection, rollout: str, text: str, head: Head) -> None:
        base.execute(
            self._entries.insert().values(
                rollout=rollout, position=head.entries, text=text, digest=head.digest
            )
        )

    def _now_ms(self, base: sa.Connection) -> int:
        """Ask the database for its clock."""
        words = _CLOCKS[self._engine.dialect.name]
        return int(base.exec_driver_sql(words).scalar_one())


_CLOCKS: Final = {
    "sqlite": "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def _is_driven(row: sa.Row[Any], now_ms: int) -> bool:
    """Tell whether somebody who may be alive has the lease."""
    return bool(row.token) and now_ms < row.expires_ms and not read_holder(row.holder).gone()


def _driver(row: sa.Row[Any]) -> str:
    return str(read_holder(row.holder)) if row.token else ""


def _default_url() -> str:
    folder = state_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder for the journal cannot be made: {error.strerror}",
            where=str(folder),
            remedy="free the place, set XDG_STATE_HOME, or name a database with --journal",
        ) from error
    return f"sqlite:///{folder / 'rollouts.sqlite'}"


def _engine(url: str) -> sa.Engine:
    try:
        named = sa.make_url(url)
        if named.drivername in {"postgresql", "postgres"}:
            named = named.set(drivername="postgresql+psycopg")
        if named.get_backend_name() not in _CLOCKS:
            raise InputError(
                f"expected a database of SQLite or PostgreSQL, found {named.get_backend_name()!r}",
                where="journal",
                remedy="write postgresql://USER@HOST/DATABASE or sqlite:////PATH",
            )
        engine = sa.create_engine(named, pool_pre_ping=True)
    except sa.exc.ArgumentError as error:  # says nothing of the URL: it may hold a password
        raise InputError(
            "the journal's URL cannot be read",
            where="journal",
            remedy="write postgresql://USER@HOST/DATABASE or sqlite:////PATH",
        ) from error
    except ImportError as error:
        raise DependencyError(
            f"the driver of {named.drivername} is not installed: {error}",
            remedy="pip install 'edgecal[postgresql]'",
        ) from error
    if named.get_backend_name() == "postgresql":
        sa.event.listen(engine, "connect", _prepare_postgresql)
        return engine
    if named.database in {None, "", ":memory:"}:
        raise InputError(
            "a journal in memory survives nothing",
            where="journal",
            remedy="name a file: sqlite:////PATH",
        )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgresql(connection: Any, _record: object) -> None:
    connection.execute("SET synchronous_commit = on")
    connection.commit()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(base: sa.Connection) -> None:
    """Take the write lock at once: a reader that turns writer could not wait for another one."""
    base.exec_driver_sql("BEGIN IMMEDIATE")


def _tables() -> tuple[sa.Table, sa.Table]:
    metadata = sa.MetaData()
    rollouts = sa.Table(
        "edgecal_rollouts",
        metadata,
        sa.Column("rollout", sa.Text, primary_key=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
    )
    entries = sa.Table(
        "edgecal_rollout_entries",
        metadata,
        sa.Column("rollout", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
    )
    return rollouts, entries
