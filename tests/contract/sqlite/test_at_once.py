"""An ordinary turn is one statement, and what another process did meanwhile makes it an unusual one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import apsw
import pytest

from cabrank.errors import StoreUnavailable
from cabrank.job import Lease, Settlement
from cabrank.policy import Limit
from cabrank.settings import Settings
from cabrank.states import Cause, State
from cabrank.stores.contract import Terms, Turn, Verdict
from cabrank.testing.store_contract import Opened, submission
from cabrank.testing.store_contract.opened import PLENTY, ids
from tests.contract.sqlite.files import TERMS, Files


async def traced(one: Opened, turn: Callable[[], Awaitable[Turn]]) -> tuple[list[str], Turn]:
    """The statements of a turn, by their first words, and the turn."""
    store = one.store
    connection = store._ledger._connection  # type: ignore[attr-defined]
    statements: list[str] = []
    connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: statements.append(event["sql"]) if not event["trigger"] else None)
    try:
        taken = await turn()
    finally:
        connection.trace_v2(0, None)
    return [statement.split("(")[0].strip() for statement in statements], taken


async def next_turn(one: Opened, leases: list[Lease], jobs: int = 2) -> Turn:
    """These end, and others begin."""
    ended = [Settlement(lease.job.id, lease.run, Cause.RETURNED) for lease in leases]
    return await one.turn(submission(*one.jobs(jobs)), settlements=ended, want=PLENTY)


async def test_jobs_end_and_others_begin_in_one_statement(one: Opened) -> None:
    leases = await one.run(*one.jobs(3))
    statements, turn = await traced(one, lambda: next_turn(one, leases))
    assert statements == ["insert into at_once values"]
    assert [lease.run for lease in turn.leases] == [1, 1]
    assert [await one.state(id) for id in (*ids(leases), *ids(turn.leases))] == [State.DONE] * 3 + [State.RUNNING] * 2
    statements, _ = await traced(one, lambda: one.settle(turn.leases, Cause.RETURNED))
    assert statements == ["insert into at_once values"]
    assert [await one.state(id) for id in ids(turn.leases)] == [State.DONE] * 2
    assert (await one.tally()).running == 0


async def test_a_turn_with_a_job_that_is_due_later_says_when(one: Opened) -> None:
    leases = await one.run(*one.jobs(2))
    later = one.job(due_at=one.store._clock.now() + 60)  # type: ignore[attr-defined]
    await one.submit(later)
    statements, turn = await traced(one, lambda: next_turn(one, leases))
    assert len(statements) == 1
    assert turn.next_due_s is not None
    assert 50 < turn.next_due_s <= 60


async def test_jobs_that_wait_come_in_one_statement_and_others_are_told(one: Opened, other: Opened) -> None:
    await one.submit(one.job())
    before = await one.tally()
    jobs = [one.job(payload=payload) for payload in (b"[22]", b"[333]", b"")]
    statements, turn = await traced(one, lambda: one.turn(*map(submission, jobs)))
    assert statements == ["insert into at_once values"]
    assert [admission.verdict for admission in turn.admitted] == [Verdict.STORED] * 3
    assert not turn.leases
    assert one.store._ledger.news.work  # type: ignore[attr-defined]
    after = await one.tally()
    assert (after.waiting - before.waiting, after.waiting_bytes - before.waiting_bytes) == (3, 9)
    statements, _ = await traced(one, lambda: one.turn(submission(one.job())))
    assert len(statements) == 1
    record = await one.find(jobs[0].id)
    assert (record.state, record.run, record.failures, record.priority) == (State.WAITING, 0, 0, jobs[0].priority)
    assert record.created_at == record.due_at == record.changed_at > 0
    leases = await other.claim()
    assert [(lease.job.payload, lease.run) for lease in leases][1:4] == [(job.payload, 1) for job in jobs]


async def test_jobs_that_wait_find_room_in_one_statement_or_none_at_all(files: Files, one: Opened) -> None:
    small = Opened(files.another(), files)
    await small.open(Terms(handlers=frozenset({"work"}), settings=Settings(max_queue=3), max_crashes={}))
    verdicts = [(await small.turn(submission(small.job()))).admitted[0].verdict for _ in range(5)]
    assert verdicts == [Verdict.STORED] * 3 + [Verdict.FULL] * 2
    assert (await one.tally()).waiting == 3
    await small.close()


async def _submits(other: Opened, _: list[Lease]) -> None:
    await other.submit(other.job())


async def _pauses(other: Opened, _: list[Lease]) -> None:
    await other.store.pause("line")


async def _cancels(other: Opened, leases: list[Lease]) -> None:
    await other.store.cancel(leases[0].job.id)


async def _has_one_due_later(other: Opened, _: list[Lease]) -> None:
    await other.submit(other.job(due_at=other.store._clock.now() + 60))  # type: ignore[attr-defined]


async def _takes_it_for_dead(other: Opened, _: list[Lease]) -> None:
    with other._stores.outside() as connection:  # type: ignore[attr-defined]
        connection.execute("update holder set boot = 'an earlier one' where id = 1")
    third = Opened(other._stores.another(), other._stores)
    await third.open(TERMS)
    await third.close()


async def _has_a_limit(other: Opened, _: list[Lease]) -> None:
    third = Opened(other._stores.another(), other._stores)
    await third.open(Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={}, limits={"work": Limit(running=1)}))
    await third.submit(third.job(limit_key=""))
    await third.close()


@pytest.mark.parametrize("does", [_submits, _pauses, _cancels, _has_one_due_later, _takes_it_for_dead, _has_a_limit])
async def test_what_another_process_did_meanwhile_is_seen(
    one: Opened, other: Opened, does: Callable[[Opened, list[Lease]], Awaitable[None]]
) -> None:
    leases = await one.run(*one.jobs(2))
    turn = await next_turn(one, leases)
    await does(other, list(turn.leases))
    statements, after = await traced(one, lambda: next_turn(one, turn.leases))
    assert len(statements) > 1
    if does is _submits:
        assert len(after.leases) == 3, "the one that came before is claimed too"
    elif does is _pauses:
        assert list(after.paused) == ["line"]
        assert not after.leases
    elif does is _cancels:
        assert not after.lost
    elif does is _has_one_due_later:
        assert after.next_due_s is not None
    elif does is _takes_it_for_dead:
        assert sorted(after.lost) == [(lease.job.id, 1) for lease in turn.leases]
    else:
        assert not after.lost


async def test_that_another_process_cancelled_a_job_beside_is_told(one: Opened, other: Opened) -> None:
    await one.submit(one.job())
    [claimed] = await one.claim()
    leases = await one.run(*one.jobs(2))
    turn = await next_turn(one, leases)
    await other.store.cancel(claimed.job.id)
    assert list((await next_turn(one, turn.leases)).cancels) == [(claimed.job.id, 1)]


async def test_that_a_job_is_due_at_another_moment_by_now_is_seen(files: Files, one: Opened) -> None:
    await one.submit(one.job(due_at=one.store._clock.now() + 60))  # type: ignore[attr-defined]
    leases = await one.run(*one.jobs(2))
    with files.outside() as connection:
        connection.execute("update job set due_at = due_at - 30 where phase = 2")
    turn = await next_turn(one, leases)
    assert turn.next_due_s is not None
    assert turn.next_due_s <= 30


async def test_jobs_begin_under_a_new_number_when_their_process_was_taken_for_dead(files: Files, one: Opened, other: Opened) -> None:
    await one.settle(await one.run(*one.jobs(2)), Cause.RETURNED)
    await _takes_it_for_dead(other, [])
    await one.run(*one.jobs(2))
    with files.outside() as connection:
        assert not connection.execute("select holder from block where holder not in (select id from holder)").fetchall()


async def test_runs_whose_block_is_gone_are_lost(files: Files, one: Opened) -> None:
    leases = await one.run(*one.jobs(2))
    with files.outside() as connection:
        connection.execute("delete from block")
    assert sorted((await next_turn(one, leases)).lost) == [(lease.job.id, 1) for lease in leases]


async def test_a_turn_waits_for_another_program_that_writes_and_says_so(files: Files, one: Opened) -> None:
    leases = await one.run(*one.jobs(2))
    one.store._ledger._connection.set_busy_timeout(1)  # type: ignore[attr-defined]
    with files.outside() as connection:
        connection.execute("begin immediate")
        with pytest.raises(StoreUnavailable, match="locked"):
            await next_turn(one, leases)
    turn = await next_turn(one, leases)
    assert not turn.lost
    assert len(turn.leases) == 2


async def test_a_turn_that_is_sent_again_is_not_done_again(one: Opened) -> None:
    leases = await one.run(*one.jobs(2))
    turn = await next_turn(one, leases)
    one.number -= 1
    assert await one.turn(want=PLENTY) is turn
