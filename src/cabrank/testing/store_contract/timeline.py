# ruff: noqa: S101 -- tests are named as facts, their numbers are examples, and they assert
"""What happened to a job is the same list in every store, whatever became of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from cabrank.job import FAILED_RUNS, Lease, Settlement
from cabrank.states import Cause, State
from cabrank.stores.contract import FINISHED_ERROR, FINISHED_ERRORS, JobFilter
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.holding import SWEPT_S
from cabrank.testing.store_contract.opened import Opened, OpenedContract
from cabrank.timeline import Happened, Happening, timeline_of

BEGAN, FAILED, BECAME = Happened.BEGAN, Happened.FAILED, Happened.BECAME


class TimelineContract(OpenedContract):
    """Each change that a store records, with its moment, in its order."""

    async def test_a_job_that_waits_has_been_submitted(self, one: Opened, clock: FakeClock) -> None:
        at = clock.now()
        await one.submit(job := one.job())
        assert await _timeline(one, job.id) == [Happening(at=at, what=Happened.SUBMITTED, state=State.WAITING)]

    async def test_when_a_job_is_due_is_said_if_that_is_later(self, one: Opened, clock: FakeClock) -> None:
        due_at = clock.now() + 7
        await one.submit(job := one.job(due_at=due_at))
        assert (await _timeline(one, job.id))[1:] == [Happening(at=due_at, what=Happened.DUE)]
        await clock.advance(9)
        await one.claim()
        assert (await _timeline(one, job.id))[1:] == [
            Happening(at=due_at, what=Happened.DUE),
            Happening(at=clock.now(), what=BEGAN, state=State.RUNNING, run=1),
        ]

    async def test_each_failed_run_is_said_with_its_begin_and_its_end(self, one: Opened, clock: FakeClock) -> None:
        submitted_at = clock.now()
        [lease] = await one.run(one.job())
        await clock.advance(2)
        failed_at = clock.now()
        await _fail(one, lease, "ValueError", after_s=5)
        waits = [Happening(at=failed_at, what=BECAME, state=State.WAITING), Happening(at=failed_at + 5, what=Happened.DUE)]
        assert (await _timeline(one, lease.job.id))[3:] == waits
        await clock.advance(6)
        began_at = clock.now()
        [lease] = await one.claim()
        await clock.advance(1)
        await _fail(one, lease, "KeyError", cause=Cause.GAVE_UP, reason="failed")
        assert await _timeline(one, lease.job.id) == [
            Happening(at=submitted_at, what=Happened.SUBMITTED, state=State.WAITING),
            Happening(at=submitted_at, what=BEGAN, state=State.RUNNING, run=1),
            Happening(at=failed_at, what=FAILED, run=1, error_type="ValueError"),
            Happening(at=failed_at + 5, what=Happened.DUE),
            Happening(at=began_at, what=BEGAN, state=State.RUNNING, run=2),
            Happening(at=clock.now(), what=FAILED, run=2, error_type="KeyError"),
            Happening(at=clock.now(), what=BECAME, state=State.DEAD, reason="failed"),
        ]

    async def test_a_job_that_returned_keeps_what_failed_before(self, one: Opened, clock: FakeClock) -> None:
        for cause in (Cause.RETRIED, Cause.SNOOZED):
            leases = await one.run(one.job()) if cause is Cause.RETRIED else await one.claim()
            await one.turn(settlements=[Settlement(leases[0].job.id, leases[0].run, cause, error_type="ValueError")])
        at = clock.now()
        await clock.advance(3)
        [lease] = await one.claim()
        await one.settle([lease], Cause.RETURNED)
        assert await _timeline(one, lease.job.id) == [
            Happening(at=at, what=Happened.SUBMITTED, state=State.WAITING),
            Happening(at=at, what=BEGAN, state=State.RUNNING, run=1),
            Happening(at=at, what=FAILED, run=1, error_type="ValueError"),
            Happening(what=Happened.LEFT_OUT, run=2, runs=1),
            Happening(at=clock.now(), what=BECAME, state=State.DONE, run=3),
        ]

    async def test_a_job_of_which_no_run_failed_was_submitted_and_done(self, one: Opened, clock: FakeClock) -> None:
        at = clock.now()
        leases = await one.run(one.job(), one.job())
        await clock.advance(3)
        await one.settle(leases, Cause.RETURNED)
        for lease in leases:
            submitted, done = await _timeline(one, lease.job.id)
            assert submitted == Happening(at=at, what=Happened.SUBMITTED, state=State.WAITING)
            assert (done.at, done.what, done.state) == (clock.now(), BECAME, State.DONE)

    @pytest.mark.parametrize("queues", [("line",), ("line", "other")])
    async def test_jobs_that_are_done_together_were_submitted_each_at_its_moment(
        self, one: Opened, clock: FakeClock, queues: Sequence[str]
    ) -> None:
        submitted_at, results = dict[int, float](), list[int]()
        for _ in range(3):
            jobs = [one.job(queue=queue) for queue in queues for _ in range(2)]
            await one.submit(*jobs)
            submitted_at.update((job.id, clock.now()) for job in jobs)
            results.append(jobs[0].id)
            await clock.advance(1)
        leases = [lease for queue in queues for lease in await one.claim(queue=queue)]
        returned = {1: [lease.job.id for lease in leases if lease.job.id not in results]}
        told = [Settlement(id, 1, Cause.RETURNED, result=b"1", value=1) for id in results]
        await one.store.turn(one.number + 1, new=(), settlements=told, want={}, returned=returned)
        page = await one.store.browse(JobFilter(state=State.DONE))
        assert {record.id: record.created_at for record in page.records} == submitted_at
        found = await one.store.find(submitted_at)
        assert {id: record.created_at for id, record in found.items()} == submitted_at
        assert {id: timeline_of(record)[0].at for id, record in found.items()} == submitted_at

    async def test_runs_of_which_nothing_is_kept_are_counted(self, one: Opened) -> None:
        await one.submit(job := one.job())
        for _ in range(FAILED_RUNS + 3):
            [lease] = await one.claim()
            await _fail(one, lease, "ValueError")
        for _ in range(2):
            [lease] = await one.claim()
            await one.settle([lease], Cause.RELEASED)
        shown = [(one.what, one.run, one.runs) for one in await _timeline(one, job.id) if one.what is not FAILED]
        assert shown == [
            (Happened.SUBMITTED, 0, 0),
            (BEGAN, 1, 0),
            (Happened.LEFT_OUT, 2, 3),
            *((BEGAN, run, 0) for run in range(5, FAILED_RUNS + 4)),
            (Happened.LEFT_OUT, FAILED_RUNS + 4, 1),
            (BEGAN, FAILED_RUNS + 5, 0),
            (BECAME, 0, 0),
        ]

    async def test_a_lost_holder_is_said(self, one: Opened, other: Opened, clock: FakeClock) -> None:
        at = clock.now()
        [lease] = await other.run(other.job())
        await other.kill()
        await clock.advance(SWEPT_S)
        await one.turn()
        assert (await _timeline(one, lease.job.id))[1:] == [
            Happening(at=at, what=BEGAN, state=State.RUNNING, run=1),
            Happening(at=clock.now(), what=Happened.CRASHED, run=1, error_type="WorkerLost"),
            Happening(at=clock.now(), what=BECAME, state=State.WAITING),
        ]

    async def test_when_somebody_asked_for_a_cancel_is_said_while_the_job_runs(self, one: Opened, clock: FakeClock) -> None:
        [lease] = await one.run(one.job())
        await clock.advance(2)
        asked_at = clock.now()
        assert await one.store.cancel(lease.job.id)
        await clock.advance(2)
        assert await one.store.cancel(lease.job.id), "asking again changes nothing"
        assert (await _timeline(one, lease.job.id))[-1] == Happening(at=asked_at, what=Happened.CANCEL_ASKED)
        await one.settle([lease], Cause.CANCELLED)
        assert (await _timeline(one, lease.job.id))[-1] == Happening(at=clock.now(), what=BECAME, state=State.CANCELLED)

    async def test_a_job_that_is_cancelled_while_it_waits_and_reopened_waits_again(self, one: Opened, clock: FakeClock) -> None:
        await one.submit(job := one.job(due_at=clock.now() + 100))
        await clock.advance(1)
        assert await one.store.cancel(job.id)
        assert (await _timeline(one, job.id))[1:] == [Happening(at=clock.now(), what=BECAME, state=State.CANCELLED)]
        await clock.advance(1)
        assert await one.store.reopen(job.id)
        assert (await _timeline(one, job.id))[1:] == [Happening(at=clock.now(), what=BECAME, state=State.WAITING)]

    async def test_of_a_job_that_returned_each_error_is_cut(self, one: Opened) -> None:
        error = "é" * FINISHED_ERROR + "the end"
        assert await self._errors_kept(one, error, jobs=1) == [error[-FINISHED_ERROR:]]

    async def test_of_too_many_jobs_that_return_together_the_errors_are_not_kept_but_that_they_failed(self, one: Opened) -> None:
        jobs = FINISHED_ERRORS // FINISHED_ERROR + 1
        assert await self._errors_kept(one, "x" * FINISHED_ERROR, jobs=jobs) == [""] * jobs

    async def test_what_returns_in_one_turn_returns_together_whatever_it_is(self, one: Opened) -> None:
        """With and without a result, of three queues, in their second and their third run: each part alone would be few enough."""
        runs_of = {"line": 2, "second": 2, "third": 3}
        part = FINISHED_ERRORS // FINISHED_ERROR // len(runs_of) + 1
        leases = {queue: await self._again(one, queue, part, last) for queue, last in runs_of.items()}
        results = [Settlement(lease.job.id, lease.run, Cause.RETURNED, result=b"1", value=1) for lease in leases["line"]]
        returned = {runs_of[queue]: [lease.job.id for lease in leases[queue]] for queue in ("second", "third")}
        await one.store.turn(one.number + 1, new=(), settlements=results, want={}, returned=returned)
        for its in leases.values():
            [run, *_] = (await one.find(its[0].job.id)).failed_runs
            assert (run.error_type, run.error) == ("ValueError", "")

    async def _again(self, one: Opened, queue: str, jobs: int, last: int) -> Sequence[Lease]:
        """Jobs of a queue in their run of that number; the first failed with a long error."""
        await one.submit(*(one.job(queue=queue) for _ in range(jobs)))
        for run in range(1, last):
            error = "x" * (FINISHED_ERROR if run == 1 else 0)
            leases = await one.claim(queue=queue)
            retried = [Settlement(lease.job.id, run, Cause.RETRIED, error=error, error_type="ValueError") for lease in leases]
            await one.turn(settlements=retried)
        return await one.claim(queue=queue)

    async def _errors_kept(self, one: Opened, error: str, *, jobs: int) -> Sequence[str]:
        await one.submit(*one.jobs(jobs))
        leases = await one.claim(jobs)
        retried = [Settlement(lease.job.id, 1, Cause.RETRIED, error=error, error_type="ValueError") for lease in leases]
        await one.turn(settlements=retried)
        await one.settle(await one.claim(jobs), Cause.RETURNED)
        records = [(await one.store.find([lease.job.id]))[lease.job.id] for lease in leases]
        assert {(record.state, record.failures, record.run) for record in records} == {(State.DONE, 1, 2)}
        return [run.error for record in records for run in record.failed_runs]


async def _timeline(holder: Opened, id: int) -> Sequence[Happening]:
    record = await holder.find(id)
    assert msgspec.json.decode(msgspec.json.encode(timeline_of(record)), type=list[Happening]) == timeline_of(record)
    return timeline_of(record)


async def _fail(
    holder: Opened, lease: Lease, error_type: str, *, cause: Cause = Cause.RETRIED, after_s: float = 0.0, reason: str = ""
) -> None:
    its = Settlement(lease.job.id, lease.run, cause, after_s=after_s, reason=reason, error="it broke", error_type=error_type)
    await holder.turn(settlements=[its])
