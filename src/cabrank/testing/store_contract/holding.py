# ruff: noqa: PLR2004, S101 -- tests are named as facts, their numbers are examples, and they assert
"""Holders: what becomes of leases when one closes, dies or sleeps too long; and what all holders share."""

from __future__ import annotations

import asyncio
import re

import pytest

from cabrank.settings import Settings
from cabrank.states import Cause, State
from cabrank.stores.contract import ID_BLOCK, Arrival, Verdict
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.opened import Open, Opened, OpenedContract, ids, submission

SWEPT_S = 6.0  # within this a running holder has looked for dead ones


class HolderContract(OpenedContract):
    """What `Store` promises about holders."""

    async def test_closing_gives_leases_back_without_a_crash(self, one: Opened, other: Opened) -> None:
        leases = await other.run(*other.jobs(2, payload=b"[1]"))
        await other.close()
        assert (await one.tally()).waiting_bytes == 6
        again = await one.claim()
        assert ids(again) == ids(leases)
        assert {(lease.run, lease.crashes, lease.failures) for lease in again} == {(2, 0, 0)}

    async def test_closing_twice_is_harmless(self, one: Opened) -> None:
        await one.store.close()
        await one.store.close()

    async def test_the_jobs_of_a_dead_holder_come_back_with_a_crash(self, one: Opened, other: Opened, clock: FakeClock) -> None:
        leases = await other.run(*other.jobs(2, payload=b"[1]"))
        await other.kill()
        await clock.advance(SWEPT_S)
        again = await one.claim()
        assert ids(again) == ids(leases)
        assert {(lease.run, lease.crashes, lease.failures) for lease in again} == {(2, 1, 0)}
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes, tally.running) == (0, 0, 2)

    async def test_a_new_holder_takes_back_what_a_dead_one_held(self, other: Opened, open_holder: Open) -> None:
        leases = await other.run(other.job())
        await other.kill()
        newcomer = await open_holder()
        assert ids(await newcomer.claim()) == ids(leases)

    async def test_the_living_keep_what_they_hold(self, one: Opened, other: Opened, clock: FakeClock) -> None:
        [lease] = await other.run(other.job())
        await clock.advance(SWEPT_S)
        assert await one.claim() == []
        assert list((await other.settle([lease], Cause.RETURNED)).lost) == []

    @pytest.mark.parametrize("cause", [Cause.RETURNED, Cause.RETRIED, Cause.GAVE_UP])
    async def test_who_slept_too_long_cannot_settle(self, one: Opened, other: Opened, clock: FakeClock, cause: Cause) -> None:
        await for_a_lease(clock, one, other)
        [lease] = await other.run(other.job())
        await other.expire()
        await clock.advance(SWEPT_S)
        [taken_over] = await one.claim()
        assert (taken_over.job.id, taken_over.run, taken_over.crashes) == (lease.job.id, 2, 1)
        assert list((await other.settle([lease], cause)).lost) == [(lease.job.id, 1)]
        assert await one.state(lease.job.id) is State.RUNNING
        assert list((await one.settle([taken_over], Cause.RETURNED)).lost) == []

    async def test_who_slept_too_long_goes_on_as_a_new_holder(self, one: Opened, other: Opened, clock: FakeClock) -> None:
        await for_a_lease(clock, one, other)
        await other.run(other.job())
        await other.expire()
        await clock.advance(SWEPT_S)
        await one.turn()
        assert len(await other.claim()) == 1
        await clock.advance(SWEPT_S)
        assert await one.claim() == []

    async def test_who_slept_too_long_and_was_not_missed_settles(self, one: Opened, other: Opened) -> None:
        [lease] = await other.run(other.job())
        await other.expire()
        turn = await other.settle([lease], Cause.RETURNED)
        record = await one.find(lease.job.id)
        assert (record.state is State.DONE) is (not turn.lost)

    async def test_ids_are_given_once(self, one: Opened, other: Opened) -> None:
        firsts = [await store.take_ids() for store in (one.store, other.store, one.store, other.store)]
        assert min(later - earlier for earlier, later in zip(sorted(firsts), sorted(firsts)[1:], strict=False)) >= ID_BLOCK
        assert min(firsts) > 0

    async def test_the_prefix_is_the_same_for_all(self, one: Opened, other: Opened) -> None:
        assert re.fullmatch("[a-z2-7]{8}", one.store.prefix)
        assert other.store.prefix == one.store.prefix

    async def test_keys_and_bounds_are_shared(self, open_holder: Open, one: Opened, other: Opened) -> None:
        job = one.job()
        await one.turn(submission(job, key="k", digest=b"body"))
        repeated = (await other.turn(submission(other.job(), key="k", digest=b"body"))).admitted[0]
        assert (repeated.verdict, repeated.first_id) == (Verdict.REPEATED, job.id)
        narrow = await open_holder(max_queue=1)
        assert (await narrow.turn(submission(narrow.job()))).admitted[0].verdict is Verdict.FULL

    async def test_what_was_admitted_survives(self, one: Opened, open_holder: Open) -> None:
        if not one.store.capabilities.durable:
            pytest.skip("this store forgets")
        waiting, keyed = one.job(payload=b"[1]"), one.job()
        done, running = await one.run(*one.jobs(2))
        await one.settle([done], Cause.RETURNED)
        await one.turn(submission(waiting), submission(keyed, key="k", digest=b"body"))
        prefix = one.store.prefix
        await one.kill()
        after = await open_holder()
        assert after.store.prefix == prefix
        assert after.ids(1)[0] > keyed.id
        assert await after.state(done.job.id) is State.DONE
        assert (await after.turn(submission(after.job(), key="k", digest=b"body"))).admitted[0].first_id == keyed.id
        assert sorted(ids(await after.claim())) == sorted([waiting.id, keyed.id, running.job.id])

    async def test_what_another_holder_submits_is_noticed(self, one: Opened, other: Opened, clock: FakeClock) -> None:
        """Also when it came between two looks."""
        for _ in range(2):
            await other.submit(other.job())
            await passed(asyncio.ensure_future(one.store.arrival()), clock)


async def for_a_lease(clock: FakeClock, *holders: Opened) -> None:
    """Let the time of a lease pass, in which all of these are awake: then they know whether the others have been silent."""
    settings = Settings()
    for _ in range(round(settings.lease_s / settings.sweep_s)):
        await clock.advance(settings.sweep_s)
        for holder in holders:
            await holder.turn()


async def passed(waiting: asyncio.Future[Arrival], clock: FakeClock) -> None:
    """Let time pass until something was noticed."""
    while not waiting.done():
        await clock.advance(0.01)
        await asyncio.wait([waiting], timeout=0.001)
    await waiting
