"""What people and servers ask of a ledger in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from heapq import nsmallest

import msgspec

from cabrank.block import Block
from cabrank.job import Job
from cabrank.policy import Limit
from cabrank.states import TRANSITIONS, Cause, State
from cabrank.stores.contract import JobFilter, JobRecord, Page, Standing, Tally
from cabrank.stores.memory.ledger import NEW, Ledger, Row, Run, Shelved


def find(ledger: Ledger, ids: Collection[int]) -> Mapping[int, JobRecord]:
    """See `Inspector.find`."""
    found = ((id, _record(ledger, id)) for id in ids)
    return {id: record for id, record in found if record is not None}


def browse(ledger: Ledger, which: JobFilter, after: int, limit: int) -> Page:
    """See `Inspector.browse`."""
    chosen = nsmallest(limit + 1, (id for id in _ids(ledger, which) if id > after))
    records = (_record(ledger, id) for id in chosen[:limit])
    return Page(
        records=[msgspec.structs.replace(record, result=None, value=None) for record in records if record is not None],
        after=chosen[limit - 1] if len(chosen) > limit else None,
    )


def _ids(ledger: Ledger, which: JobFilter) -> Iterable[int]:
    """The ids that a filter lets through, in no order."""
    if which.state is State.DONE:
        return () if which.queue or which.handler or ledger.kept is None else ledger.kept.ids(ledger.clock.now())
    return (id for id, row in ledger.rows() if _matches(row, which))


def _matches(row: Row, which: JobFilter) -> bool:
    job = _job(row)
    return (
        (not which.queue or job.queue == which.queue)
        and (not which.handler or job.handler == which.handler)
        and (which.state is None or _state(row) is which.state)
    )


def _job(row: Row) -> Job:
    return row if isinstance(row, Job) else row.lease.job if isinstance(row, Run) else row.job


def _state(row: Row) -> State:
    return State.WAITING if isinstance(row, Job) else State.RUNNING if isinstance(row, Run) else row.state


def tally(ledger: Ledger) -> Mapping[str, Tally]:
    """See `Inspector.tally`. Cost: grows with the jobs that run or wait for a person, not with the backlog."""
    counts: dict[str, dict[str, int]] = {
        queue: {"waiting": line.count, "waiting_bytes": line.size, "running": 0, "dead": 0, "held": 0}
        for queue, line in ledger.lines.items()
    }
    for row in ledger.shelved.values():
        if row.state.value in counts[row.job.queue]:
            counts[row.job.queue][row.state.value] += 1
    for holder in ledger.holders.values():
        for one in (one for held in holder.runs.values() for one in held.values()):
            counts[one.queue if isinstance(one, Block) else one.job.queue]["running"] += 1
    return {queue: Tally(**counted, paused=queue in ledger.paused) for queue, counted in counts.items()}


def standing(ledger: Ledger, id: int, limits: Mapping[str, Limit]) -> Standing | None:
    """See `Inspector.standing`."""
    job = ledger.waiting.get(id)
    line = None if job is None else ledger.limited.of(job)
    limit = None if line is None else limits.get(line.handler)
    if line is None or limit is None:
        return None
    running, now = len(line.running), ledger.clock.monotonic()
    next_s = max(0.0, limit.next_at(full_at=line.full_at, now=now) - now)
    return Standing(handler=line.handler, key=line.key, limit=limit, running=running, next_s=next_s)


def cancel(ledger: Ledger, id: int) -> bool:
    """See `Inspector.cancel`."""
    shelved = ledger.shelved.get(id)
    if shelved is not None and (shelved.state, Cause.CANCELLED) in TRANSITIONS:
        ledger.shelved[id] = Shelved(shelved.job, State.CANCELLED, ledger.clock.now())
    elif shelved is None and ledger.running(id) is not None:
        ledger.cancelling.add(id)
    elif not ledger.cancel_waiting(id):
        return False
    ledger.tell(0)
    return True


def reopen(ledger: Ledger, id: int) -> bool:
    """See `Inspector.reopen`."""
    row = ledger.shelved.get(id)
    if row is None:
        return False
    ledger.unshelve(row)
    ledger.tell(0)
    return True


def purge(ledger: Ledger, ids: Collection[int]) -> int:
    """See `Inspector.purge`."""
    shelved = [id for id in ids if id in ledger.shelved]
    for id in shelved:
        del ledger.shelved[id]
        ledger.history.pop(id, None)
    return len(shelved)


def pause(ledger: Ledger, queue: str) -> None:
    """See `Inspector.pause`."""
    ledger.line(queue)  # so that it is tallied
    ledger.paused.add(queue)
    ledger.tell(0)


def resume(ledger: Ledger, queue: str) -> None:
    """See `Inspector.resume`."""
    ledger.paused.discard(queue)
    ledger.tell(0)


def _record(ledger: Ledger, id: int) -> JobRecord | None:
    row, past = ledger.find(id), ledger.history.get(id, NEW)
    if row is None:
        return _kept(ledger, id)
    if isinstance(row, Run):
        lease = row.lease
        described = _describe(lease.job, State.RUNNING, run=lease.run, failures=lease.failures, crashes=lease.crashes)
        return msgspec.structs.replace(described, cancelling=True) if id in ledger.cancelling else described
    job, state, at = (row, State.WAITING, 0.0) if isinstance(row, Job) else (row.job, row.state, row.at)
    return _describe(
        job, state, run=past.run, failures=past.failures, crashes=past.crashes, reason=past.reason, error=past.error, changed_at=at
    )


def _describe(
    job: Job, state: State, *, run: int, failures: int, crashes: int, reason: str = "", error: str = "", changed_at: float = 0.0
) -> JobRecord:
    return JobRecord(
        id=job.id,
        handler=job.handler,
        queue=job.queue,
        state=state,
        run=run,
        failures=failures,
        crashes=crashes,
        priority=job.priority,
        due_at=job.due_at,
        changed_at=changed_at,
        tags=job.tags,
        reason=reason,
        error=error,
    )


def _kept(ledger: Ledger, id: int) -> JobRecord | None:
    found = None if ledger.kept is None else ledger.kept.find(id, ledger.clock.now())
    if found is None:
        return None
    at, settlement = found
    run, result, value = (0, None, None) if settlement is None else (settlement.run, settlement.result, settlement.value)
    return JobRecord(id=id, handler="", queue="", state=State.DONE, run=run, changed_at=at, result=result, value=value)
