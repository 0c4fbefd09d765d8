# ruff: noqa: S101 -- tests are named as facts, their numbers are examples, and they assert
"""Priorities that rise with waiting: one that is one better is worth `aging_s` seconds."""

from __future__ import annotations

from random import Random

import pytest

from cabrank.block import Block, Call
from cabrank.job import Job
from cabrank.policy import Limit
from cabrank.states import Cause
from cabrank.stores.contract import Submission
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.opened import HANDLER, QUEUE, Open, OpenedContract, ids

AGING_S = 10


class AgingContract(OpenedContract):
    """What `Settings.aging_s` promises."""

    @pytest.mark.parametrize(("later_s", "aged"), [(49, False), (51, True)])
    async def test_a_job_that_has_waited_goes_before_more_urgent_ones(
        self, open_holder: Open, clock: FakeClock, later_s: float, *, aged: bool
    ) -> None:
        one = await open_holder(aging_s=AGING_S, lease_s=1e6)
        old = one.job(priority=5)
        await one.submit(old)
        await clock.advance(later_s)
        urgent = one.job(priority=0)
        await one.submit(urgent)
        expected = [old, urgent] if aged else [urgent, old]
        assert [ids(await one.claim(1)) for _ in expected] == [[job.id] for job in expected]

    async def test_a_stream_of_urgent_jobs_starves_nobody(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(aging_s=AGING_S, lease_s=1e6)
        old = one.job(priority=9)
        await one.submit(old)
        waited_s = 0
        while True:
            await one.submit(one.job(priority=0))
            leases = await one.claim(1)
            if leases[0].job.id == old.id:
                break
            await one.settle(leases, Cause.RETURNED)
            await clock.advance(1)
            waited_s += 1
        assert 9 * AGING_S <= waited_s <= 9 * AGING_S + 1

    async def test_a_job_ages_from_the_moment_it_is_due(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(aging_s=AGING_S, lease_s=1e6)
        later = one.job(priority=5, due_at=clock.now() + 30)
        await one.submit(later)
        await clock.advance(55)
        urgent = one.job(priority=2)
        await one.submit(urgent)
        assert ids(await one.claim(1)) == [urgent.id]  # 25 s are less than 3 priorities

    async def test_any_mixture_comes_in_the_order_of_priority_and_age(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(aging_s=AGING_S, lease_s=1e6)
        rng = Random(7)
        ranked: list[tuple[float, int]] = []
        for _ in range(60):
            job = one.job(priority=rng.randrange(10))
            ranked.append((clock.now() + job.priority * AGING_S, job.id))
            await one.submit(job)
            await clock.advance(rng.choice([0, 1.25, 7.5]))
        came: list[int] = []
        while leases := await one.claim(rng.randrange(1, 9)):
            came += ids(leases)
        assert came == [id for _, id in sorted(ranked)]

    async def test_jobs_that_are_alike_age_together(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(aging_s=AGING_S, lease_s=1e6)
        numbers = one.ids(10)
        block = Block(numbers[0], list(range(10)), Call.ONE, HANDLER, QUEUE, None, [b"1"] * 10, 10)
        await one.turn(Submission(jobs=block))
        await clock.advance(35)
        urgent, almost = one.job(priority=2), one.job(priority=1)
        await one.submit(urgent)
        await one.submit(almost)
        assert ids(await one.claim(1)) == [almost.id]
        assert [*ids(await one.claim(4)), *ids(await one.claim(4))] == list(numbers[:8])
        assert ids(await one.claim()) == [*numbers[8:], urgent.id]

    async def test_a_job_that_came_back_does_not_keep_its_age(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(aging_s=AGING_S, lease_s=1e6)
        leases = await one.run(one.job(priority=5))
        await clock.advance(100)
        urgent: Job = one.job(priority=0)
        await one.settle(leases, Cause.RELEASED)
        await one.submit(urgent)
        assert ids(await one.claim(1)) == [urgent.id]

    @pytest.mark.parametrize(("later_s", "aged"), [(25, False), (35, True)])
    async def test_jobs_with_a_limit_and_without_meet_by_age_too(
        self, open_holder: Open, clock: FakeClock, later_s: float, *, aged: bool
    ) -> None:
        one = await open_holder(handlers=["work", "more"], limits={"more": Limit(running=5)}, aging_s=AGING_S, lease_s=1e6)
        for old, new in (("work", "more"), ("more", "work")):
            first = one.job(priority=5, handler=old, limit_key="" if old == "more" else None)
            await one.submit(first)
            await clock.advance(later_s)
            second = one.job(priority=2, handler=new, limit_key="" if new == "more" else None)
            await one.submit(second)
            expected = [first, second] if aged else [second, first]
            assert [ids(await one.claim(1)) for _ in expected] == [[job.id] for job in expected]
