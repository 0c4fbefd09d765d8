# ruff: noqa: S101 -- tests are named as facts, their numbers are examples, and they assert
"""What people do: look, cancel, reopen."""

from __future__ import annotations

import msgspec
import pytest

from cabrank.job import Settlement
from cabrank.states import TRANSITIONS, Cause, State
from cabrank.stores.contract import JobFilter, JobRecord, Verdict
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.holding import SWEPT_S
from cabrank.testing.store_contract.opened import Open, Opened, OpenedContract, ids, needs_sharing, submission

SHELVING = [cause for (state, cause), after in TRANSITIONS.items() if state is State.RUNNING and (after, Cause.REOPENED) in TRANSITIONS]
SETTLED_SHELVING = [cause for cause in SHELVING if cause is not Cause.WORKER_LOST]  # that one is settled by the store itself
UNKNOWN = 10**12


class PeopleContract(OpenedContract):
    """What `Inspector` promises."""

    async def test_unknown_jobs_are_not_found(self, one: Opened) -> None:
        job = one.job()
        await one.submit(job)
        assert await one.store.find([]) == {}
        assert set(await one.store.find([job.id, UNKNOWN])) == {job.id}

    @pytest.mark.parametrize("limit", [1, 2, 5, 6, 100])
    async def test_jobs_are_listed_page_by_page_in_the_order_of_their_ids(self, one: Opened, limit: int) -> None:
        jobs = [one.job(priority=9 - place, queue=f"queue{place % 2}") for place in range(6)]
        await one.submit(*jobs)
        assert [record.id for record in await _browse(one, JobFilter(), limit)] == [job.id for job in jobs]

    async def test_a_listed_job_is_told_as_a_found_one(self, one: Opened) -> None:
        leases = await one.run(*one.jobs(3))
        await one.turn(settlements=[Settlement(leases[0].job.id, 1, Cause.GAVE_UP, reason="failed", error="it broke")])
        found = (await one.store.find([lease.job.id for lease in leases])).values()
        assert await _browse(one, JobFilter()) == [msgspec.structs.replace(record, failed_runs=()) for record in found]

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    @pytest.mark.parametrize("state", State)
    async def test_jobs_are_listed_by_their_state(self, open_holder: Open, clock: FakeClock, state: State, limit: int) -> None:
        one = await open_holder(handlers=("work", "rest"))
        expected = await _jobs_in_every_state(one, clock)
        assert [record.id for record in await _browse(one, JobFilter(state=state), limit)] == expected[state]
        assert {record.state for record in await _browse(one, JobFilter(state=state))} == {state}

    async def test_jobs_are_listed_by_queue_and_handler(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(handlers=("work", "rest"))
        await _jobs_in_every_state(one, clock)
        for state in (None, *State):
            whole = await _browse(one, JobFilter(state=state))
            for queue, handler in (
                ("line", ""),
                ("else", ""),
                ("", "work"),
                ("", "rest"),
                ("else", "rest"),
                ("nowhere", ""),
                ("", "nobody"),
            ):
                found = await _browse(one, JobFilter(state=state, queue=queue, handler=handler), 2)
                assert found == [r for r in whole if (not queue or r.queue == queue) and (not handler or r.handler == handler)]

    async def test_a_tally_counts_every_queue(self, one: Opened, clock: FakeClock) -> None:
        await one.run(one.job(), one.job())
        await one.turn(submission(one.job(payload=b"[1]"), one.job(due_at=clock.now() + 60), one.job(queue="else")))
        tally, elsewhere = await one.tally(), await one.tally("else")
        assert (tally.waiting, tally.waiting_bytes, tally.running) == (2, 4, 2)
        assert (elsewhere.waiting, elsewhere.waiting_bytes, elsewhere.running) == (1, 1, 0)

    async def test_what_is_purged_is_forgotten_unless_it_may_still_run(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(handlers=("work", "rest"))
        expected = await _jobs_in_every_state(one, clock)
        kept = [id for state in (State.WAITING, State.RUNNING) for id in expected[state]]
        gone = [id for state in (State.DEAD, State.CANCELLED, State.EXPIRED, State.HELD) for id in expected[state]]
        assert gone
        assert await one.store.purge([*gone, *kept, UNKNOWN]) == len(gone)
        assert set(await one.store.find([*gone, *kept])) == set(kept)
        assert await one.store.purge(gone) == 0
        assert await one.store.purge([]) == 0
        assert [await one.store.reopen(id) for id in gone] == [False] * len(gone)

    async def test_the_handlers_of_all_that_live_are_known(self, open_holder: Open) -> None:
        one = await open_holder(handlers=("work", "rest"))
        assert set(await one.store.handlers()) == {"work", "rest"}
        needs_sharing(one)
        idle, other = await open_holder(handlers=()), await open_holder(handlers=("rest", "else"))
        assert set(await idle.store.handlers()) == {"work", "rest", "else"}
        submits = await open_holder(handlers=("work", "all"), elsewhere=("work", "all"))
        assert set(await idle.store.handlers()) == {"work", "rest", "else"}, "this one only submits them"
        await submits.store.close()
        await other.store.close()
        assert set(await idle.store.handlers()) == {"work", "rest"}
        await one.store.close()
        assert set(await idle.store.handlers()) == set()

    @pytest.mark.parametrize("delay_s", [0.0, 60.0])
    async def test_a_waiting_job_is_cancelled_at_once(self, open_holder: Open, clock: FakeClock, delay_s: float) -> None:
        one = await open_holder(max_queue=1)
        job = one.job(due_at=clock.now() + delay_s)
        await one.submit(job)
        assert await one.store.cancel(job.id)
        assert await one.state(job.id) is State.CANCELLED
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes) == (0, 0)
        await clock.advance(delay_s)
        assert await one.claim() == []
        assert (await one.turn(submission(one.job()))).admitted[0].verdict is Verdict.STORED

    async def test_the_holder_of_a_cancelled_job_is_told(self, one: Opened, other: Opened) -> None:
        leases = await one.run(*one.jobs(2))
        assert await other.store.cancel(leases[0].job.id)
        assert await one.state(leases[0].job.id) is State.RUNNING
        assert list((await other.turn()).cancels) == []
        assert list((await one.turn()).cancels) == [(leases[0].job.id, 1)]
        await one.settle(leases[:1], Cause.CANCELLED)
        assert await one.state(leases[0].job.id) is State.CANCELLED
        assert list((await one.turn()).cancels) == []

    @pytest.mark.parametrize(
        ("cause", "state"),
        [
            (Cause.RETURNED, State.DONE),
            (Cause.GAVE_UP, None),
            (Cause.RETRIED, State.CANCELLED),
            (Cause.RELEASED, State.CANCELLED),
            (Cause.SNOOZED, State.CANCELLED),
        ],
    )
    async def test_a_cancelled_run_may_end_in_another_way_but_not_wait_again(self, one: Opened, cause: Cause, state: State | None) -> None:
        [lease] = await one.run(one.job())
        assert await one.store.cancel(lease.job.id)
        turn = await one.settle([lease], cause)
        assert list(turn.cancels) == ([(lease.job.id, 1)] if state is State.CANCELLED else [])
        assert await one.state(lease.job.id) in ({state} if state else {State.DEAD, State.CANCELLED})
        assert await one.claim() == []
        assert list((await one.turn()).cancels) == []

    async def test_a_cancelled_job_stays_so_when_its_holder_dies(self, one: Opened, other: Opened, clock: FakeClock) -> None:
        [lease] = await other.run(other.job())
        assert await one.store.cancel(lease.job.id)
        await other.kill()
        await clock.advance(SWEPT_S)
        assert await one.claim() == []
        assert await one.state(lease.job.id) is State.CANCELLED

    async def test_a_cancelled_job_stays_so_when_its_holder_closes(self, one: Opened, other: Opened) -> None:
        [lease] = await other.run(other.job())
        assert await one.store.cancel(lease.job.id)
        await other.close()
        assert await one.state(lease.job.id) is State.CANCELLED
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes) == (0, 0)

    @pytest.mark.parametrize("cause", [Cause.RETURNED, *SETTLED_SHELVING])
    async def test_what_is_over_is_not_cancelled(self, one: Opened, cause: Cause) -> None:
        [lease] = await one.run(one.job())
        await one.settle([lease], cause)
        before = await one.find(lease.job.id)
        held = before.state is State.HELD
        assert await one.store.cancel(lease.job.id) is held
        assert await one.state(lease.job.id) is (State.CANCELLED if held else before.state)
        assert not await one.store.cancel(UNKNOWN)

    @pytest.mark.parametrize("cause", SETTLED_SHELVING)
    async def test_what_stands_apart_is_reopened_with_nothing_held_against_it(self, open_holder: Open, cause: Cause) -> None:
        one = await open_holder(max_queue=1)
        [lease] = await one.run(one.job(payload=b"[5]"))
        await one.settle([lease], cause)
        await one.submit(one.job(priority=9))
        assert await one.store.reopen(lease.job.id)
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes, tally.dead, tally.held) == (2, 4, 0, 0)
        record = await one.find(lease.job.id)
        assert (record.state, record.failures, record.crashes) == (State.WAITING, 0, 0)
        again = (await one.claim())[0]
        assert (again.job.id, again.job.payload, again.run, again.failures) == (lease.job.id, b"[5]", 2, 0)

    async def test_a_job_that_was_cancelled_while_it_waited_is_reopened_once(self, one: Opened) -> None:
        job, behind = one.jobs(2)
        await one.submit(job, behind)
        assert await one.store.cancel(job.id)
        assert await one.store.reopen(job.id)
        assert not await one.store.reopen(job.id)
        assert sorted(ids(await one.claim())) == [job.id, behind.id]
        assert await one.claim() == []

    async def test_what_is_not_over_is_not_reopened(self, one: Opened) -> None:
        waiting = one.job()
        done, failed, running = await one.run(*one.jobs(3))
        await one.turn(
            submission(waiting),
            settlements=[Settlement(done.job.id, 1, Cause.RETURNED), Settlement(failed.job.id, 1, Cause.RETRIED, error="it broke")],
        )
        for id in (waiting.id, running.job.id, done.job.id, failed.job.id):
            before = await one.find(id)
            assert not await one.store.reopen(id)
            assert await one.find(id) == before
        assert not await one.store.reopen(UNKNOWN)


async def _browse(holder: Opened, which: JobFilter, limit: int = 100) -> list[JobRecord]:
    """All that the filter lets through, page by page."""
    found: list[JobRecord] = []
    after: int | None = 0
    while after is not None:
        page = await holder.store.browse(which, after=after, limit=limit)
        assert len(page.records) <= limit
        found += page.records
        after = page.after
    return found


async def _jobs_in_every_state(one: Opened, clock: FakeClock) -> dict[State, list[int]]:
    """Three jobs in each state, of two queues and two handlers, put there in another order than that of their ids."""
    made: dict[State, list[int]] = {}
    for state in reversed(State):
        jobs = [
            one.job(queue=queue, handler=handler, due_at=clock.now() + 60 * (state is State.WAITING))
            for queue, handler in (("line", "work"), ("else", "rest"), ("else", "work"))
        ]
        made[state] = [job.id for job in jobs]
        await one.submit(*jobs)
        if state is State.WAITING:
            continue
        leases = await one.claim() + await one.claim(queue="else")
        assert sorted(ids(leases)) == made[state]
        causes = {
            after: cause for (before, cause), after in TRANSITIONS.items() if before is State.RUNNING and cause is not Cause.WORKER_LOST
        }
        if state in causes and state is not State.RUNNING:
            await one.settle(reversed(leases), causes[state])
    return made
