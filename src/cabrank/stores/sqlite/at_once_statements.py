"""The one statement of an ordinary turn: a trigger does the rest, so the interpreter's lock is handed over once, not at each statement."""

from __future__ import annotations

from cabrank.stores.sqlite.block_statements import finish_blocks, keep_blocks
from cabrank.stores.sqlite.schema import Phase

COLUMNS = (
    # what the file must be like: a moment or null, [[queue, waiting, bytes, paused], …] and the queues that are claimed from as JSON
    *("holder", "later_at", "queues", "wanted"),
    # the turn, and the blocks that end in it: [[first, jobs, kept until, results or null], …] as JSON
    *("number", "now", "ended"),
    # the jobs that start in it, 0 of them or one block
    *("first", "jobs", "queue", "handler", "priority", "deadline_at", "sizes", "payloads"),
)
# Tables of the file by their own names; both go with the connection
VIEW = f"create temp view at_once as select {', '.join(f'null as {name}' for name in COLUMNS)}"
TRIGGER = f"""
create temp trigger takes_a_turn instead of insert on at_once begin
    select raise(abort, 'the file is not as it was') where not exists(select 1 from holder where id = new.holder)
        or exists(select 1 from cancelling) or exists(select 1 from allowance) or exists(select 1 from progress)
        or (select min(due_at) from job where phase = {Phase.LATER:d}) is not new.later_at
        or (select json_group_array(json_array(id, waiting, waiting_bytes, paused)) from queue) is not new.queues
        or exists(
            select 1 from json_each(new.wanted) as wanted cross join queue on queue.id = wanted.value and waiting > 0
            where exists(select 1 from job where phase = {Phase.READY:d} and job.queue = queue.id)
        )
        or exists(
            select 1 from json_each(new.ended) as its left join block on block.first = its.value ->> 0
            where block.holder is not new.holder or block.jobs is not its.value ->> 1
        );
    {keep_blocks("new.now", "new.holder", "new.ended")};
    {finish_blocks("new.ended")};
    insert into block (first, jobs, holder, turn, queue, handler, priority, at, deadline_at, sizes, payloads)
    select new.first, new.jobs, new.holder, new.number, new.queue, new.handler, new.priority, new.now, new.deadline_at,
        new.sizes, new.payloads where new.jobs > 0;
    update holder set turn = new.number where id = new.holder and new.jobs = 0;
end
"""
TAKE = f"insert into at_once values ({', '.join('?' * len(COLUMNS))})"
