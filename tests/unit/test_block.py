"""Jobs that are alike travel as one record, and each can be looked at as the job that it is."""

from __future__ import annotations

from random import Random

import pytest

from cabrank.block import Block, Call, Leases
from cabrank.job import Job, Lease
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
