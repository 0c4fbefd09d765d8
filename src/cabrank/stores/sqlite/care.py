"""What keeps a file in good order, beside the processes that work with it: a check, less of it on the disk, a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import msgspec

from cabrank.errors import StoreUnusable
from cabrank.files import put_in_place
from cabrank.stores.sqlite.holders import folder_of, made_folder
from cabrank.stores.sqlite.locks import TurnLock, is_held
from cabrank.stores.sqlite.logsize import log_of, readers_of, size_of
from cabrank.stores.sqlite.migrations import APPLICATION_ID, VERSION
from cabrank.stores.sqlite.schema import BUSY_MS, Phase

PAGES = 1_000  # that one turn gives back: 4 MiB, some milliseconds in which nobody else writes
FAULTS = 20  # of a damaged file that are said

_MISCOUNTED = f"""
select name, waiting, (
    select count(*) from job where job.queue = queue.id and phase in ({Phase.IN_LINE:d}, {Phase.READY:d}, {Phase.LATER:d})
)
from queue
"""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found: nothing in `faults` if all is well. Sizes are in bytes; `free_bytes` is what a vacuum gives back.

    `readers` are processes in the midst of a read: as long as one goes on, the log grows.
    """

    path: str
    schema: int
    bytes: int
    log_bytes: int
    readers: Sequence[str]
    free_bytes: int
    processes: int
    faults: Sequence[str]


def check(path: Path) -> Health:
    """Read all of a file and compare what it counts with what is there. Others may work with it meanwhile.

    Raises:
        StoreUnusable: it is no file of a store.
    """
    readers = readers_of(path)
    with closing(opened(path, apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.execute("begin")
        try:
            damage = [str(fault) for (fault,) in connection.execute(f"pragma integrity_check({FAULTS})") if fault != "ok"]
            counted: list[Any] = [] if damage else connection.execute(_MISCOUNTED).fetchall()
        except apsw.CorruptError as error:
            damage, counted = [str(error)], []
        page, free = _number(connection, "page_size"), _number(connection, "freelist_count")
        return Health(
            path=str(path),
            schema=_number(connection, "user_version"),
            bytes=path.stat().st_size,
            log_bytes=size_of(log_of(path)),
            readers=readers,
            free_bytes=page * free,
            processes=sum(map(is_held, folder_of(path).glob("life-*"))),
            faults=[
                *damage,
                *(f"queue {name} says that {said} jobs wait, and {there} do" for name, said, there in counted if said != there),
            ],
        )


def vacuum(path: Path, given_back: Callable[[int, int], None]) -> int:
    """Give back to the disk what the file does not use, in steps between the turns of others; how many bytes.

    `given_back` is told after each step how many of how many bytes that were.

    Raises:
        StoreUnusable: it is no file of a store.
        StoreUnavailable: another process has held the turn for too long.
    """
    with closing(opened(path, apsw.SQLITE_OPEN_READWRITE)) as connection, closing(TurnLock(made_folder(path))) as lock:
        page = _number(connection, "page_size")
        whole = left = _number(connection, "freelist_count")
        while left:
            with lock.held_soon():
                connection.execute(f"pragma incremental_vacuum({PAGES})").fetchall()
                before, left = left, _number(connection, "freelist_count")
            given_back((whole - left) * page, whole * page)
            if left >= before:
                break  # what others freed meanwhile is for the next time
        with lock.held_soon():
            connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        return max(0, whole - left) * page


def backup(path: Path, target: Path) -> int:
    """Write a copy as the file is at this moment, while others go on; how many bytes it has. The copy is whole or not there.

    What ran at that moment waits again when the copy is opened, one crash behind it: nobody knows whether it ended.

    Raises:
        StoreUnusable: it is no file of a store, the copy is there already, or cannot be written.
    """
    if target.exists():
        raise StoreUnusable(f"{target} is there already: name a file that is not")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with closing(opened(path, apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.execute("vacuum into ?", (str(part),))
        put_in_place(part, target)
    except (apsw.Error, OSError) as error:
        part.unlink(missing_ok=True)
        raise StoreUnusable(f"{target} cannot be written: {error}") from error
    return target.stat().st_size


def opened(path: Path, flags: int) -> apsw.Connection:
    """A connection to a file of this version.

    Raises:
        StoreUnusable: it is none.
    """
    try:
        connection = apsw.Connection(str(path), flags=flags)
        connection.set_busy_timeout(BUSY_MS)
        if _number(connection, "application_id") != APPLICATION_ID:
            raise StoreUnusable(f"{path} is not a store of cabrank")
        if (found := _number(connection, "user_version")) != VERSION:
            raise StoreUnusable(f"{path} has schema {found}, this version knows {VERSION}: `cabrank queues list` migrates an older one")
    except (apsw.NotADBError, apsw.CantOpenError) as error:
        raise StoreUnusable(f"{path} is not a store of cabrank ({error})") from None
    return connection


def _number(connection: apsw.Connection, pragma: str) -> int:
    return int(str(connection.execute(f"pragma {pragma}").get))
