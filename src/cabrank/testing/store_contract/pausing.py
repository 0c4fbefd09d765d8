# ruff: noqa: S101 -- tests are named as facts, their numbers are examples, and they assert
"""A paused queue: nothing of it is leased, everything else goes on."""

from __future__ import annotations

from cabrank.states import Cause, State
from cabrank.stores.contract import Verdict
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.opened import PLENTY, QUEUE, Open, Opened, OpenedContract, ids, submission


class PauseContract(OpenedContract):
    """What `Inspector.pause` and `resume` promise."""

    async def test_nothing_of_a_paused_queue_is_leased_until_it_is_resumed(self, one: Opened) -> None:
        waiting, new = one.jobs(2)
        await one.submit(waiting)
        await one.store.pause(QUEUE)
        turn = await one.turn(submission(new), want=PLENTY)
        assert ([answer.verdict for answer in turn.admitted], list(turn.leases), list(turn.paused)) == ([Verdict.STORED], [], [QUEUE])
        assert await one.claim(alone=True) == []
        tally = await one.tally()
        assert (tally.waiting, tally.running, tally.paused) == (2, 0, True)
        await one.store.resume(QUEUE)
        turn = await one.turn(want=PLENTY)
        assert (ids(turn.leases), list(turn.paused)) == ([waiting.id, new.id], [])
        assert not (await one.tally()).paused

    async def test_the_other_queues_go_on(self, one: Opened) -> None:
        await one.store.pause(QUEUE)
        there = one.job(queue="else")
        turn = await one.turn(submission(one.job(), there), want={QUEUE: PLENTY, "else": PLENTY})
        assert ids(turn.leases) == [there.id]
        assert not (await one.tally("else")).paused

    async def test_what_runs_goes_on_and_what_is_handed_back_waits(self, one: Opened) -> None:
        finished, released = await one.run(*one.jobs(2))
        await one.store.pause(QUEUE)
        await one.settle([finished], Cause.RETURNED)
        await one.settle([released], Cause.RELEASED)
        assert await one.state(finished.job.id) is State.DONE
        assert await one.state(released.job.id) is State.WAITING
        assert await one.claim() == []
        await one.store.resume(QUEUE)
        assert ids(await one.claim()) == [released.job.id]

    async def test_what_becomes_due_meanwhile_waits_too(self, one: Opened, clock: FakeClock) -> None:
        later = one.job(due_at=clock.now() + 5)
        await one.submit(later)
        await one.store.pause(QUEUE)
        await clock.advance(5)
        assert await one.claim() == []
        await one.store.resume(QUEUE)
        assert ids(await one.claim()) == [later.id]

    async def test_a_queue_that_nobody_used_yet_can_be_paused(self, one: Opened) -> None:
        await one.store.pause("new")
        assert (await one.tally("new")).paused
        assert list((await one.turn(submission(one.job(queue="new")), want={"new": PLENTY})).leases) == []

    async def test_pausing_and_resuming_twice_is_as_once(self, one: Opened) -> None:
        await one.submit(one.job())
        for _ in range(2):
            await one.store.pause(QUEUE)
        await one.store.resume(QUEUE)
        assert len(await one.claim()) == 1
        await one.store.resume(QUEUE)

    async def test_a_pause_holds_for_every_holder_and_outlives_them(self, open_holder: Open, one: Opened, other: Opened) -> None:
        await one.submit(one.job())
        await one.store.pause(QUEUE)
        assert await other.claim() == []
        await one.close()
        await other.close()
        again = await open_holder()
        assert (await again.tally()).paused
        assert await again.claim() == []
        await again.store.resume(QUEUE)
        assert len(await again.claim()) == 1
