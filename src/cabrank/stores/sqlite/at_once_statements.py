"""The one statement of an ordinary turn: a trigger does the rest, so the interpreter's lock is handed over once, not at each statement."""

from __future__ import annotations

from cabrank.stores.sqlite.block_statements import INTO_BLOCK, finish_blocks, keep_blocks, stand_as_rows
from cabrank.stores.sqlite.schema import Phase

COLUMNS = (
    # what the file must be like: a moment or null, [[queue, waiting, bytes, paused], …] and the queues that are claimed from as JSON
    *("holder", "later_at", "queues", "wanted"),
    # the turn, and the blocks that end in it: [[first, jobs, kept until, results or null], …] as JSON
    *("number", "now", "ended"),
    # the jobs that come with it, 0 of them or such as are alike: how many start as a block, how many wait as rows, and what waits then in
    # their queue; `parts` are the sizes of the payloads of a block, and of rows where each begins and its size, as JSON
    *("first", "queue", "handler", "priority", "deadline_at", "parts", "payloads"),
    *("start", "wait", "waiting", "waiting_bytes"),
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
        or {stand_as_rows("new.first", "new.start")}
        or exists(
            select 1 from json_each(new.ended) as its left join block on block.first = its.value ->> 0
            where block.holder is not new.holder or block.jobs is not its.value ->> 1
        );
    {keep_blocks("new.now", "new.holder", "new.ended")};
    {finish_blocks("new.ended")};
    {INTO_BLOCK}
    select new.first, new.start, new.holder, new.number, new.queue, new.handler, new.priority, new.now, new.deadline_at,
        new.parts, new.payloads where new.start > 0;
    insert into job (id, phase, queue, handler, priority, due_at, deadline_at, run, failures, crashes, payload, created_at)
    select new.first + key, {Phase.READY:d}, new.queue, new.handler, new.priority, new.now, new.deadline_at, 0, 0, 0,
        substr(new.payloads, value ->> 0, value ->> 1), new.now from json_each(new.parts) where new.wait > 0;
    update queue set waiting = new.waiting, waiting_bytes = new.waiting_bytes where id = new.queue and new.wait > 0;
    update holder set turn = new.number where id = new.holder and new.start = 0;
end
"""
TAKE = f"insert into at_once values ({', '.join('?' * len(COLUMNS))})"
