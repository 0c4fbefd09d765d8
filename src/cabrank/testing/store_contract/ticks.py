# ruff: noqa: S101 -- tests are named as facts, their numbers are examples, and they assert
"""Schedules: each tick is stored once, over all holders, and the last one is remembered."""

from __future__ import annotations

import msgspec
import pytest

from cabrank.job import Job
from cabrank.states import State
from cabrank.stores.contract import AHEAD_S, Submission, Tick, Verdict
from cabrank.testing.clock import START_AT, FakeClock
from cabrank.testing.store_contract.opened import Open, Opened, OpenedContract, submission, verdicts


def tick(job: Job, at: float, schedule: str = "nightly") -> Submission:
    """The job of one tick, so many seconds after the start of the test."""
    return Submission(jobs=(job,), tick=Tick(schedule, START_AT + at))


class TickContract(OpenedContract):
    """What `Store` promises about schedules."""

    async def test_a_tick_is_stored_once(self, one: Opened) -> None:
        first, second = one.jobs(2)
        assert verdicts(await one.turn(tick(first, 10))) == [Verdict.STORED]
        assert verdicts(await one.turn(tick(second, 10))) == [Verdict.REPEATED]
        assert (await one.tally()).waiting == 1
        assert await one.state(second.id) is None

    async def test_a_tick_is_stored_once_over_all_holders_and_after_its_job_is_done(self, one: Opened, other: Opened) -> None:
        await one.turn(tick(one.job(), 10))
        assert verdicts(await other.turn(tick(other.job(), 10))) == [Verdict.REPEATED]
        assert len(await one.claim()) == 1
        assert verdicts(await other.turn(tick(other.job(), 10), tick(other.job(), 20))) == [Verdict.REPEATED, Verdict.STORED]
        assert verdicts(await one.turn(tick(one.job(), 20), tick(one.job(), 30))) == [Verdict.REPEATED, Verdict.STORED]

    async def test_two_of_one_turn_are_told_apart(self, one: Opened) -> None:
        turn = await one.turn(tick(one.job(), 10), tick(one.job(), 10), tick(one.job(), 20))
        assert verdicts(turn) == [Verdict.STORED, Verdict.REPEATED, Verdict.STORED]

    async def test_no_tick_is_stored_behind_a_later_one(self, one: Opened) -> None:
        assert verdicts(await one.turn(tick(one.job(), 20), tick(one.job(), 10))) == [Verdict.STORED, Verdict.REPEATED]

    async def test_schedules_do_not_know_each_other(self, one: Opened) -> None:
        assert verdicts(await one.turn(tick(one.job(), 10), tick(one.job(), 10, "hourly"))) == [Verdict.STORED, Verdict.STORED]

    async def test_a_tick_that_found_no_room_is_not_taken(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1)
        blocking = one.job()
        await one.submit(blocking)
        assert verdicts(await one.turn(tick(one.job(), 10))) == [Verdict.FULL]
        await one.claim()
        assert verdicts(await one.turn(tick(one.job(), 10))) == [Verdict.STORED]

    async def test_a_tick_beside_an_unfinished_unique_job_is_taken_and_adds_nothing(self, one: Opened) -> None:
        first, second, third = (msgspec.structs.replace(one.job(), unique="u") for _ in range(3))
        assert verdicts(await one.turn(submission(first))) == [Verdict.STORED]
        assert verdicts(await one.turn(tick(second, 10))) == [Verdict.UNIQUE]
        assert verdicts(await one.turn(tick(third, 10))) == [Verdict.REPEATED]
        assert await one.state(second.id) is None
        assert await one.state(first.id) is State.WAITING

    async def test_a_new_schedule_begins_now_and_its_last_tick_is_remembered(self, one: Opened, clock: FakeClock) -> None:
        assert await one.store.last_tick("nightly", "a") == START_AT
        await clock.advance(5)
        assert await one.store.last_tick("nightly", "a") == START_AT
        assert await one.store.last_tick("hourly", "a") == START_AT + 5
        await one.turn(tick(one.job(), 3))
        assert await one.store.last_tick("nightly", "a") == START_AT + 3

    async def test_a_schedule_with_other_moments_begins_anew(self, one: Opened, clock: FakeClock) -> None:
        await one.store.last_tick("nightly", "a")
        await clock.advance(5)
        assert await one.store.last_tick("nightly", "b") == START_AT + 5
        await clock.advance(5)
        assert await one.store.last_tick("nightly", "b") == START_AT + 5

    async def test_a_tick_of_a_clock_that_was_wrong_does_not_stop_the_schedule(self, one: Opened) -> None:
        await one.store.last_tick("nightly", "a")
        await one.turn(tick(one.job(), AHEAD_S - 1))
        assert await one.store.last_tick("nightly", "a") == START_AT + AHEAD_S - 1
        await one.turn(tick(one.job(), AHEAD_S + 1))
        assert await one.store.last_tick("nightly", "a") == START_AT

    async def test_the_last_tick_survives_a_restart(self, one: Opened, open_holder: Open, clock: FakeClock) -> None:
        if not one.store.capabilities.durable:
            pytest.skip("this store is gone with its holder")
        await one.store.last_tick("nightly", "a")
        await one.turn(tick(one.job(), 10))
        await one.close()
        await clock.advance(100)
        again = await open_holder()
        assert await again.store.last_tick("nightly", "a") == START_AT + 10
        assert verdicts(await again.turn(tick(again.job(), 10))) == [Verdict.REPEATED]
