# ruff: noqa: PLR2004, S101 -- tests are named as facts, their numbers are examples, and they assert
"""Claims: what is leased, in which order, and how much of it; and what is due later."""

from __future__ import annotations

import msgspec
import pytest

from cabrank.job import Lease
from cabrank.settings import MIB
from cabrank.states import Cause, State
from cabrank.stores.contract import Submission, Want
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.opened import PLENTY, QUEUE, Open, Opened, OpenedContract, ids, submission


async def brought(one: Opened, *new: Submission, want: Want, fresh: bool) -> list[Lease]:
    """What is leased of new jobs: in the turn that stores them, or in the next."""
    if not fresh:
        await one.turn(*new)
    return list((await one.turn(*new if fresh else (), want=want)).leases)


class ClaimContract(OpenedContract):
    """What `turn` promises about `want`."""

    @pytest.mark.parametrize("fresh", [True, False])
    async def test_a_lease_says_what_was_submitted(self, one: Opened, *, fresh: bool) -> None:
        made = msgspec.structs.replace(one.job(payload=b'{"a":1}', priority=7), deadline_at=9e9)
        [lease] = await brought(one, submission(made), want=PLENTY, fresh=fresh)
        assert (lease.run, lease.failures, lease.crashes) == (1, 0, 0)
        its = lease.job
        assert (its.id, its.handler, its.queue, its.payload) == (made.id, made.handler, QUEUE, made.payload)
        assert (its.priority, its.deadline_at) == (7, 9e9)
        assert await one.state(made.id) is State.RUNNING

    async def test_a_leased_job_is_leased_to_nobody_else(self, one: Opened, other: Opened) -> None:
        jobs = one.jobs(5)
        await one.submit(*jobs)
        assert ids(await one.claim(3)) == [job.id for job in jobs[:3]]
        assert ids(await other.claim()) == [job.id for job in jobs[3:]]
        assert await one.claim() == []
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes, tally.running) == (0, 0, 5)

    @pytest.mark.parametrize("fresh", [True, False])
    async def test_at_most_as_many_jobs_come_as_are_wanted(self, one: Opened, *, fresh: bool) -> None:
        new = submission(*one.jobs(5))
        leases = await brought(one, new, want=Want(jobs=3, bytes=MIB, idle=3), fresh=fresh)
        assert ids(leases) == [job.id for job in new.jobs[:3]]
        assert await one.claim(0) == []

    @pytest.mark.parametrize("fresh", [True, False])
    @pytest.mark.parametrize(("sizes", "most", "come"), [((4, 4, 4, 4), 10, 2), ((4, 4, 4, 4), 13, 3), ((9, 1), 4, 1), ((2, 9, 1), 4, 1)])
    async def test_no_more_bytes_come_than_are_wanted_but_one_job_always(
        self, one: Opened, sizes: tuple[int, ...], most: int, come: int, *, fresh: bool
    ) -> None:
        new = submission(*(one.job(payload=b"1" * size) for size in sizes))
        leases = await brought(one, new, want=Want(jobs=10, bytes=most, idle=10), fresh=fresh)
        assert ids(leases) == [job.id for job in new.jobs[:come]]

    async def test_bytes_are_bounded_over_new_jobs_of_several_shapes(self, open_holder: Open) -> None:
        one = await open_holder(handlers=["work", "more"])
        new = [submission(one.job(payload=b"1234"), one.job(payload=b"1234", handler="more")) for _ in range(3)]
        turn = await one.turn(*new, want=Want(jobs=10, bytes=10, idle=10))
        assert len(turn.leases) == 2

    async def test_priority_goes_first_then_the_moment_of_getting_ready(self, one: Opened, clock: FakeClock) -> None:
        late, soon = one.job(due_at=clock.now() + 2), one.job(due_at=clock.now() + 1)
        first, urgent, last = one.job(), one.job(priority=0), one.job(priority=9)
        await one.submit(late, soon, first, urgent, last)
        await clock.advance(3)
        after = one.job()
        await one.submit(after)
        assert ids(await one.claim()) == [job.id for job in (urgent, first, soon, late, after, last)]

    @pytest.mark.parametrize("fresh", [True, False])
    async def test_new_jobs_of_several_priorities_start_in_their_order(self, one: Opened, *, fresh: bool) -> None:
        jobs = [one.job(priority=priority) for priority in (5, 0, 9, 0, 5)]
        leases = await brought(one, *map(submission, jobs), want=Want(jobs=3, bytes=MIB, idle=3), fresh=fresh)
        assert ids(leases) == [jobs[1].id, jobs[3].id, jobs[0].id]

    async def test_a_new_job_does_not_overtake_one_that_waits(self, one: Opened) -> None:
        waiting, new = one.jobs(2)
        await one.submit(waiting)
        turn = await one.turn(submission(new), want=Want(jobs=1, bytes=MIB, idle=1))
        assert ids(turn.leases) == [waiting.id]

    async def test_a_job_that_comes_back_stands_behind_one_that_was_due_before(self, one: Opened, clock: FakeClock) -> None:
        leases = await one.run(one.job())
        due = one.job(due_at=clock.now() + 1)
        await one.submit(due)
        await clock.advance(2)
        await one.settle(leases, Cause.RELEASED)
        assert ids(await one.claim()) == [due.id, leases[0].job.id]

    async def test_queues_that_are_not_wanted_stay(self, one: Opened) -> None:
        jobs = [one.job(queue=queue) for queue in ("a", "b", "a", "b", "c")]
        await one.submit(*jobs)
        turn = await one.turn(want={"a": PLENTY, "c": PLENTY, "unknown": PLENTY})
        assert sorted(ids(turn.leases)) == [jobs[0].id, jobs[2].id, jobs[4].id]
        assert (await one.tally("b")).waiting == 2

    @pytest.mark.parametrize("fresh", [True, False])
    async def test_handlers_that_were_not_named_stay_and_hold_up_nobody(self, one: Opened, *, fresh: bool) -> None:
        strange, known = one.job(handler="strange"), one.job()
        assert ids(await brought(one, submission(strange, known), want=PLENTY, fresh=fresh)) == [known.id]
        assert await one.state(strange.id) is State.WAITING

    async def test_jobs_of_a_strange_handler_come_to_a_holder_that_names_it(self, one: Opened, other: Opened, open_holder: Open) -> None:
        strange = one.job(handler="strange")
        await one.submit(strange)
        assert await other.claim() == []
        knowing = await open_holder(handlers=["strange"])
        assert ids(await knowing.claim()) == [strange.id]

    async def test_a_job_is_not_leased_before_its_time(self, one: Opened, clock: FakeClock) -> None:
        later, sooner = one.job(due_at=clock.now() + 60), one.job(due_at=clock.now() + 30)
        turn = await one.turn(submission(later), submission(sooner), want=PLENTY)
        assert ids(turn.leases) == []
        assert turn.next_due_s == pytest.approx(30)
        await clock.advance(29)
        turn = await one.turn(want=PLENTY)
        assert ids(turn.leases) == []
        assert turn.next_due_s == pytest.approx(1)
        await clock.advance(1)
        turn = await one.turn(want=PLENTY)
        assert ids(turn.leases) == [sooner.id]
        assert turn.next_due_s == pytest.approx(30)
        await clock.advance(30)
        turn = await one.turn(want=PLENTY)
        assert ids(turn.leases) == [later.id]
        assert turn.next_due_s is None

    async def test_ready_jobs_are_counted_as_far_as_somebody_wants_to_know(self, one: Opened, clock: FakeClock) -> None:
        await one.submit(*one.jobs(3), one.job(due_at=clock.now() + 5), one.job(queue="else"))
        assert [await one.store.ready(QUEUE, most) for most in (0, 2, 3, 10)] == [0, 2, 3, 3]
        assert await one.store.ready("nobody's", 10) == 0
        await clock.advance(5)
        assert await one.store.ready(QUEUE, 10) == 4
        await one.submit(one.job(priority=2), one.job(priority=8))
        assert [await one.store.ready(QUEUE, 10, priority=last) for last in (0, 2, 5, 8)] == [0, 1, 5, 6]
        await one.claim(3)
        assert [await one.store.ready(QUEUE, 10, priority=last) for last in (2, 5, 9)] == [0, 2, 3]

    async def test_a_due_time_that_has_passed_is_now(self, one: Opened, clock: FakeClock) -> None:
        past = one.job(due_at=clock.now() - 60)
        turn = await one.turn(submission(past), want=PLENTY)
        assert ids(turn.leases) == [past.id]
        assert turn.next_due_s is None

    async def test_many_jobs_come_in_their_order(self, one: Opened) -> None:
        jobs = one.jobs(3_000)
        await one.submit(*jobs)
        assert ids([*await one.claim(1_000), *await one.claim(2_500)]) == [job.id for job in jobs]
