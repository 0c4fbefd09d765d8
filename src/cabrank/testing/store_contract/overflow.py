# ruff: noqa: PLR2004, S101 -- as in `admission`
"""Queues that drop jobs when they are full: which, how they end, and that nothing else is touched."""

from __future__ import annotations

import msgspec
import pytest

from cabrank.policy import Limit
from cabrank.settings import MIB, Overflow
from cabrank.states import Cause, State
from cabrank.stores.contract import OVERFLOW, JobFilter, Verdict, Want
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.opened import HANDLER, PLENTY, QUEUE, Open, OpenedContract, submission, verdicts

PRUNED_S = 60.0


class OverflowContract(OpenedContract):
    """What a full queue does when its policy is to drop."""

    async def test_the_one_that_has_waited_longest_goes(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=3, overflow={QUEUE: Overflow.DROP_OLDEST})
        jobs = one.jobs(5)
        await one.submit(*jobs[:3])
        turn = await one.turn(submission(jobs[3]), submission(jobs[4]))
        assert verdicts(turn) == [Verdict.STORED] * 2
        assert list(turn.dropped) == [jobs[0].id, jobs[1].id]
        assert [lease.job.id for lease in await one.claim()] == [job.id for job in jobs[2:]]

    async def test_what_was_dropped_is_expired_and_says_why(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1, overflow=Overflow.DROP_OLDEST)
        first, second = one.job(payload=b"[1]"), one.job(payload=b"2")
        await one.submit(first)
        await one.submit(second)
        record = await one.find(first.id)
        assert (record.state, record.reason, record.run) == (State.EXPIRED, OVERFLOW, 0)
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes) == (1, 1)
        page = await one.store.browse(JobFilter(state=State.EXPIRED, queue=QUEUE))
        assert [record.id for record in page.records] == [first.id]

    async def test_the_oldest_goes_whatever_its_priority(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=3, overflow=Overflow.DROP_OLDEST)
        urgent, usual, last = one.job(priority=0), one.job(), one.job(priority=9)
        await one.submit(urgent, usual, last)
        turn = await one.turn(submission(one.job(priority=9)))
        assert list(turn.dropped) == [urgent.id]

    async def test_the_lowest_priority_goes_and_of_that_the_last(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=4, overflow=Overflow.DROP_LOWEST)
        jobs = [one.job(priority=priority) for priority in (9, 5, 9, 0)]
        await one.submit(*jobs)
        urgent = [one.job(priority=0), one.job(priority=0), one.job(priority=0)]
        turn = await one.turn(*map(submission, urgent))
        assert verdicts(turn) == [Verdict.STORED] * 3
        assert sorted(turn.dropped) == sorted([jobs[0].id, jobs[2].id, jobs[1].id])

    async def test_a_new_job_that_is_the_lowest_is_the_one_that_goes(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1, overflow=Overflow.DROP_LOWEST)
        there, late = one.job(), one.job()
        await one.submit(there)
        turn = await one.turn(submission(late))
        assert (verdicts(turn), list(turn.dropped)) == ([Verdict.STORED], [late.id])
        assert await one.state(late.id) is State.EXPIRED

    async def test_bytes_are_brought_back_to_the_bound_too(self, open_holder: Open) -> None:
        one = await open_holder(overflow=Overflow.DROP_OLDEST)
        bound = one.store.capabilities.bound.bytes
        if bound > 256 * MIB:
            pytest.skip("this store takes too many bytes to try it")
        payload = b'"' + b"x" * (MIB - 2) + b'"'
        jobs = one.jobs(bound // MIB, payload=payload)
        await one.submit(*jobs)
        turn = await one.turn(submission(one.job()), submission(one.job(payload=payload)))
        assert list(turn.dropped) == [jobs[0].id, jobs[1].id]

    async def test_a_job_that_starts_at_once_drops_nothing(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1, overflow=Overflow.DROP_OLDEST)
        waiting, new = one.job(), one.job()
        await one.submit(waiting)
        turn = await one.turn(submission(new), want=Want(1, PLENTY.bytes, 1))
        assert ([lease.job.id for lease in turn.leases], list(turn.dropped)) == ([waiting.id], [])

    async def test_what_runs_is_never_dropped(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1, overflow=Overflow.DROP_OLDEST)
        leases = await one.run(one.job())
        turn = await one.turn(*map(submission, one.jobs(3)))
        assert len(turn.dropped) == 2
        assert list((await one.settle(leases, Cause.RETURNED)).lost) == []

    async def test_jobs_that_wait_again_drop_nobody_by_themselves(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1, overflow=Overflow.DROP_OLDEST)
        leases = await one.run(*one.jobs(3))
        turn = await one.settle(leases, Cause.RELEASED)
        assert list(turn.dropped) == []
        assert (await one.tally()).waiting == 3
        assert len((await one.turn(submission(one.job()))).dropped) == 3

    async def test_jobs_that_are_due_later_go_when_no_ready_one_is_left(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(max_queue=2, overflow=Overflow.DROP_OLDEST)
        soon, later, ready = (one.job(due_at=clock.now() + after_s) for after_s in (10, 20, 0))
        await one.submit(soon, later)
        assert list((await one.turn(submission(ready))).dropped) == [soon.id]
        assert list((await one.turn(submission(one.job()))).dropped) == [ready.id]
        await clock.advance(25)
        assert later.id in [lease.job.id for lease in await one.claim()]

    async def test_jobs_in_line_for_a_limit_are_dropped_too(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=2, overflow=Overflow.DROP_OLDEST, limits={HANDLER: Limit(running=1)})
        jobs = [one.job(limit_key="k") for _ in range(4)]
        await one.submit(*jobs[:2])
        turn = await one.turn(submission(*jobs[2:]))
        assert sorted(turn.dropped) == [jobs[0].id, jobs[1].id]
        assert [lease.job.id for lease in await one.claim()] == [jobs[2].id]

    async def test_only_the_queue_that_drops_drops(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1, overflow={"feed": Overflow.DROP_OLDEST})
        await one.turn(submission(one.job(queue="feed")), submission(one.job()))
        turn = await one.turn(submission(one.job(queue="feed")), submission(one.job()))
        assert verdicts(turn) == [Verdict.STORED, Verdict.FULL]
        assert len(turn.dropped) == 1

    async def test_a_dropped_job_can_be_reopened(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1, overflow=Overflow.DROP_OLDEST)
        first = one.job()
        await one.submit(first)
        await one.submit(one.job())
        assert await one.store.reopen(first.id)
        assert first.id in [lease.job.id for lease in await one.claim()]

    async def test_no_more_of_what_was_dropped_is_kept_than_of_what_is_done(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(max_queue=1, overflow=Overflow.DROP_OLDEST, keep_done_jobs=5)
        jobs = one.jobs(10)
        for job in jobs:
            await one.submit(job)
        await clock.advance(PRUNED_S)
        await one.turn()
        known = await one.store.find([job.id for job in jobs])
        assert [id for id, record in sorted(known.items()) if record.state is State.EXPIRED] == [job.id for job in jobs[4:9]]

    async def test_a_unique_key_is_free_when_its_job_was_dropped(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1, overflow=Overflow.DROP_OLDEST)
        first, second = (msgspec.structs.replace(one.job(), unique="k") for _ in range(2))
        await one.submit(first)
        await one.submit(one.job())
        assert verdicts(await one.turn(submission(second))) == [Verdict.STORED]
