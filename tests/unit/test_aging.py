"""The moments that a line in memory keeps for aging are those of what stands in it, whatever is taken out and put back."""

from __future__ import annotations

from random import Random

import pytest

from cabrank.block import Block, Call
from cabrank.job import Job
from cabrank.stores.memory.line import Line


def job(id: int, priority: int, due_at: float = 0.0) -> Job:
    return Job(id=id, handler="work", queue="line", payload=b"1", priority=priority, due_at=due_at)


def block(first: int, count: int) -> Block:
    return Block(first, list(range(count)), Call.ONE, "work", "line", None, [b"1"] * count, count)


def counted(line: Line) -> list[int]:
    assert line.since is not None
    return [int(sum(run[0] for run in runs)) for runs in line.since._runs]


@pytest.mark.parametrize("seed", range(30))
def test_there_is_a_moment_for_each_that_stands_in_line(seed: int) -> None:
    rng, line, now, next_id = Random(seed), Line(aging_s=10), 0.0, 1
    blocks: list[Block] = []
    for _ in range(300):
        now += rng.choice([0.0, 0.5])
        count = rng.randrange(1, 5)
        what = rng.randrange(8)
        if what == 0:
            line.extend([job(next_id + n, rng.randrange(3), now + rng.choice([-1, 0, 2])) for n in range(count)], now)
        elif what == 1:
            line.extend([job(next_id + n, 5) for n in range(count)], now)
        elif what == 2:
            blocks.append(block(next_id, count))
            line.extend(blocks[-1], now)
        elif what == 3:
            popped = [one for one in (line.pop() for _ in range(count)) if one is not None]
            line.untake(popped[: rng.randrange(3)])
        elif what == 4 and (last := line.pop_last()) is not None and isinstance(last, Block) and len(last) > 1:
            line.untake_last(last[: len(last) - 1])
        elif what == 5 and blocks:
            line.withdraw(rng.choice(list(blocks.pop(rng.randrange(len(blocks))).ids)))
        elif what == 6:
            line.put_back(job(next_id, 1), now + rng.choice([0, 1]), now)
        else:
            line.pop_oldest()
        line.promote(now)
        next_id += count
        assert counted(line) == [len(ready) for ready in line._ready]
    while line.pop() is not None:
        assert counted(line) == [len(ready) for ready in line._ready]


def test_without_aging_no_moment_is_kept() -> None:
    line = Line()
    line.extend([job(1, 5)], 0.0)
    assert line.since is None
