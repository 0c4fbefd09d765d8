"""Every statement that a turn and its neighbours run, in the order in which a job meets them.

Values come as parameters. What is formatted in are our own phase numbers, which a partial index must see as constants. Many rows go
in as one array or one JSON text and come out as one JSON text: each row and each statement hands over the interpreter's lock once.
"""

from __future__ import annotations

import functools

from cabrank.job import PRIORITIES
from cabrank.stores.sqlite.schema import Phase

READY, RUNNING, LATER, IN_LINE = int(Phase.READY), int(Phase.RUNNING), int(Phase.LATER), int(Phase.IN_LINE)
DEAD, CANCELLED, EXPIRED, HELD = int(Phase.DEAD), int(Phase.CANCELLED), int(Phase.EXPIRED), int(Phase.HELD)
GETS_READY = f"iif(allowance is null, {READY}, {IN_LINE})"

# ---------------------------------------------------------------------------------------------------------------- the turn

# (holder) → its last turn, when a job is due next, whether somebody cancelled, whether there are limits, whether somebody told how
# far it is,
# [[queue, waiting, bytes, is one ready, is it paused], …]
LOOK = f"""
select (select turn from holder where id = ?1),
       (select min(due_at) from job where phase = {LATER}),
       exists(select 1 from cancelling),
       exists(select 1 from allowance),
       exists(select 1 from progress),
       (select json_group_array(json_array(id, waiting, waiting_bytes,
           waiting > 0 and exists(select 1 from job where phase = {READY} and queue = queue.id), paused)) from queue)
"""
COUNT_QUEUE = "update queue set waiting = ?, waiting_bytes = ? where id = ?"
TURN_DONE = "update holder set turn = ? where id = ?"

# -------------------------------------------------------------------------------------------------------------- admission

# ([key, …] as JSON, now) → [[key, digest, first id, jobs], …]
RECEIPTS = """
select json_group_array(json_array(key, digest, first_id, jobs)) from receipt
where key in (select value from json_each(?)) and until > ?
"""
REMEMBER = """
insert or replace into receipt select value ->> 0, ?, value ->> 1, value ->> 2, value ->> 3 from json_each(?)
"""
# Jobs that differ only in id and payload: (id before the first, phase, queue, handler, priority, due, deadline, run, holder, payloads,
# now, when it started)
INSERT = """
insert into job (id, phase, queue, handler, priority, due_at, deadline_at, run, failures, crashes, holder, payload, created_at, started_at)
select ?1 + rowid, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, ?9, value, ?11, ?12 from carray(?10)
"""

# ([[id, unique key or null, tags or null], …] as JSON)
MARK = """
update job set unique_key = v.unique_key, tags = v.tags
from (select value ->> 0 as id, value ->> 1 as unique_key, value ->> 2 as tags from json_each(?)) as v where job.id = v.id
"""
# [[handler, unique key], …] as JSON → [[handler, unique key, id, phase, queue, bytes], …] of unfinished and dead jobs, the oldest first
UNFINISHED = f"""
select json_group_array(json_array(handler, unique_key, id, phase, queue, size)) from (
    select job.handler, unique_key, job.id, phase, job.queue, length(payload) as size
    from json_each(?) as its cross join job indexed by job_unique
    on job.handler = its.value ->> 0 and job.unique_key = its.value ->> 1 and unique_key is not null
    where phase in ({READY}, {LATER}, {IN_LINE}, {RUNNING}, {HELD}, {DEAD}) order by job.id
)
"""
# (id, due, now)
DEBOUNCE = f"update job set phase = iif(?2 > ?3, {LATER}, {GETS_READY}), due_at = ?2 where id = ?1"
NOTE_WHY = "insert or replace into note (id, at, reason, error) values (?, ?, ?, '')"

# ------------------------------------------------------------------------------------------------------------------ claims

PROMOTE = f"update job set phase = {GETS_READY} where phase = {LATER} and due_at <= ?"
NEXT_DUE = f"select min(due_at) from job where phase = {LATER}"
COLUMNS = (
    "id",
    "run",
    "failures",
    "crashes",
    "handler",
    "priority",
    "due_at",
    "deadline_at",
    "length(payload)",
    "payload",
)  # white space around a payload is lost in one array: its size is not


def ready(handlers: str) -> str:
    """The jobs that are claimed next, for handlers given as numbers: (queue, how many) → rows of `COLUMNS`."""
    return f"""
    select {", ".join(COLUMNS)} from job where phase = {READY} and queue = ?1 and handler in ({handlers})
    order by priority, due_at, id limit ?2
    """


def ready_aged(handlers: str, aging_s: float) -> str:
    """As `ready`, but a priority that is one better is worth `aging_s` seconds of waiting: the first of each priority, merged."""
    each = " union all ".join(
        f"""select * from (
        select id, due_at, priority from job
        where phase = {READY} and queue = ?1 and priority = {priority} and handler in ({handlers}) order by due_at, id limit ?2)"""
        for priority in PRIORITIES
    )
    order = f"order by due_at + priority * {float(aging_s)!r}, id"
    return f"select {', '.join(COLUMNS)} from job where id in (select id from ({each}) {order} limit ?2) {order}"


@functools.cache
def packed(rows: str) -> str:
    """Rows of `COLUMNS` as one JSON array of arrays."""
    numbers = " || ',' || ".join(COLUMNS[:-1])
    return f"""
    select cast('[' || group_concat('[' || {numbers} || ',' || cast(payload as text) || ']') || ']' as blob) from ({rows})
    """


BY_ID = f"select {', '.join(COLUMNS)} from job where id in carray(?)"
CLAIM = f"update job set phase = {RUNNING}, run = run + 1, holder = ?, started_at = ? where id in carray(?)"
CANCELS = f"select id, run from cancelling natural join job where phase = {RUNNING} and holder = ?"

# ------------------------------------------------------------------------------------------------------------- settlements

STILL_RUNNING = f"select json_group_array(json_array(id, run)) from job where phase = {RUNNING} and id in carray(?)"
FINISH = f"delete from job where id in carray(?) and run = ? and phase = {RUNNING}"
# [[id, run, due, phase, failures to add, crashes to add], …] as JSON
PUT_BACK = f"""
update job set phase = iif(v.phase = {READY}, {GETS_READY}, v.phase), due_at = v.due_at,
    failures = failures + v.failed, crashes = crashes + v.crashed, holder = null, changed_at = ?2
from (
    select value ->> 0 as id, value ->> 1 as run, value ->> 2 as due_at, value ->> 3 as phase, value ->> 4 as failed, value ->> 5 as crashed
    from json_each(?1)
) as v
where job.id = v.id and job.run = v.run and job.phase = {RUNNING}
"""
SIZES = """
select json_group_array(json_array(queue, jobs, size))
from (select queue, count(*) as jobs, sum(length(payload)) as size from job where id in carray(?) group by queue)
"""
# [[id, run, phase, failures to add, crashes to add], …] as JSON
SHELVE = f"""
update job set phase = v.phase, failures = failures + v.failed, crashes = crashes + v.crashed, holder = null
from (
    select value ->> 0 as id, value ->> 1 as run, value ->> 2 as phase, value ->> 3 as failed, value ->> 4 as crashed from json_each(?)
) as v
where job.id = v.id and job.run = v.run and job.phase = {RUNNING}
"""
ANNOTATE = "insert or replace into note (id, at, reason, error) select value ->> 0, ?, value ->> 1, value ->> 2 from json_each(?)"
FORGET_NOTES = "delete from note where id in carray(?)"
CANCELLING = "select json_group_array(id) from cancelling where id in carray(?)"
FORGET_CANCELLING = "delete from cancelling where id in carray(?)"

# ----------------------------------------------------------------------------------------------------------------- holders

REGISTER = "insert into holder (boot, expires_at) values (?, ?)"
RENEW = "update holder set expires_at = ? where id = ?"
LEAVE = "delete from holder where id = ?"
HOLDERS = "select id from holder"
OTHERS = "select id, boot, expires_at from holder where id <> ?"


def crashed_out(limit: str) -> tuple[str, str, str]:
    """Jobs of a dead holder that are given up: (holder) which, (holder, now) why, and (holder) that they are.

    `limit` is the crashes allowed, as SQL.
    """
    those = f"phase = {RUNNING} and holder = ?1 and crashes + 1 >= {limit}"
    return (
        f"""
        select job.id, handler.name, queue.name, payload, priority, due_at, deadline_at, run, failures, crashes
        from job join handler on handler.id = handler join queue on queue.id = queue where {those}
        """,
        f"""
        insert or replace into note
        select id, ?2, 'worker_lost', 'its process died ' || (crashes + 1) || ' times under it' from job where {those}
        """,
        f"update job set phase = {DEAD}, holder = null, crashes = crashes + 1 where {those}",
    )


END_CANCELLED = f"""
update job set phase = {CANCELLED}, holder = null, crashes = crashes + ?
where phase = {RUNNING} and holder = ? and id in (select id from cancelling)
"""
FORGET_ENDED_CANCELLING = f"delete from cancelling where id not in (select id from job where phase = {RUNNING})"
COUNT_BACK = f"""
update queue set waiting = waiting + back.jobs, waiting_bytes = waiting_bytes + back.size
from (select queue, count(*) as jobs, sum(length(payload)) as size from job where phase = {RUNNING} and holder = ? group by queue) as back
where queue.id = back.queue
"""
GIVE_BACK = f"""
update job set phase = {GETS_READY}, holder = null, due_at = ?1, changed_at = ?1, crashes = crashes + ?2
where phase = {RUNNING} and holder = ?3
"""

# ----------------------------------------------------------------------------------------------------------------- pruning

OLD_RECEIPTS = "delete from receipt where until < ?"
EXCESS_RECEIPTS = "delete from receipt where key in (select key from receipt order by until desc limit -1 offset ?)"
OLD_SHELVED = f"delete from job where phase in ({DEAD}, {CANCELLED}, {EXPIRED}) and id in (select id from note where at < ?)"
OLD_NOTES = "delete from note where at < ? and id not in (select id from job)"

# ------------------------------------------------------------------------------------------------------------------ people

TAKE_IDS = "update meta set value = value + ? where name = 'next_id' returning value"
BELL_FOLDER = "select value from meta where name = 'bells'"
SET_BELL_FOLDER = "insert or replace into meta values ('bells', ?)"
PREFIX = "select value from meta where name = 'prefix'"
COUNT_OUT = f"""
update queue set waiting = waiting - 1, waiting_bytes = waiting_bytes - length(job.payload)
from job where job.id = ? and job.queue = queue.id and job.phase in ({READY}, {LATER}, {IN_LINE})
"""
CANCEL_WAITING = f"update job set phase = {CANCELLED} where id = ? and phase in ({READY}, {LATER}, {IN_LINE}, {HELD})"
CANCEL_RUNNING = f"insert or ignore into cancelling (id, at) select id, ?2 from job where id = ?1 and phase = {RUNNING}"
IS_RUNNING = f"select count(*) from job where id = ? and phase = {RUNNING}"
NOTE = "insert or replace into note (id, at, reason, error) values (?, ?, '', '')"
COUNT_IN = f"""
update queue set waiting = waiting + 1, waiting_bytes = waiting_bytes + length(job.payload)
from job where job.id = ? and job.queue = queue.id and job.phase >= {DEAD}
"""
REOPEN = f"""
update job set phase = {GETS_READY}, due_at = ?2, changed_at = ?2, failures = 0, crashes = 0 where id = ?1 and phase >= {DEAD}
"""
PURGE = f"delete from job where id in carray(?) and phase >= {DEAD}"
FORGET_PURGED_NOTES = "delete from note where id in carray(?) and id not in (select id from job)"
FORGET_NOTE = "delete from note where id = ?"
PAUSE = "update queue set paused = ? where id = ?"

# Rows in the order of `JobRecord`; jobs first, then what is known of them
RECORD = """
select job.id, handler.name, queue.name, phase, run, failures, crashes, priority, due_at,
       created_at, started_at, max(created_at, started_at, changed_at, coalesce(note.at, 0)),
       coalesce(tags, '[]'), coalesce(note.reason, ''),
       coalesce(nullif(note.error, ''), (select error from failure where failure.job = job.id order by run desc limit 1), ''),
       (select at from cancelling where cancelling.id = job.id)
"""
KNOWN = "cross join handler on handler.id = job.handler cross join queue on queue.id = job.queue left join note on note.id = job.id"
FIND = f"""
{RECORD},
    (select json_group_array(json_array(run, at, error_type, error, started_at) order by run) from failure where failure.job = job.id),
    (select json_array(id, run, at, fraction, note) from progress where progress.id = job.id and progress.run = job.run)
from job {KNOWN} where job.id in carray(?)
"""

# (after, rows to look at) → how many there are, the last id of them. A page is then chosen among those.
LOOK_AT_ALL = "select count(*), coalesce(max(id), 0) from (select id from job where id > ?1 order by id limit ?2)"
LOOK_AT_SHELF = f"""
select count(*), coalesce(max(id), 0)
from (select id from job indexed by job_shelved where phase >= {DEAD} and phase = ?3 and queue = ?4 and id > ?1 order by id limit ?2)
"""
_CHOSEN = "(?3 = '' or queue.name = ?3) and (?4 = '' or handler.name = ?4)"
_IN_ORDER = "order by job.id limit ?2"
BROWSE = f"{RECORD} from job {KNOWN} where job.id > ?1 and job.id <= ?5 and {_CHOSEN} {_IN_ORDER}"
BROWSE_WAITING = f"""
{RECORD} from job {KNOWN}
where job.id > ?1 and job.id <= ?5 and +phase in ({READY}, {LATER}, {IN_LINE}) and {_CHOSEN} {_IN_ORDER}
"""
BROWSE_RUNNING = f"""
{RECORD} from job indexed by job_running {KNOWN} where phase = {RUNNING} and +job.id > ?1 and {_CHOSEN} {_IN_ORDER}
"""
BROWSE_SHELF = f"""
{RECORD} from job indexed by job_shelved {KNOWN}
where phase >= {DEAD} and phase = ?3 and job.queue = ?4 and job.id > ?1 and job.id <= ?6 and (?5 = '' or handler.name = ?5) {_IN_ORDER}
"""
QUEUES = "select id, name from queue"
# (queue, most, now, priority): those that have become due since the last turn are ready too
# (queue, most, now): those that have become due since the last turn are ready too
COUNT_READY = f"""
select count(*) from (
    select 1 from (select id from queue where name = ?1) as wanted join job on job.queue = wanted.id
    where phase = {READY} and priority <= ?4
    union all
    select 1 from (select id from queue where name = ?1) as wanted join job on job.queue = wanted.id
    where phase = {LATER} and due_at <= ?3 and priority <= ?4
    limit ?2
)
"""
# "phase >= DEAD" lets the partial index of the shelved answer
TALLY = f"""
select name, waiting, waiting_bytes, paused,
       (select count(*) from job where phase = {RUNNING} and job.queue = queue.id)
           + (select coalesce(sum(jobs), 0) from block where block.queue = queue.id),
       (select count(*) from job where phase >= {DEAD} and phase = {DEAD} and job.queue = queue.id),
       (select count(*) from job where phase >= {DEAD} and phase = {HELD} and job.queue = queue.id)
from queue
"""
