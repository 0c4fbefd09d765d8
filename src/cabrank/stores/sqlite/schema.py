"""How a job's state is written in the file, and how a connection to the file is opened."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from random import Random
from typing import Literal

import apsw

from cabrank.errors import StoreUnavailable, StoreUnusable
from cabrank.states import State
from cabrank.stores.sqlite.migrations import APPLICATION_ID, migrate

FOREIGN = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.IOError,
    apsw.NoMemError,
    apsw.ReadOnlyError,
    apsw.ProtocolError,
    apsw.CantOpenError,
)
"""What the disk, the system or another program does to a statement: the next try may do better."""

BUSY_MS = 5_000  # an outside writer (a backup, a person) may hold the file; our own processes never meet here, they queue at a lock
LOG_KEPT = 32 << 20  # bytes: the log has 16 MiB at most where nobody reads for long; one that had grown is cut to this
CHECKPOINT_PAGES = 4_000  # 16 MiB of WAL between checkpoints: they cost less when they are rare, and the file stays small


class Phase(IntEnum):
    """How a row of `job` says the state. A waiting job is `READY` or, until its due time, `LATER`: so claims see only ready ones.

    A ready job whose handler has a limit is `IN_LINE`: claims see it in the line of its allowance.
    """

    IN_LINE = -1
    READY = 0
    RUNNING = 1
    LATER = 2
    DEAD = 3
    CANCELLED = 4
    EXPIRED = 5
    HELD = 6


STATE_OF = {
    Phase.IN_LINE: State.WAITING,
    Phase.READY: State.WAITING,
    Phase.LATER: State.WAITING,
    Phase.RUNNING: State.RUNNING,
    Phase.DEAD: State.DEAD,
    Phase.CANCELLED: State.CANCELLED,
    Phase.EXPIRED: State.EXPIRED,
    Phase.HELD: State.HELD,
}
SHELF_OF = {State.DEAD: Phase.DEAD, State.CANCELLED: Phase.CANCELLED, State.EXPIRED: Phase.EXPIRED, State.HELD: Phase.HELD}


def open_writer(path: Path, *, synchronous: Literal["full", "normal"], rng: Random, is_shared: Callable[[], bool]) -> apsw.Connection:
    """The one connection of this process that writes. Makes the file if there is none, and migrates an older one.

    `is_shared`: whether another process has the file open; then it stays as it is. Under the turn lock.

    Raises:
        StoreUnusable: the file cannot be used as it is.
        StoreUnavailable: another program holds it; opening again is safe.
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
        connection.execute(f"pragma journal_size_limit = {LOG_KEPT}")
        connection.execute("pragma temp_store = memory")
        if _pragma(connection, "synchronous") != {"full": 2, "normal": 1}[synchronous]:
            raise StoreUnusable(f"{path}: SQLite did not take synchronous = {synchronous}")
        migrate(path, connection, rng, is_shared=is_shared)
    except apsw.NotADBError:
        raise StoreUnusable(f"{path} is not a SQLite file: choose another name for the store") from None
    except apsw.CorruptError as error:
        raise damaged(path, error) from None
    except apsw.BusyError as error:
        raise StoreUnavailable(f"{path}: another program holds the file for more than {BUSY_MS / 1000:g} s ({error})") from error
    except (apsw.IOError, apsw.FullError) as error:
        raise StoreUnavailable(f"{path}: {error}") from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise StoreUnusable(
            f"{path} cannot be opened for writing ({error}): does its folder exist, and may this user write there?"
        ) from None
    return connection


def damaged(path: Path, error: Exception) -> StoreUnusable:
    """What is said of a file that SQLite cannot make sense of."""
    return StoreUnusable(f"{path} is damaged ({error}): restore it from a backup, or recover what can be read with `sqlite3 .recover`")


def open_reader(path: Path) -> apsw.Connection:
    """A connection that only reads, and has all files open that it needs for that."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_MS)
    connection.execute("select count(*) from sqlite_schema").fetchall()  # opens the log: later there may be no file left to open
    return connection


def _pragma(connection: apsw.Connection, pragma: str) -> object:
    return connection.execute(f"pragma {pragma}").get


def _check_owner(path: Path, connection: apsw.Connection) -> None:
    tables = connection.execute("select count(*) from sqlite_schema").get
    if tables and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreUnusable(f"{path} is a SQLite file of another program: choose another name for the store")
