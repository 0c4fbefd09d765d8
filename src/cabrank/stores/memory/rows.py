"""How a job stands in a ledger in memory, state by state, and what it has behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from cabrank.block import Block
from cabrank.job import FailedRun, Job, Lease
from cabrank.states import State
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


Held = dict[int, Run | Block]
"""Running jobs by id; of a job that is in a block, the block."""


class Holder(msgspec.Struct):
    """One opened store. `expires_at` is on the monotonic clock: infinity while its process lives and renews.

    `runs` is what it holds, by the number of the run: (run, id) is the fence.
    """

    terms: Terms
    expires_at: float = math.inf
    runs: dict[int, Held] = msgspec.field(default_factory=lambda: {1: {}})


Row = Job | Run | Shelved

NEW = History()


def run_of(id: int, held: Run | Block, holder: int) -> Run:
    """What runs under that id."""
    return Run(Lease(held.job(id), 1), holder, held.created_at, held.started_at) if isinstance(held, Block) else held


def runs_of(number: int, holder: Holder) -> Iterator[Run]:
    """What a holder runs."""
    return (run_of(id, one, number) for held in holder.runs.values() for id, one in held.items())


def leases_of(holder: Holder) -> Iterator[Lease]:
    """What a holder holds."""
    return (run.lease for run in runs_of(0, holder))
