"""The statements for jobs of limited handlers. Each stands in the line of its allowance, which is one key of one handler.

`allowance.opens_at` says whether a claim looks at the line: at `OPEN` it does; null means that no job of it is ready, `FULL` that as
many run as may, and a moment of the monotonic clock that its rate allows no start before it.
"""

from __future__ import annotations

from cabrank.stores.sqlite.schema import Phase

READY, RUNNING, LATER, IN_LINE = int(Phase.READY), int(Phase.RUNNING), int(Phase.LATER), int(Phase.IN_LINE)
OPEN, FULL = 0, -1

# ---------------------------------------------------------------------------------------------------------------- the turn

# ([handler, …] as JSON, now)
OPEN_DUE = f"""
update allowance set opens_at = {OPEN} where opens_at > 0 and opens_at <= ?2 and handler in (select value from json_each(?1))
"""
# [handler, …] as JSON → [[handler, a queue where one of its lines is open, another if there is one], …]
OPEN_HANDLERS = f"""
select json_group_array(json_array(handler, one, another)) from (
    select its.value as handler, (select min(queue) from allowance where opens_at = {OPEN} and handler = its.value) as one,
           (select max(queue) from allowance where opens_at = {OPEN} and handler = its.value) as another
    from json_each(?) as its
) where one is not null
"""
TAKE_PLACES = "update meta set value = value + ? where name = 'place' returning value"

# -------------------------------------------------------------------------------------------------------------- admission

# (first place, [[queue, handler, key, is a job ready], …] as JSON): a line that had nothing ready stands behind all others
JOIN = f"""
insert into allowance (queue, handler, key, place, opens_at)
select value ->> 0, value ->> 1, value ->> 2, ?1 + key, iif(value ->> 3, {OPEN}, null) from json_each(?2) where true
on conflict (handler, queue, key) do update set opens_at = {OPEN}, place = excluded.place
where opens_at is null and excluded.opens_at = {OPEN}
"""
# the same rows → [[allowance, queue, handler, key], …]
LINES_OF = """
select json_group_array(json_array(allowance.id, allowance.queue, allowance.handler, allowance.key))
from json_each(?) as its cross join allowance
on allowance.handler = its.value ->> 1 and allowance.queue = its.value ->> 0 and allowance.key = its.value ->> 2
"""
# ([[id, phase, queue, handler, priority, due, deadline, allowance, first byte, bytes], …] as JSON, all payloads in one, now)
INSERT = """
insert into job (id, phase, queue, handler, priority, due_at, deadline_at, allowance, run, failures, crashes, payload, created_at)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, 0, 0, 0,
       substr(?2, value ->> 8, value ->> 9), ?3
from json_each(?1)
"""
# (allowance, ids): jobs that came before their handler had a limit
TAKE_IN = f"update job set phase = {IN_LINE}, allowance = ? where phase = {READY} and id in carray(?)"

# ------------------------------------------------------------------------------------------------------------------ claims

# (queue, handler, how many lines, running jobs to count up to) → [[allowance, place, full at, running], …]
OPEN_LINES = f"""
select json_group_array(json_array(id, place, full_at,
    (select count(*) from (select 1 from job where allowance = line.id and phase = {RUNNING} limit ?4))))
from (select id, place, full_at from allowance where opens_at = {OPEN} and queue = ?1 and handler = ?2 order by place limit ?3) as line
"""
# ([allowance, …] as JSON, how many of each) → [[allowance, priority, due, id, crashes, bytes], …]
HEADS = f"""
select json_group_array(json_array(line.value, priority, due_at, job.id, crashes, length(payload)))
from json_each(?1) as line cross join job on job.id in (
    select id from job as its where its.allowance = line.value and its.phase = {IN_LINE} order by priority, due_at, id limit ?2
)
"""
# [[allowance, place, opens at, full at], …] as JSON
LEAVE = """
update allowance set place = v.place, opens_at = v.opens_at, full_at = v.full_at
from (
    select value ->> 0 as id, value ->> 1 as place, value ->> 2 as opens_at, value ->> 3 as full_at from json_each(?)
) as v
where allowance.id = v.id
"""
# [handler, …] as JSON
NEXT_OPEN = """
select min((select min(opens_at) from allowance where opens_at > 0 and handler = its.value)) from json_each(?) as its
"""

# ------------------------------------------------------------------------------------- jobs that get ready, and leave running

FREE = f"""
update allowance set opens_at = {OPEN} where opens_at = {FULL}
and id in (select allowance from job where phase = {RUNNING} and allowance is not null and id in carray(?))
"""
COME_BACK = f"""
update allowance set opens_at = {OPEN}, place = ? where opens_at is null
and id in (select allowance from job where phase = {IN_LINE} and id in carray(?))
"""
PROMOTE = f"""
update allowance set opens_at = {OPEN}, place = ? where opens_at is null
and id in (select allowance from job where phase = {LATER} and due_at <= ? and allowance is not null)
"""
GIVE_BACK = f"""
update allowance set opens_at = {OPEN} where (opens_at is null or opens_at = {FULL})
and id in (select allowance from job where phase = {RUNNING} and holder = ? and allowance is not null)
"""
REOPEN = f"update allowance set opens_at = {OPEN} where opens_at is null and id = (select allowance from job where id = ?)"

# --------------------------------------------------------------------------------------------------------- upkeep and people

CLOCK = "select value from meta where name = 'clock'"
SET_CLOCK = "update meta set value = ? where name = 'clock'"
# (handler, moment): moments of an earlier clock mean nothing
FORGET_CLOCK = f"""
update allowance set full_at = ?2, opens_at = iif(opens_at > 0, {OPEN}, opens_at) where handler = ?1 and (full_at > 0 or opens_at > 0)
"""
DECLARED = "select handler, running, per_s, burst from declared"
DECLARE = "insert or replace into declared (handler, running, per_s, burst) values (?, ?, ?, ?)"
# (most lines, now): those that stood for nothing the longest, if no job of theirs is left and they would start full again
OLD_LINES = """
delete from allowance where id in (select id from allowance where opens_at is null order by place limit ?)
and full_at <= ? and not exists (select 1 from job where job.allowance = allowance.id)
"""
# id → (handler, key, full at, running, the limit's running, per second and burst)
STANDING = f"""
select handler.name, allowance.key, allowance.full_at,
       (select count(*) from job as its where its.allowance = allowance.id and its.phase = {RUNNING}),
       declared.running, declared.per_s, declared.burst
from job join allowance on allowance.id = job.allowance join handler on handler.id = allowance.handler
     join declared on declared.handler = allowance.handler
where job.id = ? and job.phase in ({IN_LINE}, {LATER}) and (declared.running is not null or declared.per_s is not null)
"""
