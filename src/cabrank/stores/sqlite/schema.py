"""The tables of the file, and how a connection to it is opened. `docs/internals/sqlite.md` says why each is as it is."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from random import Random

import apsw

from cabrank.errors import StoreUnusable
from cabrank.job import new_prefix
from cabrank.states import State

VERSION = 1
APPLICATION_ID = 0x63616272  # "cabr": tells our files from others
BUSY_MS = 5_000  # an outside writer (a backup, a person) may hold the file; our own processes never meet here, they queue at a lock
CHECKPOINT_PAGES = 4_000  # 16 MiB of WAL between checkpoints: they cost less when they are rare, and the file stays small


class Phase(IntEnum):
    """How a row of `job` says the state. A waiting job is `READY` or, until its due time, `LATER`: so claims see only ready ones."""

    READY = 0
    RUNNING = 1
    LATER = 2
    DEAD = 3
    CANCELLED = 4
    EXPIRED = 5
    HELD = 6


STATE_OF = {
    Phase.READY: State.WAITING,
    Phase.LATER: State.WAITING,
    Phase.RUNNING: State.RUNNING,
    Phase.DEAD: State.DEAD,
    Phase.CANCELLED: State.CANCELLED,
    Phase.EXPIRED: State.EXPIRED,
    Phase.HELD: State.HELD,
}
SHELF_OF = {State.DEAD: Phase.DEAD, State.CANCELLED: Phase.CANCELLED, State.EXPIRED: Phase.EXPIRED, State.HELD: Phase.HELD}

SCHEMA = """
create table meta (name text primary key, value) without rowid;
create table handler (id integer primary key, name text not null unique);
create table queue (
    id integer primary key, name text not null unique,
    waiting integer not null default 0, waiting_bytes integer not null default 0
);
create table holder (
    id integer primary key autoincrement, boot text not null, expires_at real not null, turn integer not null default 0
);
create table job (
    id integer primary key, phase integer not null, queue integer not null, handler integer not null,
    priority integer not null, due_at real not null, deadline_at real not null,
    run integer not null, failures integer not null, crashes integer not null,
    holder integer, payload blob not null
);
create index job_ready on job (queue, priority, due_at, id, handler) where phase = 0;
create index job_running on job (holder) where phase = 1;
create index job_later on job (due_at) where phase = 2;
create index job_shelved on job (phase, queue) where phase >= 3;
create table note (id integer primary key, at real not null, reason text not null, error text not null);
create table cancelling (id integer primary key);
create table done (
    id integer primary key, at real not null, first integer not null, last integer not null, jobs integer not null,
    ids blob not null, results blob, size integer not null
);
create index done_range on done (last, first);
create table receipt (
    key text primary key, until real not null, digest text not null, first_id integer not null, jobs integer not null
) without rowid;
create index receipt_until on receipt (until);
"""


def open_writer(path: Path, *, synchronous: str, rng: Random) -> apsw.Connection:
    """The one connection of this process that writes. Makes the file if there is none.

    Raises:
        StoreUnusable: the file cannot be used as it is.
    """
    try:
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(BUSY_MS)
        _check_owner(path, connection)
        connection.execute("pragma auto_vacuum = incremental")
        if _pragma(connection, "journal_mode = wal") != "wal":
            raise StoreUnusable(f"{path}: this file system cannot share memory, as WAL needs (is it a network disk?): use a local disk")
        connection.execute(f"pragma synchronous = {synchronous}")
        connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("pragma temp_store = memory")
        if _pragma(connection, "synchronous") != {"full": 2, "normal": 1}[synchronous]:
            raise StoreUnusable(f"{path}: SQLite did not take synchronous = {synchronous}")
        _migrate(path, connection, rng)
    except apsw.NotADBError:
        raise StoreUnusable(f"{path} is not a SQLite file: choose another name for the store") from None
    except apsw.CorruptError as error:
        raise StoreUnusable(
            f"{path} is damaged ({error}): restore it from a backup, or recover what can be read with `sqlite3 .recover`"
        ) from None
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise StoreUnusable(
            f"{path} cannot be opened for writing ({error}): does its folder exist, and may this user write there?"
        ) from None
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that only reads."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_MS)
    return connection


def _pragma(connection: apsw.Connection, pragma: str) -> object:
    return connection.execute(f"pragma {pragma}").get


def _check_owner(path: Path, connection: apsw.Connection) -> None:
    tables = connection.execute("select count(*) from sqlite_schema").get
    if tables and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreUnusable(f"{path} is a SQLite file of another program: choose another name for the store")


def _migrate(path: Path, connection: apsw.Connection, rng: Random) -> None:
    found = _pragma(connection, "user_version")
    if found == VERSION:
        return
    if found != 0:
        raise StoreUnusable(f"{path} has schema {found}, this version of cabrank knows schema {VERSION}: use the version that made it")
    with connection:
        connection.execute(SCHEMA)
        connection.execute("insert into meta values ('prefix', ?), ('next_id', 1)", (new_prefix(rng),))
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {VERSION}")
