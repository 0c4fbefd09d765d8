"""What a holder in memory runs, job by job, is what was leased less what has ended, in whatever order it ends."""

from __future__ import annotations

from random import Random
from time import process_time

import pytest

from cabrank.block import Block, Call
from cabrank.job import Job, Lease
from cabrank.stores.memory.held import Held
from cabrank.stores.memory.rows import Run


def block(first: int, count: int) -> Block:
    return Block(first, list(range(count)), Call.ONE, "add", "async", None, None, 0)


def run(id: int) -> Run:
    return Run(Lease(Job(id=id, handler="add", queue="async", payload=b""), 1), 1)


@pytest.mark.parametrize("seed", range(60))
def test_it_is_what_a_dictionary_by_id_would_be(seed: int) -> None:
    rng = Random(seed)
    held, model = Held(), dict[int, Run | Block]()
    free, gone = 1, list[int]()
    for _ in range(200):
        match rng.randrange(5):
            case 0:
                one = block(free, rng.choice((1, 2, 5, 40)))
                held.add_block(one)
                model |= dict.fromkeys(one.ids, one)
                free += len(one) + rng.randrange(2)
            case 1:
                single = run(free)
                held.add(single)
                model[free] = single
                free += 1
            case 2:
                id = rng.randrange(free + 2)
                assert held.pop(id) is model.pop(id, None)
            case _:
                known = sorted(model)
                some = known[: rng.randrange(60)] if rng.random() < 0.4 else rng.sample(known, rng.randrange(min(60, len(known) + 1)))
                asked = list({*some, *(id for id in gone if rng.random() < 0.05)})
                rng.shuffle(asked)
                there = {id: model.pop(id) for id in asked if id in model}
                ran, lost = held.pop_all(asked)
                assert [(id, one) for ids, one in ran for id in ids if there.get(id) is not one] == []
                assert sum(len(ids) for ids, _ in ran) == len(there)
                assert sorted(lost) == sorted(set(asked) - there.keys())
                gone += there
        assert dict(held.items()) == model
    for id in range(free + 2):
        assert held.get(id) is model.get(id)
        assert (id in held) is (id in model)


def test_what_has_ended_leaves_nothing_behind() -> None:
    held = Held()
    for first in range(1, 1000, 10):
        held.add_block(block(first, 10))
    held.pop_all(range(1, 1001, 2))
    held.pop_all(range(2, 1001, 2))
    assert (held._parts, held._firsts, held._runs, list(held.items())) == ([], [], {}, [])


def test_one_that_does_not_end_does_not_make_each_of_the_others_cost_more() -> None:
    """Results are recorded one by one: with a first job that hangs, ten times the jobs must not take a hundred times as long."""

    def took_s(count: int) -> float:
        held = Held()
        held.add_block(block(1, count))
        began = process_time()
        for id in range(2, count + 1):
            held.pop(id)
        return process_time() - began

    assert min(took_s(20_000) for _ in range(3)) < 40 * min(took_s(2_000) for _ in range(3))
