"""How a job stands in a ledger in memory, state by state, and what it has behind it."""

from __future__ import annotations

import msgspec

from cabrank.job import LOST, FailedRun, Job, Lease, Settlement, failures_kept
from cabrank.states import CRASHES, FAILURES, Cause, State
from cabrank.stores.contract import Terms


class Run(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A running job: its lease, who holds it, the moments when it was stored and leased, the runs of it that failed before."""

    lease: Lease
    holder: int
    created_at: float = 0.0
    started_at: float = 0.0
    failed: tuple[FailedRun, ...] = ()


class History(msgspec.Struct, frozen=True):
    """What a job that is not running has behind it. `error` is why it is where it is, `started_at` when its last run began."""

    run: int = 0
    failures: int = 0
    crashes: int = 0
    reason: str = ""
    error: str = ""
    failed: tuple[FailedRun, ...] = ()
    started_at: float = 0.0
    changed_at: float = 0.0

    @property
    def last_error(self) -> str:
        """Why it is where it is, else what its last failed run ended with."""
        return self.error or (self.failed[-1].error if self.failed else "")


class Shelved(msgspec.Struct, frozen=True):
    """A job that waits for a person: dead, cancelled, expired or held."""

    job: Job
    state: State
    at: float


Row = Job | Run | Shelved

NEW = History()


def ended(run: Run, settlement: Settlement, now: float) -> History:
    """What a job has behind it when a run of it is over and it is not done."""
    lease, failed, crash = run.lease, settlement.cause in FAILURES, settlement.cause in CRASHES
    runs = run.failed
    if failed or crash:
        runs = failures_kept((*runs, FailedRun(lease.run, now, settlement.error_type, settlement.error, run.started_at)))
    return History(
        lease.run,
        lease.failures + failed,
        lease.crashes + crash,
        settlement.reason,
        "" if failed or crash else settlement.error,
        runs,
        run.started_at,
        now,
    )


def crashed(run: Run, terms: Terms, *, cancelling: bool) -> Settlement:
    """What becomes of a run whose process died, as who found that has it in its `terms`."""
    lease = run.lease
    most = terms.max_crashes.get(lease.job.handler, terms.settings.max_crashes)
    cause, reason, error = Cause.CRASHED, "", "the process that ran it died"
    if not cancelling and lease.crashes + 1 >= most:
        cause, reason, error = Cause.WORKER_LOST, "worker_lost", f"its process died {lease.crashes + 1} times under it"
    return Settlement(lease.job.id, lease.run, cause, reason=reason, error=error, error_type=LOST)
