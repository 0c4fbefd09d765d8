# ruff: noqa: PLR2004, S101 -- tests are named as facts, their numbers are examples, and they assert
"""Jobs that were there when a process died: they start at once or not at all, and the most suspicious run alone."""

from __future__ import annotations

from collections.abc import Sequence

from cabrank.job import Lease
from cabrank.settings import MIB
from cabrank.states import Cause, State
from cabrank.stores.contract import SUSPECT_CRASHES, Want
from cabrank.testing.store_contract.opened import PLENTY, QUEUE, Open, Opened, OpenedContract, ids, needs_sharing, submission

BUSY = Want(jobs=10, bytes=MIB, idle=10, alone=False)
ALONE = Want(jobs=10, bytes=MIB, idle=10, alone=True)
ISOLATED = Want(jobs=10, bytes=MIB, idle=10, isolated=True)


async def crash(open_holder: Open, jobs: list[int], times: int) -> None:
    """Let processes die while they run all of these jobs."""
    for crashed in range(times):
        victim = await open_holder(max_crashes=9)
        leases = await victim.claim(1 if crashed >= SUSPECT_CRASHES else len(jobs), alone=crashed >= SUSPECT_CRASHES)
        assert sorted(ids(leases)) == jobs
        await victim.kill()


class SuspectContract(OpenedContract):
    """What `Want` and `Turn.suspect` promise."""

    async def test_jobs_that_crashed_come_only_to_idle_workers(self, one: Opened, open_holder: Open) -> None:
        needs_sharing(one)
        crashed = one.jobs(3)
        await one.submit(*crashed)
        await crash(open_holder, [job.id for job in crashed], 1)
        survivor = await open_holder(max_crashes=9)
        assert (await survivor.turn(want=Want(jobs=10, bytes=MIB, idle=0))).leases == []
        turn = await survivor.turn(want=Want(jobs=10, bytes=MIB, idle=2))
        assert ids(turn.leases) == [job.id for job in crashed[:2]]
        assert {(lease.run, lease.crashes) for lease in turn.leases} == {(2, 1)}
        assert not turn.suspect

    async def test_a_suspect_waits_until_its_holder_runs_nothing_and_comes_alone(self, one: Opened, open_holder: Open) -> None:
        needs_sharing(one)
        suspect, behind, new = one.jobs(3)
        await one.submit(suspect)
        await crash(open_holder, [suspect.id], SUSPECT_CRASHES)
        survivor = await open_holder(max_crashes=9)
        await survivor.submit(behind)
        turn = await survivor.turn(want=BUSY)
        assert (list(turn.leases), turn.suspect) == ([], True)
        turn = await survivor.turn(submission(new), want={QUEUE: ALONE, "else": ALONE})
        assert (ids(turn.leases), turn.leases[0].crashes) == ([suspect.id], SUSPECT_CRASHES)
        turn = await survivor.turn(want=BUSY)
        assert (ids(turn.leases), turn.suspect) == ([behind.id, new.id], False)

    async def test_of_two_suspects_one_comes(self, one: Opened, open_holder: Open) -> None:
        needs_sharing(one)
        suspects = one.jobs(2)
        await one.submit(*suspects)
        await crash(open_holder, [job.id for job in suspects], SUSPECT_CRASHES)
        survivor = await open_holder(max_crashes=9)
        assert ids((await survivor.turn(want=ALONE)).leases) == [suspects[0].id]
        turn = await survivor.turn(want=BUSY)
        assert (list(turn.leases), turn.suspect) == ([], True)

    async def test_what_stands_before_a_suspect_is_not_held_up(self, one: Opened, open_holder: Open) -> None:
        needs_sharing(one)
        suspect, urgent = one.job(), one.job(priority=0)
        await one.submit(suspect)
        await crash(open_holder, [suspect.id], SUSPECT_CRASHES)
        survivor = await open_holder(max_crashes=9)
        await survivor.submit(urgent)
        turn = await survivor.turn(want=ALONE)
        assert (ids(turn.leases), turn.suspect) == ([urgent.id], True)

    async def test_a_suspect_in_one_queue_keeps_the_others_empty_while_it_is_leased(self, one: Opened, open_holder: Open) -> None:
        needs_sharing(one)
        suspect, ordinary = one.job(), one.job(queue="else")
        await one.submit(suspect)
        await crash(open_holder, [suspect.id], SUSPECT_CRASHES)
        survivor = await open_holder(max_crashes=9)
        await survivor.submit(ordinary)
        turn = await survivor.turn(want={"else": ALONE, QUEUE: ALONE})
        assert ids(turn.leases) == [suspect.id]

    async def test_where_every_worker_is_a_process_a_suspect_comes_as_any_other(self, one: Opened) -> None:
        suspect, new = one.jobs(2)
        leases: Sequence[Lease] = await one.run(suspect)
        for _ in range(SUSPECT_CRASHES):
            await one.settle(leases, Cause.CRASHED)
            leases = (await one.turn(want=ISOLATED)).leases
        await one.settle(leases, Cause.RELEASED)
        await one.submit(new)
        turn = await one.turn(want=ISOLATED)
        assert {(lease.job.id, lease.crashes) for lease in turn.leases} == {(suspect.id, SUSPECT_CRASHES), (new.id, 0)}
        assert not turn.suspect

    async def test_a_job_that_crashed_too_often_is_dead(self, one: Opened, open_holder: Open) -> None:
        needs_sharing(one)
        job = one.job()
        await one.submit(job)
        for alone in (False, False, True):
            victim = await open_holder(max_crashes=3)
            assert ids(await victim.claim(1, alone=alone)) == [job.id]
            await victim.kill()
        survivor = await open_holder(max_crashes=3)
        turn = await survivor.turn(want=ALONE)
        assert (list(turn.leases), turn.suspect) == ([], False)
        record = await survivor.find(job.id)
        assert (record.state, record.reason, record.crashes, record.run) == (State.DEAD, "worker_lost", 3, 3)
        assert "3 times" in record.error
        tally = await survivor.tally()
        assert (tally.waiting, tally.waiting_bytes, tally.running, tally.dead) == (0, 0, 0, 1)

    async def test_a_handler_may_crash_as_often_as_it_says(self, one: Opened, open_holder: Open) -> None:
        needs_sharing(one)
        frail, other = one.job(handler="frail"), one.job()
        await one.submit(frail, other)
        victim = await open_holder(handlers=["frail", "work"], crashes={"frail": 1})
        assert len(await victim.claim()) == 2
        await victim.kill()
        survivor = await open_holder(handlers=["frail", "work"], crashes={"frail": 1})
        await survivor.turn()
        assert await survivor.state(frail.id) is State.DEAD
        assert ids((await survivor.turn(want=PLENTY)).leases) == [other.id]
