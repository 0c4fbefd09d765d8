"""Jobs that one turn starts together are one row of the file, until something is to be said of one of them alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from cabrank.job import Lease, Progress, Settlement
from cabrank.settings import Settings
from cabrank.states import Cause, State
from cabrank.stores.contract import JobFilter
from cabrank.stores.sqlite import moving
from cabrank.stores.sqlite.blocks import ROWS_BEHIND_A_PARTED
from cabrank.testing.store_contract import Opened
from tests.contract.sqlite.files import TERMS, Files

ROWS = """
select 'block', count(*) from block union all select 'job', count(*) from job
union all select 'done_block', count(*) from done_block union all select 'done', count(*) from done
"""
RUNNING = JobFilter(state=State.RUNNING)


def rows(files: Files) -> dict[str, int]:
    """How many rows there are of each kind that a job may be in."""
    with files.outside() as connection:
        counted: list[Any] = connection.execute(ROWS).fetchall()
        return dict(counted)


def returned(leases: Sequence[Lease]) -> list[Settlement]:
    return [Settlement(lease.job.id, lease.run, Cause.RETURNED) for lease in leases]


async def test_jobs_that_start_and_end_together_are_one_row_each_time(files: Files, one: Opened) -> None:
    leases = await one.run(*one.jobs(5))
    assert rows(files) == {"block": 1, "job": 0, "done_block": 0, "done": 0}
    assert (await one.tally()).running == 5
    last = Settlement(leases[-1].job.id, 1, Cause.RETURNED, result=b'"five"')
    turn = await one.turn(settlements=[*returned(leases[:-1]), last])
    assert not turn.lost
    assert rows(files) == {"block": 0, "job": 0, "done_block": 1, "done": 0}
    assert (await one.tally()).running == 0
    found = await one.store.find([lease.job.id for lease in leases])
    assert [(found[lease.job.id].state, found[lease.job.id].result) for lease in leases] == [
        *[(State.DONE, None)] * 4,
        (State.DONE, b'"five"'),
    ]


async def test_when_one_ends_before_the_others_each_is_a_row(files: Files, one: Opened) -> None:
    first, second, third = await one.run(*one.jobs(3, payload=b"[1]"))
    assert not (await one.turn(settlements=returned([second]))).lost
    assert rows(files) == {"block": 0, "job": 2, "done_block": 0, "done": 1}
    assert not (await one.settle([first], Cause.RETRIED)).lost
    assert (await one.find(first.job.id)).failures == 1
    assert not (await one.turn(settlements=returned([third]))).lost
    assert [lease.job.payload for lease in await one.claim()] == [b"[1]"]


async def test_behind_jobs_that_ended_apart_the_next_are_stored_as_rows_for_a_while(files: Files, one: Opened) -> None:
    first, second = await one.run(*one.jobs(2))
    await one.turn(settlements=returned([first]))
    await one.turn(settlements=returned([second]))
    kinds = []
    for _ in range(ROWS_BEHIND_A_PARTED + 2):
        leases = await one.run(one.job())
        kinds.append(rows(files)["block"])
        await one.turn(settlements=returned(leases))
    assert kinds[:2] == [0, 0]
    assert kinds[-2:] == [1, 1]


async def test_a_job_that_another_process_cancels_leaves_its_block_and_its_holder_hears(files: Files, one: Opened, other: Opened) -> None:
    first, second, third = await one.run(*one.jobs(3))
    assert await other.store.cancel(second.job.id)
    assert rows(files)["block"] == 0
    turn = await one.turn(settlements=returned([first, third]))
    assert list(turn.cancels) == [(second.job.id, 1)]
    assert not turn.lost
    assert (await one.find(second.job.id)).cancel_asked_at is not None


async def test_a_block_that_another_process_parted_ends_as_rows(one: Opened, other: Opened) -> None:
    """What its holder remembers is out of date, and the file decides."""
    leases = await one.run(*one.jobs(3))
    assert await other.store.cancel(leases[1].job.id)
    assert not (await one.turn(settlements=returned(leases))).lost
    assert [await one.state(lease.job.id) for lease in leases] == [State.DONE] * 3


async def test_the_jobs_of_a_dead_process_come_back_out_of_their_block(files: Files, one: Opened, other: Opened) -> None:
    jobs = other.jobs(3, payload=b"[1, 2]")
    await other.run(*jobs)
    await other.kill()
    third = Opened(files.another(), files)
    await third.open(TERMS)
    leases = await third.claim()
    assert [(lease.job.id, lease.run, lease.crashes, lease.job.payload) for lease in leases] == [(job.id, 2, 1, b"[1, 2]") for job in jobs]
    await third.close()


async def test_a_process_that_was_taken_for_dead_loses_its_block(files: Files, one: Opened, other: Opened) -> None:
    leases = await other.run(*other.jobs(2))
    with files.outside() as connection:
        connection.execute("update holder set boot = 'an earlier one' where id = 2")
    third = Opened(files.another(), files)
    await third.open(TERMS)
    turn = await other.turn(settlements=returned(leases))
    assert sorted(turn.lost) == [(lease.job.id, 1) for lease in leases]
    await third.close()


async def test_a_holder_that_closes_gives_its_block_back(one: Opened, other: Opened) -> None:
    jobs = other.jobs(2)
    await other.run(*jobs)
    await other.close()
    assert [(lease.job.id, lease.crashes) for lease in await one.claim()] == [(job.id, 0) for job in jobs]


async def test_a_job_that_tells_how_far_it_is_leaves_its_block(files: Files, one: Opened) -> None:
    first, _ = await one.run(*one.jobs(2))
    await one.tell(Progress(id=first.job.id, run=1, at=1.0, fraction=0.5, note="half"))
    assert rows(files)["job"] == 2
    progress = (await one.find(first.job.id)).progress
    assert progress is not None
    assert progress.note == "half"


async def test_people_see_the_jobs_of_blocks_among_the_others(files: Files, one: Opened) -> None:
    before = one.job(queue="later")
    await one.submit(before)
    leases = await one.run(*one.jobs(4))
    after = one.job(queue="later")
    await one.submit(after)
    assert rows(files) == {"block": 1, "job": 2, "done_block": 0, "done": 0}
    ids = [before.id, *(lease.job.id for lease in leases), after.id]
    assert [record.id for record in (await one.store.browse(JobFilter())).records] == ids
    page = await one.store.browse(RUNNING, limit=3)
    assert [record.id for record in page.records] == ids[1:4]
    assert [record.id for record in (await one.store.browse(RUNNING, after=page.after or 0)).records] == ids[4:5]
    assert not (await one.store.browse(JobFilter(state=State.RUNNING, queue="later"))).records
    record = await one.find(ids[1])
    assert (record.state, record.run, record.handler, record.queue) == (State.RUNNING, 1, "work", "line")
    assert record.created_at == record.started_at == record.changed_at > 0
    await one.turn(settlements=returned(leases))
    assert [record.id for record in (await one.store.browse(JobFilter(state=State.DONE))).records] == ids[1:5]


async def test_what_is_kept_of_blocks_and_of_rows_is_bounded_together_the_oldest_goes_first(files: Files, one: Opened) -> None:
    first = await one.run(*one.jobs(3))
    await one.turn(settlements=returned(first))
    second = await one.run(*one.jobs(2))
    for lease in second:
        await one.turn(settlements=returned([lease]))
    assert rows(files) == {"block": 0, "job": 0, "done_block": 1, "done": 2}
    another = Opened(files.another(), files)
    await another.open(msgspec.structs.replace(TERMS, settings=Settings(keep_done_jobs=4)))
    assert rows(files) == {"block": 0, "job": 0, "done_block": 0, "done": 2}
    await another.close()
    another = Opened(files.another(), files)
    await another.open(msgspec.structs.replace(TERMS, settings=Settings(keep_done_jobs=1)))
    assert rows(files) == {"block": 0, "job": 0, "done_block": 0, "done": 1}
    assert [await one.state(lease.job.id) for lease in second] == [None, State.DONE]
    await another.close()


async def test_an_export_has_the_jobs_of_blocks_with_their_payloads(files: Files, one: Opened) -> None:
    waiting = one.job(queue="later")
    await one.submit(waiting)
    running = one.jobs(2, payload=b'["a"]')
    await one.run(*running)
    lines: list[Any] = []
    assert moving.export(files.path, lambda line: lines.append(json.loads(line)), lambda *_: None) == 3
    exported = [(line["job"], line["state"], line["payload"], line["rest"]["run"]) for line in lines if "job" in line]
    assert exported == [(waiting.id, "waiting", 1, 0), *((job.id, "waiting", ["a"], 1) for job in running)]
    moving.bring([json.dumps(line).encode() for line in lines], files.path.with_name("copy.db"), Random(1), lambda *_: None, now=0)
