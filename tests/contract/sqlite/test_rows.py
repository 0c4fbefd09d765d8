"""What stands in the file: rows that are damaged, names that were rolled back, bounds that are counted."""

from __future__ import annotations

import pytest

import cabrank
from cabrank.block import Block, Call, Leases
from cabrank.job import Settlement
from cabrank.settings import STORE_BOUND
from cabrank.states import Cause, State
from cabrank.stores.contract import Submission, Verdict, Want
from cabrank.testing.store_contract import Opened, submission
from cabrank.testing.store_contract.opened import HANDLER, PLENTY, QUEUE, ids
from cabrank.testing.store_contract.settlements import SETTLED
from tests.contract.sqlite.files import TERMS, Files


@pytest.mark.parametrize("damage", [b"{", b"", b"1,2", b"\xff\xfe", b'"\xff"', b"\x00"])
async def test_a_payload_that_is_no_json_comes_as_it_is_and_spoils_no_other(files: Files, one: Opened, damage: bytes) -> None:
    jobs = one.jobs(3, payload=b"[1]")
    await one.submit(*jobs)
    with files.outside() as connection:
        connection.execute("update job set payload = ? where id = ?", (damage, jobs[1].id))
    leases = await one.claim()
    assert [(lease.job.id, lease.job.payload) for lease in leases] == [(jobs[0].id, b"[1]"), (jobs[1].id, damage), (jobs[2].id, b"[1]")]


async def test_a_damaged_job_is_held_and_the_others_are_done(files: Files, one: Opened) -> None:
    app = cabrank.App()

    @app.job(queue="line")
    async def work(number: int) -> None: ...

    jobs = one.jobs(3)
    await one.submit(*jobs)
    with files.outside() as connection:
        connection.execute("update job set payload = x'7b' where id = ?", (jobs[1].id,))
    async with cabrank.Dispatcher(app, store=f"sqlite:///{files.path}") as dispatcher:
        await dispatcher.join()
    found = await one.store.find([job.id for job in jobs])
    assert [found[job.id].state for job in jobs] == [State.DONE, State.HELD, State.DONE]
    assert found[jobs[1].id].error


async def test_a_name_that_was_rolled_back_with_an_idle_turn_is_given_anew(files: Files, one: Opened) -> None:
    """The number that the idle turn had for its queue becomes another queue's; both stay apart."""
    other = Opened(files.another(), files)
    await other.open(TERMS)
    assert (await one.turn(want={"b": PLENTY})).leases == []
    first, second = other.job(queue="c"), other.job(queue="b")
    await other.submit(first)
    await other.submit(second)
    [lease] = (await one.turn(want={"b": PLENTY})).leases
    assert (lease.job.id, lease.job.queue) == (second.id, "b")
    [lease] = (await one.turn(want={"c": PLENTY})).leases
    assert (lease.job.id, lease.job.queue) == (first.id, "c")
    await other.close()


async def test_names_are_right_after_a_turn_that_was_tried_again(one: Opened) -> None:
    """A lost settlement voids the first try of its turn, new names and all."""
    [lease] = await one.run(one.job())
    await one.settle([lease], Cause.RETURNED)
    new = one.job(queue="new", handler="new")
    turn = await one.turn(submission(new), settlements=[Settlement(lease.job.id, 1, Cause.RETURNED)])
    assert list(turn.lost) == [(lease.job.id, 1)]
    record = await one.find(new.id)
    assert (record.queue, record.handler) == ("new", "new")


async def test_a_queue_is_bounded_in_bytes(files: Files, one: Opened) -> None:
    await one.submit(one.job())
    with files.outside() as connection:
        connection.execute("update queue set waiting_bytes = ?", (STORE_BOUND.bytes - 1,))
    turn = await one.turn(submission(one.job(payload=b"1")), submission(one.job(payload=b"1")))
    assert [admission.verdict for admission in turn.admitted] == [Verdict.STORED, Verdict.FULL]
    assert "bytes wait" in turn.admitted[1].bound


async def test_the_counts_are_those_of_the_rows(files: Files, one: Opened) -> None:
    """After every way in and out."""
    leases = await one.run(*one.jobs(len(SETTLED), payload=b"[1]"))
    for lease, cause in zip(leases, SETTLED, strict=True):
        await one.settle([lease], cause)
    waiting = one.jobs(3, payload=b"[22]")
    await one.submit(*waiting)
    await one.store.cancel(waiting[0].id)
    await one.store.reopen(leases[SETTLED.index(Cause.GAVE_UP)].job.id)
    await one.claim(2)
    with files.outside() as connection:
        counted = connection.execute("select waiting, waiting_bytes from queue where name = 'line'").fetchall()
        there = connection.execute("select count(*), sum(length(payload)) from job where phase in (0, 2)").fetchall()
    assert counted == there


async def test_blocks_that_go_on_with_each_other_are_leased_as_one_and_what_is_left_waits(one: Opened) -> None:
    numbers = one.ids(8)
    blocks = [Block(numbers[at], [1] * 4, Call.ONE, HANDLER, QUEUE, None, [b"1"] * 4, 4) for at in (0, 4)]
    turn = await one.turn(*(Submission(jobs=block) for block in blocks), want={QUEUE: Want(5, PLENTY.bytes, 5)})
    [leases] = turn.claimed
    assert isinstance(leases, Leases)
    assert ids(list(leases)) == list(numbers[:5])
    assert ids(await one.claim()) == list(numbers[5:])
    assert list(map(len, blocks)) == [4, 4]
