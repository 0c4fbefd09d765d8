"""Jobs that are alike travel as one record, and each can be looked at as the job that it is."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from cabrank.block import Block, Call, Leases, gathered, joined
from cabrank.job import Job, Lease
from cabrank.pending import MERGED, Pending
from cabrank.settings import Settings
from cabrank.stores.contract import Submission, Terms, Want
from cabrank.stores.memory import MemoryStore
from cabrank.stores.memory.line import Line
from cabrank.testing import FakeClock


async def work(*args: object) -> None: ...


def registered(count: int = 5, first: int = 10) -> Block:
    return Block(first, list(range(count)), Call.ONE, "work", "q", None, [b"%d" % number for number in range(count)], count)


def job(id: int) -> Job:
    return Job(id, "work", "q", b"%d" % (id - 10), (id - 10,))


def test_a_block_is_a_sequence_of_its_jobs() -> None:
    block = registered()
    assert list(block) == [job(id) for id in range(10, 15)]
    assert (block[0], block[-1], len(block), block.ids) == (job(10), job(14), 5, range(10, 15))
    with pytest.raises(IndexError):
        block[5]


def test_a_part_of_a_block_is_a_block_with_its_own_size() -> None:
    part = registered()[1:3]
    assert isinstance(part, Block)
    assert (list(part), part.size, len(registered()[5:])) == ([job(11), job(12)], 2, 0)


@pytest.mark.parametrize(
    ("call", "item", "args", "function"),
    [(Call.ONE, 1, (1,), None), (Call.ARGS, (1, 2), (1, 2), None), (Call.OWN, (work, (1, 2)), (1, 2), work)],
)
def test_an_item_says_what_is_called(call: Call, item: object, args: tuple[object, ...], function: object) -> None:
    [made] = Block(1, [item], call, "work", "q", None, None, 0)
    assert (made.args, made.function, made.payload) == (args, function, b"")


def test_payloads_are_encoded_when_somebody_asks_for_them() -> None:
    asked: list[int] = []

    def encode(items: object) -> list[bytes]:
        asked.append(1)
        return [b"12", b"3"]

    block = Block(1, [12, 3], Call.ONE, "work", "q", None, encode, 3)
    assert (block.fitting(2, 3), len(block), asked) == (2, 2, [])
    assert (block.fitting(2, 2), [job.payload for job in block], asked) == (1, [b"12", b"3"], [1])


async def test_a_block_that_is_claimed_whole_is_not_looked_into() -> None:
    def encode(items: object) -> list[bytes]:
        raise AssertionError("nobody asked for payloads")

    store = MemoryStore(FakeClock(), Random(1))
    await store.open(Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={}))
    block = Block(1, [12, 3], Call.ONE, "work", "q", None, encode, 3)
    turn = await store.turn(1, new=[Submission(jobs=block)], settlements=[], want={"q": Want(2, 100, 0)}, returned={})
    [leases] = turn.claimed
    assert isinstance(leases, Leases)
    assert leases.block is block


def test_what_is_added_has_the_next_id() -> None:
    block = registered(2)
    block.append(2, b"22")
    assert ([job.id for job in block], block.size, block.payloads[2]) == ([10, 11, 12], 4, b"22")


def test_leases_are_taken_one_after_another_by_whoever_comes() -> None:
    leases = Leases(registered(3))
    assert [leases.take() for _ in range(2)] == [Lease(job(10), 1), Lease(job(11), 1)]
    assert (len(leases), leases.next, list(leases), leases[0]) == (1, 2, [Lease(job(12), 1)], Lease(job(12), 1))
    assert len(list(leases.granted)) == 3
    assert (leases.clear(), leases.clear()) == ([Lease(job(12), 1)], [])


def test_one_lease_can_be_taken_out() -> None:
    leases = Leases(registered(5))
    leases.take()
    assert leases.without((10, 1)) is None, "it was taken before"
    assert leases.without((12, 2)) is None, "that run is another's"
    found = leases.without((12, 1))
    assert found is not None
    lease, parts = found
    assert (lease, [[one.job.id for one in part] for part in parts]) == (Lease(job(12), 1), [[11], [13, 14]])
    assert len(leases) == 0, "whoever runs through them finds nothing there"


def test_a_job_is_found_and_withdrawn_in_line_among_those_that_it_is_alike_with() -> None:
    line = Line()
    line.extend(registered(3, first=10), 0.0)
    line.extend(registered(3, first=20), 0.0)
    assert (line.find(21), line.find(13), line.find(9)) == (Job(21, "work", "q", b"1", (1,)), None, None)
    assert line.withdraw(21) == Job(21, "work", "q", b"1", (1,))
    assert line.withdraw(21) is None
    assert line.withdraw(10) == job(10)
    popped = [one for one in iter(line.pop, None) if isinstance(one, Block)]
    assert [list(one.ids) for one in popped] == [[11, 12], [20], [22]]
    assert line.find(11) is None


def test_blocks_that_go_on_with_each_other_are_joined_and_stay_as_they_are() -> None:
    blocks = [registered(2), registered(3, first=12), registered(1, first=20)]
    made = list(joined(blocks))
    assert [(block.ids, block.size) for block in made] == [(range(10, 15), 5), (range(20, 21), 1)]
    assert [made[0][at].payload for at in range(5)] == [b"0", b"1", b"0", b"1", b"2"]
    assert list(map(len, blocks)) == [2, 3, 1]


@pytest.mark.parametrize(
    "other",
    [
        registered(first=16),
        Block(15, [0], Call.ONE, "other", "q", None, [b"0"], 1),
        Block(15, [0], Call.ONE, "work", "elsewhere", None, [b"0"], 1),
        Block(15, [(0,)], Call.ARGS, "work", "q", None, [b"0"], 1),
        Block(15, [0], Call.ONE, "work", "q", None, [b"0"], 1, priority=0),
    ],
)
def test_blocks_whose_jobs_are_not_alike_or_not_the_next_stay_apart(other: Block) -> None:
    assert list(map(len, joined([registered(), other]))) == [5, len(other)]


def test_payloads_that_are_still_to_be_encoded_stay_so_when_a_block_goes_on() -> None:
    def encode(items: object) -> list[bytes]:
        assert isinstance(items, list)
        return [b"%d" % item for item in items]

    block = Block(10, [0, 1], Call.ONE, "work", "q", None, encode, 2)
    block.extend(Block(12, [2], Call.ONE, "work", "q", None, encode, 1))
    block.extend(registered(1, first=13))
    block.extend(Block(14, [4], Call.ONE, "work", "q", None, encode, 1))
    assert (block.payloads, block.size) == ([b"0", b"1", b"2", b"0", b"4"], 5)


def test_submits_that_go_on_reach_the_store_as_one_block_up_to_a_bound() -> None:
    told: list[None] = []
    pending = Pending(lambda: told.append(None))
    for first in range(10, 10 + MERGED + 1):
        pending.add(registered(1, first=first))
    assert (list(map(len, pending.jobs)), len(told)) == ([MERGED, 1], 2)
    taken = pending.take_jobs(lambda jobs: len(jobs) > 0)
    pending.add(registered(1, first=10 + MERGED + 1))
    assert (list(map(len, taken)), list(map(len, pending.jobs))) == ([MERGED, 1], [1])


def small(first: int, count: int, handler: str = "add") -> Block:
    return Block(first, list(range(first, first + count)), Call.ONE, handler, "async", None, encoded, count)


def encoded(items: Sequence[object]) -> list[bytes]:
    raise AssertionError(f"nobody asked for the payloads of {items}")


def test_leases_of_small_blocks_that_go_on_with_each_other_are_one() -> None:
    single = Lease(Job(id=90, handler="add", queue="async", payload=b""), 1)
    blocks = [small(1, 3), small(4, 3), small(7, 3), small(10, 3), small(20, 3), small(23, 3, "other"), small(26, 1, "other")]
    given: list[Lease | Leases] = [*map(Leases, blocks[:4]), single, *map(Leases, blocks[4:])]
    made = list(gathered(given, 7))
    assert [one if isinstance(one, Lease) else one.block.ids for one in made] == [
        range(1, 10),
        range(10, 13),
        single,
        range(20, 23),
        range(23, 27),
    ]
    assert next(one.block.items for one in made if isinstance(one, Leases)) == [*range(1, 10)]
    assert [len(one) for one in made if isinstance(one, Leases)] == [9, 3, 3, 4]
    assert [len(block) for block in blocks] == [3, 3, 3, 3, 3, 3, 1], "none of them is changed"
    assert [one for one in given if one in made] == [given[3], single, given[5]], "those that stand alone are what they were"


def test_a_copy_of_a_block_is_like_it_and_can_be_added_to() -> None:
    for block in (registered(), Block(10, [1, 2], Call.ONE, "bare", "q", work, None, 0), small(1, 3)):
        block.created_at, block.started_at = 1.0, 2.0
        same = block.copy()
        assert (same.ids, same.items, same.size, same.bare) == (block.ids, block.items, block.size, block.bare)
        assert (same.created_at, same.started_at) == (1.0, 2.0)
        assert same.goes_on_with(small(same.ids.stop, 1)) == block.goes_on_with(small(same.ids.stop, 1))
        same.items.append(1)
        assert len(same) == len(block) + 1
    assert list(registered().copy()) == list(registered())
