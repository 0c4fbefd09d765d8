# ruff: noqa: PLR2004, S101 -- tests are named as facts, their numbers are examples, and they assert
"""Limits: how many jobs of a key run and start, over all holders; and whose turn it is."""

from __future__ import annotations

import pytest

from cabrank.job import Job, Settlement
from cabrank.policy import Limit
from cabrank.settings import MIB
from cabrank.states import TRANSITIONS, Cause, State
from cabrank.stores.contract import Want
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.holding import SWEPT_S
from cabrank.testing.store_contract.opened import HANDLER, PLENTY, Open, Opened, OpenedContract, ids, needs_sharing, submission

LEAVES_RUNNING = sorted({cause for state, cause in TRANSITIONS if state is State.RUNNING} - {Cause.CRASHED, Cause.WORKER_LOST})


def of_keys(one: Opened, keys: str, *, handler: str = HANDLER) -> list[Job]:
    """A job for each letter, which is its key."""
    return [one.job(limit_key=key, handler=handler) for key in keys]


class LimitContract(OpenedContract):
    """What a limit promises."""

    # -------------------------------------------------------------------------------------------------------- running

    @pytest.mark.parametrize("fresh", [True, False])
    async def test_no_more_run_than_the_limit_says(self, open_holder: Open, *, fresh: bool) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=2)})
        jobs = of_keys(one, "aaaa")
        if not fresh:
            await one.submit(*jobs)
        turn = await one.turn(*[submission(*jobs)] if fresh else [], want=PLENTY)
        assert ids(turn.leases) == [job.id for job in jobs[:2]]
        assert turn.next_due_s is None
        assert await one.claim() == []
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes, tally.running) == (2, 2, 2)

    @pytest.mark.parametrize("cause", LEAVES_RUNNING)
    async def test_the_turn_that_settles_a_run_leases_the_next(self, open_holder: Open, cause: Cause) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        jobs = of_keys(one, "aa")
        [lease] = await one.run(*jobs)
        turn = await one.turn(settlements=[Settlement(lease.job.id, lease.run, cause, after_s=60)], want=PLENTY)
        assert ids(turn.leases) == [jobs[1].id]
        assert await one.claim() == []

    async def test_a_job_that_comes_back_at_once_stands_behind_those_that_waited(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        jobs = of_keys(one, "aa")
        [lease] = await one.run(*jobs)
        await clock.advance(1)
        turn = await one.turn(settlements=[Settlement(lease.job.id, lease.run, Cause.RETRIED)], want=PLENTY)
        assert ids(turn.leases) == [jobs[1].id]
        turn = await one.turn(settlements=[Settlement(jobs[1].id, 1, Cause.RETURNED)], want=PLENTY)
        assert [(lease.job.id, lease.run, lease.failures) for lease in turn.leases] == [(jobs[0].id, 2, 1)]

    async def test_a_settlement_of_a_lost_lease_frees_nothing(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        jobs = of_keys(one, "aa")
        [lease] = await one.run(*jobs)
        turn = await one.turn(settlements=[Settlement(lease.job.id, lease.run + 1, Cause.RETURNED)], want=PLENTY)
        assert (len(turn.lost), list(turn.leases)) == (1, [])

    async def test_a_limit_counts_over_all_holders(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=3)})
        needs_sharing(one)
        other = await open_holder(limits={HANDLER: Limit(running=3)})
        await one.submit(*of_keys(one, "aaaaa"))
        assert len(await one.claim(2)) == 2
        assert len(await other.claim()) == 1
        assert await one.claim() == []

    async def test_what_a_dead_holder_ran_may_run_again(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=2)})
        needs_sharing(one)
        other = await open_holder(limits={HANDLER: Limit(running=2)})
        jobs = of_keys(one, "aaaa")
        await other.run(*jobs)
        assert await one.claim() == []
        await other.kill()
        await clock.advance(SWEPT_S)
        again = await one.claim()
        assert len(again) == 2
        turn = await one.turn(settlements=[Settlement(lease.job.id, lease.run, Cause.RETURNED) for lease in again], want=PLENTY)
        assert {*ids(again), *ids(turn.leases)} == {job.id for job in jobs}

    @pytest.mark.parametrize("given_up", [True, False])
    async def test_what_a_dead_holder_ran_and_does_not_run_again_frees_its_place(
        self, open_holder: Open, clock: FakeClock, *, given_up: bool
    ) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)}, max_crashes=1 if given_up else 3)
        needs_sharing(one)
        other = await open_holder(limits={HANDLER: Limit(running=1)}, max_crashes=1 if given_up else 3)
        jobs = of_keys(one, "aa")
        [lease] = await other.run(*jobs)
        if not given_up:
            await one.store.cancel(lease.job.id)
        await other.kill()
        await clock.advance(SWEPT_S)
        assert ids(await one.claim()) == [jobs[1].id]

    async def test_what_is_given_back_at_a_close_may_run_again(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        needs_sharing(one)
        other = await open_holder(limits={HANDLER: Limit(running=1)})
        jobs = of_keys(one, "aa")
        await other.run(*jobs)
        await other.close()
        assert [(lease.job.id, lease.run) for lease in await one.claim()] == [(jobs[0].id, 2)]

    async def test_a_running_job_that_is_cancelled_frees_its_place_when_it_has_stopped(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        jobs = of_keys(one, "aa")
        [lease] = await one.run(*jobs)
        await one.store.cancel(lease.job.id)
        assert await one.claim() == []
        turn = await one.turn(settlements=[Settlement(lease.job.id, lease.run, Cause.RETRIED, after_s=9)], want=PLENTY)
        assert ids(turn.leases) == [jobs[1].id]
        assert await one.state(lease.job.id) is State.CANCELLED

    async def test_a_waiting_job_that_is_cancelled_is_passed_over(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        jobs = of_keys(one, "aab")
        await one.submit(*jobs)
        await one.store.cancel(jobs[0].id)
        await one.store.cancel(jobs[2].id)
        assert ids(await one.claim()) == [jobs[1].id]
        assert (await one.tally()).waiting == 0

    async def test_a_job_that_is_reopened_stands_in_its_line_again(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        job, running = of_keys(one, "aa")
        await one.submit(job)
        await one.store.cancel(job.id)
        leases = await one.run(running)
        await one.store.reopen(job.id)
        assert await one.claim() == []
        turn = await one.turn(settlements=[Settlement(leases[0].job.id, 1, Cause.RETURNED)], want=PLENTY)
        assert ids(turn.leases) == [job.id]

    async def test_a_held_back_job_takes_no_place_from_others(self, open_holder: Open) -> None:
        one = await open_holder(handlers=[HANDLER, "free"], limits={HANDLER: Limit(running=1)})
        jobs = [*of_keys(one, "aaa"), *(one.job(handler="free") for _ in range(3))]
        await one.submit(*jobs)
        assert ids(await one.claim(3)) == [jobs[0].id, jobs[3].id, jobs[4].id]
        assert ids(await one.claim(3)) == [jobs[5].id]

    async def test_a_limited_job_comes_only_to_idle_workers(self, open_holder: Open) -> None:
        """It is to start when its limit lets it, not when a worker has time."""
        one = await open_holder(handlers=[HANDLER, "free"], limits={HANDLER: Limit(running=9)})
        free, *limited = one.job(handler="free"), *of_keys(one, "aaa")
        await one.submit(free, *limited)
        assert ids((await one.turn(want=Want(jobs=9, bytes=MIB, idle=2))).leases) == [free.id, limited[0].id]
        assert ids((await one.turn(want=Want(jobs=9, bytes=MIB, idle=0))).leases) == []
        assert ids(await one.claim()) == [job.id for job in limited[1:]]

    async def test_no_more_bytes_of_limited_jobs_come_than_are_wanted(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=9)})
        jobs = [one.job(payload=b"1" * 10, limit_key=key) for key in "abc"]
        await one.submit(*jobs)
        assert ids((await one.turn(want=Want(jobs=9, bytes=25, idle=9))).leases) == [job.id for job in jobs[:2]]
        assert (await one.tally()).waiting_bytes == 10

    # ----------------------------------------------------------------------------------------------------------- rates

    async def test_no_more_start_than_the_rate_allows_and_it_says_when_the_next_may(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={HANDLER: Limit(per_s=2, burst=3)})
        await one.submit(*of_keys(one, "aaaaaa"))
        turn = await one.turn(want=PLENTY)
        assert len(turn.leases) == 3
        assert turn.next_due_s == pytest.approx(0.5)
        await clock.advance(0.4)
        turn = await one.turn(want=PLENTY)
        assert not turn.leases
        assert turn.next_due_s == pytest.approx(0.1)
        await clock.advance(0.1)
        assert len(await one.claim()) == 1
        await clock.advance(60)
        turn = await one.turn(want=PLENTY)
        assert (len(turn.leases), turn.next_due_s) == (2, None)

    async def test_a_rate_counts_starts_whatever_becomes_of_the_runs(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(per_s=1, burst=2)})
        leases = await one.run(*of_keys(one, "aaaa"))
        assert len(leases) == 2
        assert (await one.turn(settlements=[Settlement(lease.job.id, 1, Cause.RETURNED) for lease in leases], want=PLENTY)).leases == []

    async def test_a_jump_of_the_wall_clock_gives_no_starts(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={HANDLER: Limit(per_s=1, burst=1)})
        await one.submit(*of_keys(one, "aaa"))
        assert len(await one.claim()) == 1
        for jump_s in (3600, -7200):
            clock.jump(jump_s)
            assert await one.claim() == []
        await clock.advance(1)
        assert len(await one.claim()) == 1

    async def test_a_rate_counts_over_all_holders_and_outlives_them(self, open_holder: Open, clock: FakeClock) -> None:
        limits = {HANDLER: Limit(per_s=1, burst=2)}
        one = await open_holder(limits=limits)
        needs_sharing(one)
        other = await open_holder(limits=limits)
        await one.submit(*of_keys(one, "aaaaa"))
        assert len(await one.claim(1)) == 1
        assert len(await other.claim()) == 1
        await other.close()
        third = await open_holder(limits=limits)
        assert await third.claim() == []
        await clock.advance(1)
        assert len(await one.claim()) == 1
        assert await third.claim() == []

    async def test_both_bounds_hold(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=2, per_s=1, burst=3)})
        await one.submit(*of_keys(one, "aaaaaaaa"))
        first = await one.claim()
        assert len(first) == 2
        turn = await one.turn(settlements=[Settlement(lease.job.id, 1, Cause.RETURNED) for lease in first], want=PLENTY)
        assert len(turn.leases) == 1
        assert turn.next_due_s == pytest.approx(1)
        await clock.advance(10)
        assert len(await one.claim()) == 1
        assert await one.claim() == []

    async def test_a_job_that_is_due_later_stands_in_line_then(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        later, now, behind = one.job(limit_key="a", due_at=clock.now() + 5), *of_keys(one, "aa")
        turn = await one.turn(submission(later, now, behind), want=PLENTY)
        assert ids(turn.leases) == [now.id]
        assert turn.next_due_s == pytest.approx(5)
        turn = await one.turn(settlements=[Settlement(now.id, 1, Cause.RETURNED)], want=PLENTY)
        assert ids(turn.leases) == [behind.id]
        await clock.advance(5)
        assert await one.claim() == []
        turn = await one.turn(settlements=[Settlement(behind.id, 1, Cause.RETURNED)], want=PLENTY)
        assert ids(turn.leases) == [later.id]
