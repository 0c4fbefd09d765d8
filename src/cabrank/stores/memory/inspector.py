"""What people and servers ask of a ledger in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from heapq import nsmallest
from typing import Any

import msgspec

from cabrank.block import Block
from cabrank.errors import UniqueTaken
from cabrank.job import Job
from cabrank.policy import Limit
from cabrank.states import TRANSITIONS, Cause, State
from cabrank.stores.contract import JobFilter, JobRecord, Page, Reopening, Standing, Tally
from cabrank.stores.memory.ledger import Ledger
from cabrank.stores.memory.rows import NEW, Row, Run, Shelved

LEFT_OUT: Mapping[str, Any] = {"failed_runs": (), "progress": None, "result": None, "value": None}  # of a page


def find(ledger: Ledger, ids: Collection[int]) -> Mapping[int, JobRecord]:
    """See `Inspector.find`."""
    found = ((id, _record(ledger, id)) for id in ids)
    return {id: record for id, record in found if record is not None}


def browse(ledger: Ledger, which: JobFilter, after: int, limit: int) -> Page:
    """See `Inspector.browse`."""
    chosen = nsmallest(limit + 1, (id for id in _ids(ledger, which) if id > after))
    records = (_record(ledger, id) for id in chosen[:limit])
    return Page(
        records=[msgspec.structs.replace(record, **LEFT_OUT) for record in records if record is not None],
        after=chosen[limit - 1] if len(chosen) > limit else None,
    )


def _ids(ledger: Ledger, which: JobFilter) -> Iterable[int]:
    """The ids that a filter lets through, in no order."""
    if which.state is State.DONE:
        return () if ledger.kept is None else ledger.kept.ids(ledger.clock.now(), which.queue, which.handler)
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
        for _, one in (one for held in holder.runs.values() for one in held.items()):
            counts[one.queue if isinstance(one, Block) else one.lease.job.queue]["running"] += 1
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
        ledger.cancelling.setdefault(id, ledger.clock.now())
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
        ledger.forget(id)
    return len(shelved)


def reopen_all(ledger: Ledger, which: JobFilter, after: int, limit: int) -> Reopening:
    """See `Inspector.reopen_all`."""
    page = browse(ledger, which, after, limit)
    reopened, taken = 0, list[int]()
    for record in page.records:
        try:
            reopened += reopen(ledger, record.id)
        except UniqueTaken:
            taken.append(record.id)
    return Reopening(reopened=reopened, taken=taken, after=page.after)


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
        return None if ledger.kept is None else ledger.kept.find(id, ledger.clock.now())
    if isinstance(row, Run):
        return _running(ledger, row)
    job, state, at = (row, State.WAITING, past.changed_at) if isinstance(row, Job) else (row.job, row.state, row.at)
    created_at = ledger.created_at(id)
    return JobRecord(
        id=job.id,
        handler=job.handler,
        queue=job.queue,
        state=state,
        run=past.run,
        failures=past.failures,
        crashes=past.crashes,
        priority=job.priority,
        due_at=job.due_at,
        created_at=created_at,
        started_at=past.started_at,
        changed_at=max(created_at, at),
        tags=job.tags,
        reason=past.reason,
        error=past.last_error,
        failed_runs=past.failed,
    )


def _running(ledger: Ledger, run: Run) -> JobRecord:
    lease, job = run.lease, run.lease.job
    return JobRecord(
        id=job.id,
        handler=job.handler,
        queue=job.queue,
        state=State.RUNNING,
        run=lease.run,
        failures=lease.failures,
        crashes=lease.crashes,
        priority=job.priority,
        due_at=job.due_at,
        created_at=run.created_at,
        started_at=run.started_at,
        changed_at=run.started_at,
        tags=job.tags,
        error=run.failed[-1].error if run.failed else "",
        failed_runs=run.failed,
        progress=ledger.progress.get(job.id),
        cancel_asked_at=ledger.cancelling.get(job.id),
    )
