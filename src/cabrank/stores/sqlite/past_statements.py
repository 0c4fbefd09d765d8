"""Statements about runs that are over, or on their way: the errors that they ended with, how far they are, what is left of them."""

from __future__ import annotations

from cabrank.job import FAILED_RUNS, LOST
from cabrank.stores.contract import FINISHED_ERROR
from cabrank.stores.sqlite.schema import Phase

RUNNING, DEAD, HELD = int(Phase.RUNNING), int(Phase.DEAD), int(Phase.HELD)

# ----------------------------------------------------------------------------------------------------------------- errors

# (now, [[id, run, error type, error], …] as JSON)
FAIL = """
insert into failure (job, run, at, error_type, error, started_at)
select value ->> 0, value ->> 1, ?1, value ->> 2, value ->> 3, coalesce(job.started_at, 0)
from json_each(?2) left join job on job.id = value ->> 0
"""
# (now, holder)
CRASH = f"""
insert into failure (job, run, at, error_type, error, started_at)
select id, run, ?1, '{LOST}', 'the process that ran it died', started_at from job where phase = {RUNNING} and holder = ?2
"""
_TRIM = f"""
delete from failure where id in (
    select id from (
        select id, row_number() over (partition by job order by run) as oldest,
               row_number() over (partition by job order by run desc) as newest
        from failure where job in ({{those}})
    ) where oldest > 1 and newest > {FAILED_RUNS - 1}
)
"""
TRIM = _TRIM.format(those="select value from carray(?)")
TRIM_CRASHED = _TRIM.format(those=f"select id from job where phase = {RUNNING} and holder = ? and run > {FAILED_RUNS}")
# → [[job, [[run, moment, error type, the end of the error, when it started], …]], …]
FAILED_RUNS_OF = f"""
select json_group_array(json_array(job, json(runs))) from (
    select job, json_group_array(json_array(run, at, error_type, substr(error, -{FINISHED_ERROR}), started_at) order by run) as runs
    from failure where job in carray(?) group by job
)
"""
FORGET_FAILURES = "delete from failure where job in carray(?)"
FORGET_PURGED_FAILURES = "delete from failure where job in carray(?) and job not in (select id from job)"
# (before): of jobs that nobody came for
OLD_FAILURES = (
    f"delete from failure where job in (select id from job natural join note where phase between {DEAD} and {HELD - 1} and at < ?)"
)

# --------------------------------------------------------------------------------------------------------------- progress

# [[id, run, moment, fraction, note], …] as JSON
PROGRESS = f"""
insert or replace into progress
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each(?)
where exists (select 1 from job where job.id = value ->> 0 and job.run = value ->> 1 and phase = {RUNNING})
"""
FORGET_PROGRESS = "delete from progress where id in carray(?)"
FORGET_OLD_PROGRESS = f"delete from progress where id not in (select id from job where phase = {RUNNING})"

# ---------------------------------------------------------------------------------------------------------- what is done

_AGE = "cast((?1 - created_at) * 1000000 as integer)"  # microseconds: a fifth of the text of a moment, and of the time to write it
# (now, ids) → handler, queue, [[id, age], …]
BY_HANDLER = f"select handler, queue, json_group_array(json_array(id, {_AGE})) from job where id in carray(?2) group by handler, queue"
_DONE = "insert into done (at, until, handler, queue, first, last, jobs, ids, results, size, ages)"
KEEP_DONE = f"{_DONE} values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def keep_alike(keep_s: str) -> str:
    """Keep jobs of one handler and queue, which nearly all of a turn are: (now, first, last, jobs, packed ids, results, size, ids).

    The ages follow the ids upwards, as SQLite looks rows up in the order of their numbers. Nothing is inserted if the jobs are of
    several handlers or queues. `keep_s` is for how long, as SQL.
    """
    return f"""
    {_DONE} select ?1, ?1 + {keep_s}, min(handler), min(queue), ?2, ?3, ?4, ?5, ?6, ?7, group_concat({_AGE}) from job where id in carray(?8)
    having min(handler) = max(handler) and min(queue) = max(queue)
    """


_NAMES = "coalesce(handler.name, ''), coalesce(queue.name, '')"
_NAMED = "left join handler on handler.id = done.handler left join queue on queue.id = done.queue"
# (least id, greatest id), the newest first
# the + keeps SQLite from reading all of it for the sake of the order
FIND_DONE = f"select at, {_NAMES}, ages, ids, results from done {_NAMED} where last >= ?1 and first <= ?2 order by +done.id desc"
# (after, queue, handler)
BROWSE_DONE = f"""
select at, {_NAMES}, ages, ids from done {_NAMED}
where last > ?1 and (?2 = '' or queue.name = ?2) and (?3 = '' or handler.name = ?3)
"""
OLD_DONE = "delete from done where until < ?"
KEPT = """
select coalesce(sum(jobs), 0), coalesce(sum(size), 0) from (select jobs, size from done union all select jobs, size from done_block)
"""
# (jobs, bytes) → the moment and the last id of the newest row that is beyond these bounds
EXCESS = """
select at, last from (
    select at, last, sum(jobs) over newest as jobs, sum(size) over newest as size from (
        select at, last, jobs, size from done union all select at, first + jobs - 1, jobs, size from done_block
    ) window newest as (order by at desc, last desc rows unbounded preceding)
) where jobs > ? or size > ? order by at desc, last desc limit 1
"""
EXCESS_DONE = "delete from done where (at, last) <= (?, ?)"
EXCESS_DONE_BLOCKS = "delete from done_block where (at, first + jobs - 1) <= (?, ?)"

# ----------------------------------------------------------------------------------------------------------------- people

# (id) → its unique key, and the unfinished job that has it
TAKEN = f"""
select job.unique_key, other.id from job join job as other indexed by job_unique
on other.handler = job.handler and other.unique_key = job.unique_key and other.unique_key is not null and other.id <> job.id
where job.id = ? and job.phase >= {DEAD} and (other.phase < {DEAD} or other.phase = {HELD}) limit 1
"""
