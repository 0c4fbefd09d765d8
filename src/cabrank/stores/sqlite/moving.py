"""Jobs out of a file and into a new one, as lines of JSON that people and other programs can read. Ids stay what they are."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec

from cabrank.errors import StoreUnusable
from cabrank.files import put_in_place
from cabrank.states import State
from cabrank.stores.sqlite.block_statements import COUNT_IN_BLOCKS
from cabrank.stores.sqlite.blocks import all_in
from cabrank.stores.sqlite.care import opened
from cabrank.stores.sqlite.migrations import VERSION
from cabrank.stores.sqlite.schema import SHELF_OF, STATE_OF, Phase, open_writer

STAYS = frozenset({"job", "done", "block", "done_block", "holder", "cancelling", "progress", "sqlite_sequence"})
"""Tables whose rows are not moved as they are: jobs go by themselves; the rest is of what runs, or is kept for an hour."""
OWN_META = ("prefix", "next_id", "place")  # what a file says of itself that goes with its jobs
NAMED = ("id", "handler", "queue", "phase", "payload", "holder")  # columns of a job that are not written as they are

_TABLES = "select name from sqlite_schema where type = 'table' order by name"
_COUNT = f"""
update queue set (waiting, waiting_bytes) = (
    select count(*), coalesce(sum(length(payload)), 0) from job
    where job.queue = queue.id and phase in ({Phase.IN_LINE:d}, {Phase.READY:d}, {Phase.LATER:d})
)
"""


class Head(msgspec.Struct, frozen=True):
    """The first line: `cabrank_schema` is the number of the schema, `jobs` how many lines of jobs come."""

    cabrank_schema: int
    jobs: int


class MovedJob(msgspec.Struct, frozen=True):
    """A job that has not returned. What ran at the moment of the export is `waiting`; `rest` are the file's other columns."""

    job: int
    handler: str
    queue: str
    state: State
    payload: msgspec.Raw
    rest: dict[str, Any]


class MovedRow(msgspec.Struct, frozen=True):
    """A row of another table: what a key remembers, why a job is dead, the last tick of a schedule."""

    table: str
    row: dict[str, Any]


def export(path: Path, write: Callable[[bytes], object], told: Callable[[int, int], None]) -> int:
    """Write all jobs that have not returned, and what belongs to them, a line each, as they are at this moment; how many jobs.

    `told` hears how many of how many jobs have been written.

    Raises:
        StoreUnusable: it is no file of a store.
    """
    with closing(opened(path, apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.execute("begin")
        whole, jobs = sum(int(str(connection.execute(count).get)) for count in ("select count(*) from job", COUNT_IN_BLOCKS)), 0
        write(_line(Head(VERSION, whole)))
        for table in (str(name) for (name,) in connection.execute(_TABLES).fetchall() if name not in STAYS):
            for row in _rows(connection, table):
                if table != "meta" or row["name"] in OWN_META:
                    write(_line(MovedRow(table, row)))
        for jobs, job in enumerate(heapq.merge(_jobs(connection), _jobs_in_blocks(connection), key=lambda moved: moved.job), 1):
            write(_line(job))
            told(jobs, whole)
        return jobs


def bring(lines: Iterable[bytes], path: Path, rng: Random, told: Callable[[int, int], None], *, now: float) -> int:
    """Make a file out of what `export` wrote; how many jobs are in it. It is there whole or not at all.

    Raises:
        StoreUnusable: there is such a file already, or a line is not what an export writes; the message says which.
    """
    if path.exists():
        raise StoreUnusable(f"{path} is there already: an import makes a new file, so that no id is given twice")
    part = path.with_name(path.name + ".part")
    _forget(part)
    try:
        with closing(open_writer(part, synchronous="full", rng=rng, is_shared=lambda: False)) as connection:
            jobs = _bring(lines, connection, told, now)
            connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        put_in_place(part, path)
    finally:
        _forget(part)
    return jobs


def _bring(lines: Iterable[bytes], connection: apsw.Connection, told: Callable[[int, int], None], now: float) -> int:
    jobs, head, place, into = 0, None, 0, _Into(connection, now)
    with connection:
        for place, raw in enumerate(lines, 1):
            try:
                if head is None:
                    head = msgspec.json.decode(raw, type=Head)
                    _check(head)
                elif raw.startswith(b'{"table"'):
                    into.put(msgspec.json.decode(raw, type=MovedRow))
                else:
                    into.put_job(msgspec.json.decode(raw, type=MovedJob))
                    jobs += 1
                    told(jobs, head.jobs)
            except (msgspec.DecodeError, apsw.Error, KeyError) as error:
                raise StoreUnusable(f"line {place} is not what an export writes: {error}") from None
        if head is None or jobs != head.jobs:
            raise StoreUnusable(f"the export ends after line {place}, before its end: nothing was imported")
        connection.execute(_COUNT)
    return jobs


class _Into:
    """A new file, and what has been put into it that jobs name."""

    def __init__(self, connection: apsw.Connection, now: float) -> None:
        self._connection = connection
        self._now = now
        tables = [str(name) for (name,) in connection.execute(_TABLES).fetchall()]
        self._columns = {table: _columns(connection, table) for table in tables if table not in STAYS}
        self._columns["job"] = [name for name in _columns(connection, "job") if name != "holder"]
        self._numbers: dict[str, dict[str, int]] = {"handler": {}, "queue": {}}

    def put(self, moved: MovedRow) -> None:
        """One row of another table. What names handlers and queues comes before the jobs that name them."""
        if moved.table == "job":
            raise KeyError(moved.table)
        self._insert(moved.table, moved.row)
        if moved.table in self._numbers:
            self._numbers[moved.table][moved.row["name"]] = moved.row["id"]

    def put_job(self, moved: MovedJob) -> None:
        """One job."""
        own = {
            "id": moved.job,
            "handler": self._numbers["handler"][moved.handler],
            "queue": self._numbers["queue"][moved.queue],
            "phase": int(_phase_of(moved, self._now)),
            "payload": bytes(moved.payload),
        }
        self._insert("job", moved.rest | own)

    def _insert(self, table: str, row: Mapping[str, Any]) -> None:
        columns = self._columns[table]
        if set(row) != set(columns):
            raise KeyError(f"table {table} has the columns {', '.join(columns)}")
        verb = "insert" if table == "job" else "insert or replace"  # a new file says some things of itself that the export knows better
        marks = ", ".join("?" * len(columns))
        self._connection.execute(f"{verb} into {table} ({', '.join(columns)}) values ({marks})", [row[name] for name in columns])


def _check(head: Head) -> None:
    if head.cabrank_schema != VERSION:
        raise StoreUnusable(
            f"the export has schema {head.cabrank_schema}, and this version of cabrank writes {VERSION}: import it with the version that "
            "wrote it, and open the file with this one"
        )


def _phase_of(moved: MovedJob, now: float) -> Phase:
    if moved.state is not State.WAITING:
        return SHELF_OF[moved.state]
    if moved.rest["due_at"] > now:
        return Phase.LATER
    return Phase.READY if moved.rest["allowance"] is None else Phase.IN_LINE


def _jobs(connection: apsw.Connection) -> Iterator[MovedJob]:
    """In the order of their ids."""
    rest = [name for name in _columns(connection, "job") if name not in NAMED]
    statement = f"""
        select job.id, handler.name, queue.name, phase, payload, {", ".join(f"job.{name}" for name in rest)}
        from job join handler on handler.id = job.handler join queue on queue.id = job.queue order by job.id
    """
    for id, handler, queue, phase, payload, *values in connection.execute(statement):
        state = STATE_OF[Phase(phase)]
        there = State.WAITING if state is State.RUNNING else state
        yield MovedJob(id, handler, queue, there, msgspec.Raw(payload), dict(zip(rest, values, strict=True)))


def _jobs_in_blocks(connection: apsw.Connection) -> Iterator[MovedJob]:
    """As `_jobs`, of those that run for the first time."""
    names = {table: dict(connection.execute(f"select id, name from {table}")) for table in ("handler", "queue")}
    for block in all_in(connection):
        rest: dict[str, Any] = {
            "priority": block.priority,
            "due_at": block.at,
            "deadline_at": block.deadline_at,
            "run": 1,
            "failures": 0,
            "crashes": 0,
        }
        rest |= {"allowance": None, "unique_key": None, "tags": None, "created_at": block.at, "started_at": block.at, "changed_at": 0.0}
        for id, payload in enumerate(block.cut(), block.first):
            handler, queue = names["handler"][block.handler], names["queue"][block.queue]
            yield MovedJob(id, handler, queue, State.WAITING, msgspec.Raw(payload), rest)


def _rows(connection: apsw.Connection, table: str) -> Iterator[dict[str, Any]]:
    columns = _columns(connection, table)
    for values in connection.execute(f"select {', '.join(columns)} from {table}"):
        yield dict(zip(columns, values, strict=True))


def _columns(connection: apsw.Connection, table: str) -> list[str]:
    return [str(name) for (name,) in connection.execute("select name from pragma_table_info(?)", (table,))]


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _forget(part: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        part.with_name(part.name + ending).unlink(missing_ok=True)
