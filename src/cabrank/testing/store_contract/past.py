# ruff: noqa: S101 -- tests are named as facts, their numbers are examples, and they assert
"""What a store knows of runs that are over, or on their way: errors, moments, progress; what is left of finished jobs."""

from __future__ import annotations

import msgspec
import pytest

from cabrank.errors import UniqueTaken
from cabrank.job import FAILED_RUNS, Job, Lease, Progress, Settlement
from cabrank.states import Cause, State
from cabrank.stores.contract import JobFilter
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.holding import SWEPT_S
from cabrank.testing.store_contract.opened import Open, Opened, OpenedContract, ids


class PastContract(OpenedContract):
    """What is kept of each failure, of progress, and of jobs that are done."""

    async def test_each_failed_run_is_kept_with_its_error_and_its_moment(self, one: Opened, clock: FakeClock) -> None:
        [lease] = await one.run(one.job())
        first_at = clock.now()
        await fail(one, lease, "ValueError", "it broke")
        await clock.advance(5)
        [lease] = await one.claim()
        await fail(one, lease, "KeyError", "it broke again", cause=Cause.GAVE_UP)
        record = await one.find(lease.job.id)
        assert [(run.run, run.at, run.error_type, run.error) for run in record.failed_runs] == [
            (1, first_at, "ValueError", "it broke"),
            (2, clock.now(), "KeyError", "it broke again"),
        ]
        assert (record.failures, record.error) == (2, "it broke again")

    async def test_the_first_and_the_last_failed_runs_are_kept(self, one: Opened) -> None:
        await one.submit(job := one.job())
        for _ in range(FAILED_RUNS + 3):
            [lease] = await one.claim()
            await fail(one, lease, "ValueError", f"run {lease.run}")
        record = await one.find(job.id)
        assert [run.run for run in record.failed_runs] == [1, *range(5, FAILED_RUNS + 4)]
        assert record.failures == FAILED_RUNS + 3

    async def test_a_run_that_waits_again_by_itself_has_not_failed(self, one: Opened) -> None:
        [lease] = await one.run(one.job())
        await one.settle([lease], Cause.RELEASED)
        [lease] = await one.claim()
        await one.settle([lease], Cause.SNOOZED)
        assert list((await one.find(lease.job.id)).failed_runs) == []

    async def test_a_crash_is_a_failed_run(self, one: Opened, other: Opened, clock: FakeClock) -> None:
        [lease] = await other.run(other.job())
        await other.kill()
        await clock.advance(SWEPT_S)
        await one.turn()
        [failed] = (await one.find(lease.job.id)).failed_runs
        assert (failed.run, failed.error_type) == (1, "WorkerLost")

    async def test_a_settled_crash_counts_as_one(self, one: Opened) -> None:
        [lease] = await one.run(one.job())
        await fail(one, lease, "WorkerLost", "killed by SIGKILL", cause=Cause.CRASHED)
        record = await one.find(lease.job.id)
        assert (record.failures, record.crashes, len(record.failed_runs)) == (0, 1, 1)

    async def test_what_was_given_up_is_told_to_who_found_it(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(max_crashes=1)
        if not one.store.capabilities.shared:
            pytest.skip("this store is not shared")
        other = await open_holder(max_crashes=9)  # the finder's is what counts
        [lease] = await other.run(other.job())
        await other.kill()
        await clock.advance(SWEPT_S)
        turn = await one.turn()
        assert [(given.job.id, given.run, given.crashes) for given in turn.given_up] == [(lease.job.id, 1, 0)], "those of earlier runs"
        assert await one.state(lease.job.id) is State.DEAD
        assert list((await one.turn()).given_up) == []

    async def test_the_errors_are_kept_when_the_job_returns_in_the_end(self, one: Opened) -> None:
        [lease] = await one.run(one.job())
        await fail(one, lease, "ValueError", "it broke")
        [lease] = await one.claim()
        await one.settle([lease], Cause.RETURNED)
        record = await one.find(lease.job.id)
        assert (record.state, record.failures, [run.error for run in record.failed_runs]) == (State.DONE, 1, ["it broke"])

    async def test_the_moments_of_a_job_are_known(self, one: Opened, clock: FakeClock) -> None:
        created_at = clock.now()
        await one.submit(job := one.job())
        await clock.advance(3)
        [lease] = await one.claim()
        started_at = clock.now()
        record = await one.find(job.id)
        assert (record.created_at, record.started_at) == (created_at, started_at)
        await clock.advance(4)
        await fail(one, lease, "ValueError", "it broke", cause=Cause.GAVE_UP)
        record = await one.find(job.id)
        assert (record.created_at, record.started_at, record.changed_at) == (created_at, started_at, clock.now())

    async def test_a_finished_job_has_its_handler_and_queue(self, open_holder: Open) -> None:
        one = await open_holder(handlers=("work", "rest"))
        leases = await one.run(one.job(), one.job(handler="rest"), one.job())
        await one.settle(leases, Cause.RETURNED)
        assert {lease.job.id: lease.job.handler for lease in leases} == {
            id: record.handler for id, record in (await one.store.find(ids(leases))).items()
        }
        page = await one.store.browse(JobFilter(state=State.DONE, handler="rest", queue="line"))
        assert [record.id for record in page.records] == [leases[1].job.id]

    async def test_many_finished_jobs_are_found_at_once(self, one: Opened) -> None:
        leases = await one.run(*one.jobs(50))
        for lease in leases:
            await one.turn(settlements=[Settlement(lease.job.id, 1, Cause.RETURNED, result=str(lease.job.id).encode())])
        found = await one.store.find(ids(leases))
        assert {id: record.result for id, record in found.items()} == {id: str(id).encode() for id in ids(leases)}

    async def test_progress_is_known_while_the_run_goes_on(self, one: Opened, clock: FakeClock) -> None:
        [lease] = await one.run(one.job())
        await one.tell(Progress(lease.job.id, 1, clock.now(), 0.25, "a quarter"), Progress(lease.job.id, 2, clock.now(), 0.9))
        assert (await one.find(lease.job.id)).progress == Progress(lease.job.id, 1, clock.now(), 0.25, "a quarter")
        [other] = await one.run(one.job())
        assert await one.store.cancel(other.job.id)
        await one.tell(Progress(lease.job.id, 1, clock.now(), 0.5))
        assert (await one.find(lease.job.id)).progress == Progress(lease.job.id, 1, clock.now(), 0.5), "where nothing has ended"
        await fail(one, lease, "ValueError", "it broke")
        assert (await one.find(lease.job.id)).progress is None
        [lease] = await one.claim()
        await one.settle([lease], Cause.RETURNED)
        await one.tell(Progress(lease.job.id, 2, clock.now(), 1.0))
        assert (await one.find(lease.job.id)).progress is None

    async def test_a_job_is_not_reopened_beside_one_with_its_unique_key(self, one: Opened) -> None:
        first, second = (_unique(one.job()) for _ in range(2))
        await one.run(first)
        await one.turn(settlements=[Settlement(first.id, 1, Cause.GAVE_UP)])
        await one.submit(second)
        with pytest.raises(UniqueTaken, match="'once'"):
            await one.store.reopen(first.id)
        assert await one.state(first.id) is State.DEAD
        assert await one.store.cancel(second.id)
        assert await one.store.reopen(first.id)
        with pytest.raises(UniqueTaken):
            await one.store.reopen(second.id)

    async def test_many_jobs_are_reopened_by_a_filter(self, one: Opened) -> None:
        leases = await one.run(*one.jobs(5), one.job(queue="else"))
        await one.settle(leases[:4], Cause.UNREADABLE)
        first = await one.store.reopen_all(JobFilter(state=State.HELD, queue="line"), limit=3)
        assert (first.reopened, list(first.taken)) == (3, [])
        assert first.after is not None
        assert (await one.store.reopen_all(JobFilter(state=State.HELD, queue="line"), after=first.after)).reopened == 1
        assert ids(await one.claim()) == ids(leases[:4])


async def fail(holder: Opened, lease: Lease, error_type: str, error: str, *, cause: Cause = Cause.RETRIED) -> None:
    """Let a run fail."""
    await holder.turn(settlements=[Settlement(lease.job.id, lease.run, cause, error=error, error_type=error_type)])


def _unique(job: Job) -> Job:
    return msgspec.structs.replace(job, unique="once")
