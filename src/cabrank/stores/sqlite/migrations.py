"""The tables of the file, as the steps in which they came to be. `docs/internals/sqlite.md` says why each is as it is.

A step that has landed never changes: what is to be different is a new step at the end. New and old files go through the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import apsw

from cabrank.errors import StoreUnusable
from cabrank.job import new_prefix

APPLICATION_ID = 0x63616272  # "cabr": tells our files from others


class Step(NamedTuple):
    """What makes a file of the version before into one of this version. A column that is added needs a default."""

    version: int
    sql: str


_FIRST = """
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

_LIMITS = """
alter table job add column allowance integer;
create index job_limited on job (allowance, phase, priority, due_at, id) where allowance is not null;
create table allowance (
    id integer primary key, handler integer not null, queue integer not null, key text not null,
    place integer not null, opens_at real, full_at real not null default 0
);
create unique index allowance_key on allowance (handler, queue, key);
create index allowance_open on allowance (handler, queue, place) where opens_at = 0;
create index allowance_opens on allowance (handler, opens_at) where opens_at > 0;
create index allowance_idle on allowance (place) where opens_at is null;
create table declared (handler integer primary key, running integer, per_s real, burst real);
insert into meta values ('place', 0), ('clock', '');
"""

_MARKS = """
alter table job add column unique_key text;
alter table job add column tags text;
alter table job add column created_at real not null default 0;
alter table job add column started_at real not null default 0;
alter table job add column changed_at real not null default 0;
create index job_unique on job (handler, unique_key) where unique_key is not null;
"""

_SCHEDULES = "create table schedule (name text primary key, spec text not null, tick_at real not null) without rowid"

_PAST = """
create table failure (
    id integer primary key, job integer not null, run integer not null, at real not null, error_type text not null, error text not null
);
create index failure_of on failure (job, run);
create table progress (id integer primary key, run integer not null, at real not null, fraction real not null, note text not null);
alter table done add column handler integer;
alter table done add column queue integer;
alter table done add column until real not null default 0;
update done set until = at + 3600;
insert into failure (job, run, at, error_type, error)
    select job.id, run, note.at, '', note.error from note join job on job.id = note.id where note.error <> '' and phase <> 6;
update note set error = '' where id in (select id from job where phase <> 6);
"""

_TIMELINE = """
alter table failure add column started_at real not null default 0;
alter table cancelling add column at real not null default 0;
"""

_BLOCKS = """
create table block (
    first integer primary key, jobs integer not null, holder integer not null, turn integer not null,
    queue integer not null, handler integer not null, priority integer not null, at real not null, deadline_at real not null,
    sizes text not null, payloads blob not null
);
create table done_block (
    first integer primary key, jobs integer not null, created_at real not null, at real not null, until real not null,
    handler integer not null, queue integer not null, size integer not null, results text
);
"""

STEPS = (
    Step(1, _FIRST),
    Step(2, _LIMITS),
    Step(3, _MARKS),
    Step(4, "alter table queue add column paused integer not null default 0"),
    Step(5, _SCHEDULES),
    Step(6, _PAST),
    Step(7, _TIMELINE),
    Step(8, "alter table done add column ages text"),
    Step(9, _BLOCKS),
)
VERSION = STEPS[-1].version


def migrate(path: Path, connection: apsw.Connection, rng: Random, *, is_shared: Callable[[], bool]) -> None:
    """Take the steps that the file lacks, all in one transaction. `is_shared`: whether another process has it open.

    Raises:
        StoreUnusable: a newer version made the file, or one of an older version is at work with it.
    """
    found = int(str(connection.execute("pragma user_version").get))
    if found == VERSION:
        return
    if found > VERSION:
        raise StoreUnusable(
            f"{path} has schema {found}, and this version of cabrank knows schemas up to {VERSION}: "
            "use the version that wrote it, or a later one"
        )
    if found and is_shared():
        raise StoreUnusable(
            f"{path} has schema {found} and must be migrated to {VERSION}, but another process has it open: "
            "stop all that use it, then start this version"
        )
    with connection:
        for step in STEPS:
            if step.version > found:
                connection.execute(step.sql)
        if not found:
            connection.execute("insert into meta values ('prefix', ?), ('next_id', 1)", (new_prefix(rng),))
            connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {VERSION}")
