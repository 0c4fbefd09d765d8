"""An older file goes through the steps that it lacks, whole or not at all; its jobs go on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from cabrank.clock import SystemClock
from cabrank.errors import StoreUnusable
from cabrank.job import Settlement
from cabrank.settings import Settings
from cabrank.states import Cause, State
from cabrank.stores.contract import Terms, Want
from cabrank.stores.sqlite import SqliteStore, migrations
from cabrank.stores.sqlite.migrations import STEPS, VERSION, Step

TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})

VERSION_1 = """
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

insert into meta values ('prefix', 'abcdefgh'), ('next_id', 1048577);
insert into handler values (1, 'work'), (2, 'other');
insert into queue values (1, 'line', 3, 11);
insert into job values
    (1, 0, 1, 1, 0, 1000, 1e999, 0, 0, 0, null, cast('"one"' as blob)),
    (2, 0, 1, 1, 0, 1001, 1e999, 2, 1, 1, null, cast('"two"' as blob)),
    (3, 0, 1, 2, 0, 1001, 1e999, 0, 0, 0, null, cast('3' as blob)),
    (4, 3, 1, 1, 0, 1001, 1e999, 1, 1, 0, null, cast('4' as blob));
insert into note values (4, 1e12, 'gave_up', 'ValueError: four');
insert into done values (1, 1e12, 5, 5, 1, x'0500000000000000', '[[5,1,"five"]]', 14);
insert into receipt values ('again', 1e12, 'beef', 1, 2);
pragma application_id = 1667326578;
pragma user_version = 1;
"""  # as the first version made it, never to be changed


def tables(path: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        rows: list[Any] = connection.execute("select type, name, sql from sqlite_schema order by name").fetchall()
        return rows


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.db"
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(VERSION_1)
    return path


async def test_the_jobs_of_a_file_of_version_1_go_on(old: Path) -> None:
    store = SqliteStore(old, SystemClock())
    await store.open(TERMS)
    assert store.prefix == "abcdefgh"
    turn = await store.turn(1, new=(), settlements=(), want={"line": Want(jobs=9, bytes=99, idle=9)})
    assert [(lease.job.id, lease.run, lease.failures, lease.crashes, lease.job.payload) for lease in turn.leases] == [
        (1, 1, 0, 0, b'"one"'),
        (2, 3, 1, 1, b'"two"'),
    ]
    await store.turn(2, new=(), settlements=[Settlement(1, 1, Cause.RETURNED), Settlement(2, 3, Cause.RETURNED)], want={})
    records = await store.find([1, 3, 4, 5])
    assert {id: record.state for id, record in records.items()} == {1: State.DONE, 3: State.WAITING, 4: State.DEAD, 5: State.DONE}
    assert records[4].error == "ValueError: four"
    assert records[5].result == b'"five"'
    await store.close()


async def test_a_migrated_file_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    for path in (old, tmp_path / "new.db"):
        store = SqliteStore(path, SystemClock())
        await store.open(TERMS)
        await store.close()
    assert tables(old) == tables(tmp_path / "new.db")


async def test_a_step_that_fails_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tables(old)
    monkeypatch.setattr(migrations, "STEPS", (*STEPS, Step(VERSION + 1, "create table half (a); insert into nowhere values (1);")))
    monkeypatch.setattr(migrations, "VERSION", VERSION + 1)
    with pytest.raises(apsw.SQLError, match="nowhere"):
        await SqliteStore(old, SystemClock()).open(TERMS)
    assert tables(old) == before
    with contextlib.closing(apsw.Connection(str(old))) as connection:
        assert connection.execute("pragma user_version").get == 1


async def test_an_older_file_is_not_migrated_under_a_process_that_has_it_open(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work = "import asyncio, sys; from tests.contract.sqlite import test_migrations as t; asyncio.run(t.work(sys.argv[1]))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", at_work, str(old), stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"open\n"
    monkeypatch.setattr(migrations, "STEPS", (*STEPS, Step(VERSION + 1, "create table more (a)")))
    monkeypatch.setattr(migrations, "VERSION", VERSION + 1)
    with pytest.raises(StoreUnusable, match="another process has it open"):
        await SqliteStore(old, SystemClock()).open(TERMS)
    process.kill()
    await process.communicate()
    store = SqliteStore(old, SystemClock())
    await store.open(TERMS)
    await store.close()
    assert any(name == "more" for _, name, _ in tables(old))


async def work(path: str) -> None:
    """A process that has the file open until it is killed."""
    await SqliteStore(path, SystemClock()).open(TERMS)
    sys.stdout.write("open\n")
    sys.stdout.flush()
    sys.stdin.read()


def test_steps_are_in_order() -> None:
    assert [step.version for step in STEPS] == list(range(1, VERSION + 1))
