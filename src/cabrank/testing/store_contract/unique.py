# ruff: noqa: PLR2004, S101 -- tests are named as facts, their numbers are examples, and they assert
"""Unique keys: at most one waiting job of a handler has one; what becomes of another is said by the submitter. And tags."""

from __future__ import annotations

import msgspec
import pytest

from cabrank.job import Conflict, Job, Lease
from cabrank.policy import Limit
from cabrank.states import Cause, State
from cabrank.stores.contract import REPLACED, Admission, Submission, Verdict, Want
from cabrank.testing.clock import START_AT, FakeClock
from cabrank.testing.store_contract.opened import Open, Opened, OpenedContract, ids, submission, verdicts


def unique(job: Job, on_conflict: Conflict = Conflict.SKIP, *, key: str = "", over: tuple[State, ...] = ()) -> Submission:
    """One request for a job with the unique key `u`; `key` is an idempotency key."""
    return Submission(
        jobs=(msgspec.structs.replace(job, unique="u"),),
        on_conflict=on_conflict,
        unique_over=over,
        key=key,
        digest=job.payload if key else b"",
    )


class UniqueContract(OpenedContract):
    """What `Store` promises about jobs with a unique key."""

    async def test_the_one_that_waits_is_what_a_second_submit_gets(self, one: Opened) -> None:
        first, second = one.jobs(2)
        await one.turn(unique(first))
        assert (await one.turn(unique(second))).admitted == [Admission(Verdict.UNIQUE, first.id, 1)]
        assert (await one.tally()).waiting == 1
        assert await one.state(second.id) is None

    async def test_a_finished_one_is_in_nobodys_way(self, one: Opened) -> None:
        for cause in (Cause.RETURNED, Cause.GAVE_UP, Cause.CANCELLED):
            turn = await one.turn(unique(one.job()), want={"line": one_job()})
            assert verdicts(turn) == [Verdict.STORED], cause
            await one.settle(turn.leases, cause)

    @pytest.mark.parametrize("cause", [Cause.RETRIED, Cause.UNREADABLE])
    async def test_one_that_waits_again_or_is_held_is_unfinished(self, one: Opened, cause: Cause) -> None:
        turn = await one.turn(unique(one.job()), want={"line": one_job()})
        await one.settle(turn.leases, cause)
        assert (await one.turn(unique(one.job()))).admitted[0].first_id == turn.leases[0].job.id

    async def test_a_key_is_its_handlers_own(self, open_holder: Open) -> None:
        one = await open_holder(handlers=("work", "other"))
        assert verdicts(await one.turn(unique(one.job()), unique(one.job(handler="other")))) == [Verdict.STORED, Verdict.STORED]

    async def test_two_in_one_turn_are_one_after_the_other(self, one: Opened) -> None:
        first, second, third = one.jobs(3)
        turn = await one.turn(unique(first), unique(second), unique(third, Conflict.REPLACE), want={"line": one_job()})
        assert verdicts(turn) == [Verdict.STORED, Verdict.UNIQUE, Verdict.STORED]
        assert turn.admitted[1].first_id == first.id
        assert turn.admitted[2].replaced == first.id
        assert ids([*turn.leases, *await one.claim()]) == [third.id]
        assert (await one.tally()).waiting == 0

    async def test_a_running_one_is_skipped_for(self, one: Opened) -> None:
        turn = await one.turn(unique(one.job()), want={"line": one_job()})
        assert (await one.turn(unique(one.job()))).admitted == [Admission(Verdict.UNIQUE, turn.leases[0].job.id, 1)]

    @pytest.mark.parametrize("policy", [Conflict.REPLACE, Conflict.DEBOUNCE])
    async def test_what_comes_while_one_runs_is_not_lost_but_stored_behind_it(self, one: Opened, policy: Conflict) -> None:
        await one.turn(unique(one.job()), want={"line": one_job()})
        second, third = one.jobs(2)
        assert verdicts(await one.turn(unique(second, policy))) == [Verdict.STORED]
        turn = await one.turn(unique(third, policy))
        assert (await one.tally()).waiting == 1
        assert (turn.admitted[0].replaced or turn.admitted[0].first_id) == second.id

    async def test_skip_can_be_over_waiting_jobs_only(self, one: Opened) -> None:
        await one.turn(unique(one.job()), want={"line": one_job()})
        waiting, third = one.jobs(2)
        assert verdicts(await one.turn(unique(waiting, over=(State.WAITING,)))) == [Verdict.STORED]
        assert (await one.turn(unique(third, over=(State.WAITING,)))).admitted == [Admission(Verdict.UNIQUE, waiting.id, 1)]

    @pytest.mark.parametrize("policy", list(Conflict))
    async def test_a_dead_one_stands_in_the_way_if_that_is_asked_for(self, one: Opened, policy: Conflict) -> None:
        turn = await one.turn(unique(one.job()), want={"line": one_job()})
        await one.settle(turn.leases, Cause.GAVE_UP)
        dead = turn.leases[0].job.id
        over = (State.WAITING, State.DEAD)
        assert (await one.turn(unique(one.job(), policy, over=over))).admitted == [Admission(Verdict.UNIQUE, dead, 1)]
        assert verdicts(await one.turn(unique(one.job(), policy))) == [Verdict.STORED]

    @pytest.mark.parametrize("policy", [Conflict.REPLACE, Conflict.DEBOUNCE])
    async def test_over_running_jobs_too_one_that_runs_is_what_the_submitter_gets(self, one: Opened, policy: Conflict) -> None:
        turn = await one.turn(unique(one.job()), want={"line": one_job()})
        over = (State.WAITING, State.RUNNING)
        assert (await one.turn(unique(one.job(), policy, over=over))).admitted[0].first_id == turn.leases[0].job.id
        await one.settle(turn.leases, Cause.RETRIED)
        second = (await one.turn(unique(one.job(), policy, over=over))).admitted[0]
        assert (second.replaced or second.first_id) == turn.leases[0].job.id

    async def test_replacing_cancels_the_one_that_waits(self, one: Opened) -> None:
        first, second = one.job(payload=b"1234"), one.job(payload=b"56")
        await one.turn(unique(first))
        assert (await one.turn(unique(second, Conflict.REPLACE))).admitted == [Admission(Verdict.STORED, replaced=first.id)]
        assert ((await one.tally()).waiting, (await one.tally()).waiting_bytes) == (1, 2)
        record = await one.find(first.id)
        assert (record.state, record.reason) == (State.CANCELLED, REPLACED)
        assert [(lease.job.id, bytes(lease.job.payload)) for lease in await one.claim()] == [(second.id, b"56")]
        assert await one.claim() == []

    async def test_a_full_queue_has_room_for_a_replacement(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1)
        first = one.job()
        await one.turn(unique(first))
        assert verdicts(await one.turn(unique(one.job(), Conflict.REPLACE))) == [Verdict.STORED]
        assert await one.state(first.id) is State.CANCELLED
        assert verdicts(await one.turn(unique(one.job()))) == [Verdict.UNIQUE]

    async def test_debouncing_moves_the_due_time_and_nothing_else(self, one: Opened, clock: FakeClock) -> None:
        first = one.job(payload=b"1", due_at=START_AT + 10)
        await one.turn(unique(first))
        await clock.advance(8)
        turn = await one.turn(unique(one.job(payload=b"2", due_at=START_AT + 18), Conflict.DEBOUNCE))
        assert turn.admitted == [Admission(Verdict.UNIQUE, first.id, 1)]
        assert turn.next_due_s is not None
        await clock.advance(8)
        assert await one.claim() == []
        await clock.advance(3)
        assert [(lease.job.id, bytes(lease.job.payload)) for lease in await one.claim()] == [(first.id, b"1")]
        assert (await one.tally()).waiting == 0

    async def test_debouncing_without_a_delay_makes_it_due_now(self, one: Opened) -> None:
        first = one.job(due_at=START_AT + 10)
        await one.turn(unique(first))
        await one.turn(unique(one.job(), Conflict.DEBOUNCE))
        assert ids(await one.claim()) == [first.id]
        assert await one.claim() == []

    @pytest.mark.parametrize("due_s", [0, 5])
    async def test_a_job_of_a_limited_handler_is_replaced_in_its_line(self, open_holder: Open, clock: FakeClock, due_s: float) -> None:
        one = await open_holder(limits={"work": Limit(running=1, key=str)})
        due_at = START_AT + due_s if due_s else 0
        await one.turn(submission(one.job(limit_key="a")), want={"line": one_job()})
        first, second, behind = one.job(limit_key="a", due_at=due_at), one.job(limit_key="b", due_at=due_at), one.job(limit_key="b")
        assert verdicts(await one.turn(unique(first))) == [Verdict.STORED]
        assert (await one.turn(unique(second, Conflict.REPLACE))).admitted == [Admission(Verdict.STORED, replaced=first.id)]
        await one.submit(behind)
        assert (await one.tally()).waiting == 2
        assert ids(await one.claim(1)) == [behind.id if due_s else second.id]
        await clock.advance(due_s)
        assert ids(await one.claim()) == []  # one of key b runs, one of key a
        await one.settle([Lease(behind if due_s else second, 1)], Cause.RETURNED)
        assert ids(await one.claim()) == [second.id if due_s else behind.id]
        assert (await one.tally()).waiting == 0
        assert await one.state(first.id) is State.CANCELLED

    async def test_a_job_of_a_limited_handler_is_debounced_in_its_line(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={"work": Limit(running=1)})
        first, second, third = (one.job(limit_key="", due_at=START_AT + due_s) for due_s in (10, 20, 0))
        await one.turn(unique(first))
        assert verdicts(await one.turn(unique(second, Conflict.DEBOUNCE))) == [Verdict.UNIQUE]
        await clock.advance(15)
        assert await one.claim() == []
        other = one.job(limit_key="")
        await one.turn(submission(other), want={"line": one_job()})
        assert verdicts(await one.turn(unique(third, Conflict.DEBOUNCE))) == [Verdict.UNIQUE]
        assert await one.claim() == []  # it is due, and waits for its limit
        await one.settle([Lease(other, 1)], Cause.RETURNED)
        assert ids(await one.claim()) == [first.id]
        assert (await one.tally()).waiting == 0

    async def test_a_job_that_waits_for_its_limit_is_what_a_second_submit_gets(self, open_holder: Open) -> None:
        one = await open_holder(limits={"work": Limit(running=1)})
        running = one.job(limit_key="")
        await one.turn(submission(running), want={"line": one_job()})
        first, second = one.job(limit_key=""), one.job(limit_key="")
        await one.turn(unique(first), want={"line": one_job()})
        assert (await one.turn(unique(second))).admitted == [Admission(Verdict.UNIQUE, first.id, 1)]
        await one.settle([Lease(running, 1)], Cause.RETURNED)
        assert ids(await one.claim()) == [first.id]
        assert (await one.turn(unique(second))).admitted == [Admission(Verdict.UNIQUE, first.id, 1)]

    async def test_a_receipt_remembers_the_job_that_was_there(self, one: Opened) -> None:
        (first,) = (await one.turn(unique(one.job()), want={"line": one_job()})).leases
        assert verdicts(await one.turn(unique(one.job(), key="k"))) == [Verdict.UNIQUE]
        await one.settle([first], Cause.RETURNED)
        assert (await one.turn(unique(one.job(), key="k"))).admitted == [Admission(Verdict.REPEATED, first.job.id, 1)]

    async def test_tags_are_kept(self, one: Opened) -> None:
        job = msgspec.structs.replace(one.job(), tags=("a", "b.c"))
        plain = one.job()
        await one.submit(job)
        await one.submit(plain)
        assert tuple((await one.find(job.id)).tags) == ("a", "b.c")
        assert tuple((await one.find(plain.id)).tags) == ()
        await one.settle((await one.claim())[:1], Cause.GAVE_UP)
        assert tuple((await one.find(job.id)).tags) == ("a", "b.c")

    async def test_the_moments_of_a_job_are_kept(self, one: Opened, clock: FakeClock) -> None:
        if not one.store.capabilities.durable:
            pytest.skip("this store keeps no moments")
        job = one.job()
        await one.submit(job)
        await clock.advance(1)
        leases = await one.claim()
        record = await one.find(job.id)
        assert (record.created_at, record.started_at, record.changed_at) == (START_AT, START_AT + 1, START_AT + 1)
        await clock.advance(1)
        await one.settle(leases, Cause.RELEASED)
        assert (await one.find(job.id)).changed_at == START_AT + 2
        await clock.advance(1)
        await one.settle(await one.claim(), Cause.GAVE_UP)
        await clock.advance(1)
        record = await one.find(job.id)
        assert (record.created_at, record.started_at, record.changed_at) == (START_AT, START_AT + 3, START_AT + 3)


def one_job() -> Want:
    """A want for one job."""
    return Want(jobs=1, bytes=1_000, idle=1)
