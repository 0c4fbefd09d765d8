"""Statements about blocks: jobs that one turn stored as running, all in one row, and what is kept of those that ended together."""

from __future__ import annotations

# ------------------------------------------------------------------------------------------------------------------- turns

INTO_BLOCK = "insert into block (first, jobs, holder, turn, queue, handler, priority, at, deadline_at, sizes, payloads)"


def stand_as_rows(first: str, jobs: str) -> str:
    """Whether some of so many jobs from `first` on are rows already. Both are given as SQL."""
    return f"exists(select 1 from job where id between {first} and {first} + {jobs} - 1)"


INSERT_BLOCK = f"""
{INTO_BLOCK} select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 where not {stand_as_rows("?1", "?2")}
"""


def keep_blocks(now: str, holder: str, ended: str) -> str:
    """Keep what ended. `ended`: [[first, jobs, kept until, results or null], …] as JSON. Each is given as SQL."""
    return f"""
    insert into done_block (first, jobs, created_at, at, until, handler, queue, size, results)
    select block.first, block.jobs, at, {now}, value ->> 2, handler, queue, coalesce(octet_length(value ->> 3), 0), value ->> 3
    from json_each({ended}) cross join block on block.first = value ->> 0 and block.jobs = value ->> 1 and block.holder = {holder}
    """


def finish_blocks(ended: str) -> str:
    """Delete the same."""
    return f"delete from block where first in (select value ->> 0 from json_each({ended}))"


KEEP_BLOCKS = keep_blocks("?1", "?2", "?3")
FINISH_BLOCKS = finish_blocks("?1")
LAST_TURN = "select max(turn, coalesce((select max(turn) from block where holder = ?1), 0)) from holder where id = ?1"

# ----------------------------------------------------------------------------------------------------------------- parting

_WHOLE = "select first, holder, turn, queue, handler, priority, at, deadline_at, sizes, payloads from block"
BLOCK_OF = f"{_WHOLE} where first = (select max(first) from block where first <= ?1) and first + jobs > ?1"
BLOCKS_HELD = f"{_WHOLE} where holder = ?"
BLOCKS = f"{_WHOLE} order by first"
FORGET_BLOCK = "delete from block where first = ?"
KEEP_TURN = "update holder set turn = max(turn, ?) where id = ?"

# ------------------------------------------------------------------------------------------------------------------- looks

# In the order of `RECORD`: nothing is known of these jobs but that they run for the first time
_NAMED = "cross join handler on handler.id = block.handler cross join queue on queue.id = block.queue"
_RECORD = "handler.name, queue.name, 1, 1, 0, 0, block.priority, block.at, block.at, block.at, block.at, '[]', '', '', null"
FIND_IN_BLOCKS = f"""
select value, {_RECORD} from carray(?) as wanted
cross join block on block.first = (select max(first) from block where first <= value) and block.first + block.jobs > value {_NAMED}
"""
# (after, how many, queue, handler, last)
BROWSE_BLOCKS = f"""
select block.first + key, {_RECORD} from block cross join json_each(block.sizes) {_NAMED}
where block.first + block.jobs > ?1 and block.first + key > ?1 and block.first + key <= ?5
and (?3 = '' or queue.name = ?3) and (?4 = '' or handler.name = ?4) order by block.first, key limit ?2
"""
COUNT_IN_BLOCKS = "select coalesce(sum(jobs), 0) from block"

# -------------------------------------------------------------------------------------------------------------------- done

_NAMES = "coalesce(handler.name, ''), coalesce(queue.name, '')"
_BY_NAME = "left join handler on handler.id = done_block.handler left join queue on queue.id = done_block.queue"
# (least id, greatest id)
FIND_DONE_BLOCKS = f"""
select at, {_NAMES}, created_at, first, jobs, results from done_block {_BY_NAME}
where first >= coalesce((select max(first) from done_block where first <= ?1), ?1) and first <= ?2
"""
# (after, queue, handler)
BROWSE_DONE_BLOCKS = f"""
select at, {_NAMES}, created_at, first, jobs from done_block {_BY_NAME}
where first + jobs > ?1 and (?2 = '' or queue.name = ?2) and (?3 = '' or handler.name = ?3)
"""
OLD_DONE_BLOCKS = "delete from done_block where until < ?"
