# ruff: noqa: PLR2004, S101 -- tests are named as facts, their numbers are examples, and they assert
"""Settlements: where each cause leads, what is counted and kept, and what a lost lease cannot do."""

from __future__ import annotations

from random import Random

import pytest

from cabrank.errors import StoreUnavailable
from cabrank.job import Settlement
from cabrank.states import TRANSITIONS, Cause, State
from cabrank.stores.contract import Verdict
from cabrank.testing.clock import FakeClock
from cabrank.testing.faults import FaultyStore
from cabrank.testing.store_contract.admission import PRUNED_S
from cabrank.testing.store_contract.opened import PLENTY, QUEUE, Open, Opened, OpenedContract, ids, submission, verdicts

SETTLED = (  # what a dispatcher settles runs with
    Cause.RETURNED,
    Cause.RETRIED,
    Cause.SNOOZED,
    Cause.RELEASED,
    Cause.CRASHED,
    Cause.GAVE_UP,
    Cause.WORKER_LOST,
    Cause.CANCELLED,
    Cause.DROPPED,
    Cause.UNREADABLE,
)
FAILURES = {Cause.RETRIED, Cause.GAVE_UP}
CRASHES = {Cause.CRASHED, Cause.WORKER_LOST}
BACK = [cause for cause in SETTLED if TRANSITIONS[State.RUNNING, cause] is State.WAITING]


class SettlementContract(OpenedContract):
    """What `turn` promises about `settlements`, and about its number."""

    @pytest.mark.parametrize("cause", SETTLED)
    async def test_a_cause_leads_where_the_table_says(self, one: Opened, cause: Cause) -> None:
        [lease] = await one.run(one.job())
        turn = await one.settle([lease], cause)
        assert list(turn.lost) == []
        record = await one.find(lease.job.id)
        assert record.state is TRANSITIONS[State.RUNNING, cause]
        if cause is not Cause.RETURNED:
            assert (record.run, record.failures, record.crashes) == (1, cause in FAILURES, cause in CRASHES)
        tally = await one.tally()
        counted = (tally.waiting, tally.running, tally.dead, tally.held)
        assert counted == (cause in BACK, 0, TRANSITIONS[State.RUNNING, cause] is State.DEAD, cause is Cause.UNREADABLE)

    @pytest.mark.parametrize("cause", BACK)
    async def test_a_job_that_waits_again_is_leased_for_its_next_run(self, one: Opened, cause: Cause) -> None:
        [first] = await one.run(one.job(payload=b"[7]"))
        await one.settle([first], cause)
        [second] = await one.claim()
        assert (second.job.id, second.job.payload) == (first.job.id, b"[7]")
        assert (second.run, second.failures, second.crashes) == (2, cause in FAILURES, cause in CRASHES)

    @pytest.mark.parametrize("cause", [Cause.RETRIED, Cause.SNOOZED])
    async def test_it_waits_as_long_as_the_settlement_says(self, one: Opened, clock: FakeClock, cause: Cause) -> None:
        [lease] = await one.run(one.job())
        turn = await one.turn(settlements=[Settlement(lease.job.id, 1, cause, after_s=20)], want=PLENTY)
        assert ids(turn.leases) == []
        assert turn.next_due_s == pytest.approx(20)
        await clock.advance(21)
        assert ids(await one.claim()) == [lease.job.id]

    async def test_a_reason_and_an_error_are_kept(self, one: Opened) -> None:
        dead, again = await one.run(*one.jobs(2))
        await one.turn(
            settlements=[
                Settlement(dead.job.id, 1, Cause.GAVE_UP, reason="failed", error="it broke"),
                Settlement(again.job.id, 1, Cause.RETRIED, error="not yet: é"),
            ]
        )
        record = await one.find(dead.job.id)
        assert (record.reason, record.error) == ("failed", "it broke")
        assert (await one.find(again.job.id)).error == "not yet: é"

    @pytest.mark.parametrize("result", [b'{"a": 1}', '"é"'.encode(), b"null"])
    async def test_a_result_is_kept_for_its_time(self, open_holder: Open, clock: FakeClock, result: bytes) -> None:
        one = await open_holder(keep_done_s=600.0)
        lease, without = await one.run(*one.jobs(2))
        returned = [Settlement(lease.job.id, 1, Cause.RETURNED, result=result), Settlement(without.job.id, 1, Cause.RETURNED)]
        await one.turn(settlements=returned)
        record = await one.find(lease.job.id)
        assert (record.state, record.run, record.result) == (State.DONE, 1, result)
        assert (await one.find(without.job.id)).result is None
        await clock.advance(590)
        await one.turn()
        assert await one.state(lease.job.id) is State.DONE
        await clock.advance(PRUNED_S)
        await one.turn()
        assert await one.store.find([lease.job.id, without.job.id]) == {}

    async def test_the_oldest_results_go_first(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(keep_done_jobs=2)
        leases = await one.run(*one.jobs(3))
        for lease in leases:
            await one.settle([lease], Cause.RETURNED)
        await clock.advance(PRUNED_S)
        await one.turn()
        assert sorted(await one.store.find(ids(leases))) == ids(leases)[1:]

    @pytest.mark.parametrize("cause", [Cause.GAVE_UP, Cause.CANCELLED, Cause.DROPPED, Cause.UNREADABLE])
    async def test_what_nobody_came_for_is_forgotten_but_held_jobs_stay(self, open_holder: Open, clock: FakeClock, cause: Cause) -> None:
        one = await open_holder(keep_dead_s=600.0)
        [lease] = await one.run(one.job())
        await one.settle([lease], cause)
        await clock.advance(600 + PRUNED_S)
        await one.turn()
        assert await one.state(lease.job.id) is (State.HELD if cause is Cause.UNREADABLE else None)

    async def test_a_run_is_settled_once(self, one: Opened) -> None:
        [lease] = await one.run(one.job())
        await one.settle([lease], Cause.RETURNED)
        for cause in SETTLED:
            turn = await one.settle([lease], cause)
            assert list(turn.lost) == [(lease.job.id, 1)]
        assert await one.state(lease.job.id) is State.DONE

    @pytest.mark.parametrize("cause", SETTLED)
    async def test_an_earlier_run_cannot_settle_a_later_one(self, one: Opened, cause: Cause) -> None:
        [first] = await one.run(one.job())
        await one.settle([first], Cause.RELEASED)
        [second] = await one.claim()
        turn = await one.settle([first], cause)
        assert list(turn.lost) == [(first.job.id, 1)]
        record = await one.find(first.job.id)
        assert (record.state, record.run) == (State.RUNNING, 2)
        assert list((await one.settle([second], Cause.RETURNED)).lost) == []

    async def test_a_lost_settlement_does_not_touch_the_others(self, one: Opened) -> None:
        leases = await one.run(*one.jobs(len(SETTLED)))
        settlements = [Settlement(lease.job.id, 1, cause) for lease, cause in zip(leases, SETTLED, strict=True)]
        gone = [Settlement(10**12 + number, 1, cause) for number, cause in enumerate(SETTLED)]
        new = one.job()
        turn = await one.turn(submission(new), settlements=[*settlements, *gone])
        assert sorted(turn.lost) == [(settlement.id, 1) for settlement in gone]
        found = await one.store.find(ids(leases))
        assert [found[id].state for id in ids(leases)] == [TRANSITIONS[State.RUNNING, cause] for cause in SETTLED]
        assert await one.state(new.id) is State.WAITING

    async def test_runs_of_different_numbers_settle_together(self, one: Opened) -> None:
        [first] = await one.run(one.job())
        await one.settle([first], Cause.RELEASED)
        turn = await one.turn(submission(*one.jobs(3)), want=PLENTY)
        assert sorted(lease.run for lease in turn.leases) == [1, 1, 1, 2]
        assert list((await one.settle(turn.leases, Cause.RETURNED)).lost) == []
        assert {record.state for record in (await one.store.find(ids(turn.leases))).values()} == {State.DONE}

    async def test_one_turn_settles_then_admits_then_claims(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(max_queue=1)
        [lease] = await one.run(one.job())
        waiting, new = one.jobs(2)
        await one.submit(waiting)
        await clock.advance(1)
        turn = await one.turn(submission(new), settlements=[Settlement(lease.job.id, 1, Cause.RELEASED)], want=PLENTY)
        assert verdicts(turn) == [Verdict.FULL]
        assert ids(turn.leases) == [waiting.id, lease.job.id]

    async def test_the_same_number_again_changes_nothing_and_says_the_same(self, one: Opened) -> None:
        [settled] = await one.run(one.job())
        new, settlements = [submission(*one.jobs(2), key="k", digest=b"body")], [Settlement(settled.job.id, 1, Cause.RETRIED)]
        one.number += 1
        first = await one.store.turn(one.number, new=new, settlements=settlements, want={QUEUE: PLENTY})
        before = await one.tally()
        again = await one.store.turn(one.number, new=new, settlements=settlements, want={QUEUE: PLENTY})
        assert (again, await one.tally()) == (first, before)
        assert len(first.leases) == 3
        assert await one.claim() == []

    async def test_a_lost_reply_is_made_good_by_the_same_number(self, one: Opened, clock: FakeClock) -> None:
        faulty = FaultyStore(one.store, clock=clock, rng=Random(1))
        faulty.replies_to_lose = 1
        new = [submission(*one.jobs(2))]
        with pytest.raises(StoreUnavailable):
            await faulty.turn(1, new=new, settlements=(), want={QUEUE: PLENTY})
        assert (await one.tally()).running == 2
        turn = await faulty.turn(1, new=new, settlements=(), want={QUEUE: PLENTY})
        assert ids(turn.leases) == [job.id for job in new[0].jobs]
        assert (await one.tally()).running == 2
