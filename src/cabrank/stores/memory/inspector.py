"""What people and servers ask of a ledger in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cabrank.job import Job
from cabrank.states import TRANSITIONS, Cause, State
from cabrank.stores.contract import JobRecord, Tally
from cabrank.stores.memory.ledger import NEW, Ledger, Run, Shelved


def find(ledger: Ledger, ids: Collection[int]) -> Mapping[int, JobRecord]:
    """See `Inspector.find`."""
    found = ((id, _record(ledger, id)) for id in ids)
    return {id: record for id, record in found if record is not None}


def tally(ledger: Ledger) -> Mapping[str, Tally]:
    """See `Inspector.tally`. Cost: grows with the jobs that run or wait for a person, not with the backlog."""
    counts: dict[str, dict[str, int]] = {
        queue: {"waiting": line.count, "waiting_bytes": line.size, "running": 0, "dead": 0, "held": 0}
        for queue, line in ledger.lines.items()
    }
    for row in ledger.apart():
        queue = row.lease.job.queue if isinstance(row, Run) else row.job.queue
        state = State.RUNNING if isinstance(row, Run) else row.state
        if state.value in counts[queue]:
            counts[queue][state.value] += 1
    return {queue: Tally(**counted) for queue, counted in counts.items()}


def cancel(ledger: Ledger, id: int) -> bool:
    """See `Inspector.cancel`."""
    row = ledger.rows.get(id)
    if isinstance(row, Job):
        ledger.shelve_waiting(row, State.CANCELLED)
    elif isinstance(row, Run):
        ledger.cancelling.add(id)
    elif isinstance(row, Shelved) and (row.state, Cause.CANCELLED) in TRANSITIONS:
        ledger.rows[id] = Shelved(row.job, State.CANCELLED, ledger.clock.now())
    else:
        return False
    ledger.tell(0)
    return True


def reopen(ledger: Ledger, id: int) -> bool:
    """See `Inspector.reopen`."""
    row = ledger.rows.get(id)
    if not isinstance(row, Shelved):
        return False
    ledger.unshelve(row)
    ledger.tell(0)
    return True


def _record(ledger: Ledger, id: int) -> JobRecord | None:
    row, past = ledger.rows.get(id), ledger.history.get(id, NEW)
    if row is None:
        return _kept(ledger, id)
    if isinstance(row, Run):
        lease = row.lease
        return _describe(lease.job, State.RUNNING, run=lease.run, failures=lease.failures, crashes=lease.crashes)
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
