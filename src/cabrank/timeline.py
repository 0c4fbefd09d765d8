"""What happened to a job, as one list with moments: only what its store has recorded, whichever store that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from cabrank.job import FailedRun
from cabrank.states import State
from cabrank.stores.contract import JobRecord


class Happened(StrEnum):
    """What can happen to a job."""

    SUBMITTED = "submitted"
    """It was stored, and waits."""
    LEFT_OUT = "left_out"
    """Of `runs` runs, `run` the first of them, nothing is kept: they were snoozed or handed back, or too many failed."""
    DUE = "due"
    """Its due time, which was later than the moment from which it waits."""
    BEGAN = "began"
    """A run was leased."""
    FAILED = "failed"
    """A run raised, or timed out."""
    CRASHED = "crashed"
    """The process of a run died: its holder was lost."""
    CANCEL_ASKED = "cancel_asked"
    """Somebody cancelled it while it runs."""
    BECAME = "became"
    """It came into the state that it is in."""


class Happening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a timeline.

    `at` is a moment, 0 where none is kept. `state` is what it was from then on, where that is known. `run` is the number of the run that
    it is about, 0 if of none. `error_type` is what a run ended with, `reason` why it is where it is.
    """

    at: float = 0.0
    what: Happened
    state: State | None = None
    run: int = 0
    runs: int = 0
    error_type: str = ""
    reason: str = ""

    def __str__(self) -> str:
        """Some words for people, without the moment."""
        match self.what:
            case Happened.LEFT_OUT:
                last = self.run + self.runs - 1
                return f"run {self.run}: not kept" if last == self.run else f"runs {self.run} to {last}: not kept"
            case Happened.BECAME:
                return f"{self.state}: {self.reason.replace('_', ' ')}" if self.reason else str(self.state)
            case Happened.BEGAN | Happened.FAILED | Happened.CRASHED:
                return f"run {self.run} {self.what}" + (f": {self.error_type}" if self.error_type else "")
            case _:
                return self.what.replace("_", " ")


def timeline_of(record: JobRecord) -> Sequence[Happening]:
    """What happened to a job, in its order. Not for the records of a `Page`, which lack what failed.

    When a run began is kept of the last one and of those of the failed ones that are kept. A job that returned has no more than
    when it was submitted, what failed, and when it was done.
    """
    return list(_happenings(record))


def _happenings(record: JobRecord) -> Iterator[Happening]:
    failed, next_run = record.failed_runs, 1
    if record.created_at:
        yield Happening(at=record.created_at, what=Happened.SUBMITTED, state=State.WAITING)
    for one in failed:
        yield from _left_out(next_run, one.run)
        yield from _due(record, one)
        yield from _failed(one)
        next_run = one.run + 1
    begins = record.run >= next_run and record.started_at > 0
    yield from _left_out(next_run, record.run if begins or record.state is State.DONE else record.run + 1)
    if begins:
        yield from _due(record, None)
        yield Happening(at=record.started_at, what=Happened.BEGAN, state=State.RUNNING, run=record.run)
    yield from _now(record)


def _left_out(first: int, until: int) -> Iterator[Happening]:
    if until > first:
        yield Happening(what=Happened.LEFT_OUT, run=first, runs=until - first)


def _due(record: JobRecord, failed: FailedRun | None) -> Iterator[Happening]:
    """The due time of the last run, before it began: `failed` is how that ended, None if it did not fail. Those of others are not kept."""
    if failed is None or failed.run == record.run:
        before = [one.at for one in record.failed_runs if one is not failed]
        since = max([record.created_at, *before])
        if since < record.due_at <= record.started_at:
            yield Happening(at=record.due_at, what=Happened.DUE)


def _failed(one: FailedRun) -> Iterator[Happening]:
    if one.started_at:
        yield Happening(at=one.started_at, what=Happened.BEGAN, state=State.RUNNING, run=one.run)
    yield Happening(
        at=one.at,
        what=Happened.CRASHED if one.crashed else Happened.FAILED,
        run=one.run,
        error_type=one.error_type,
    )


def _now(record: JobRecord) -> Iterator[Happening]:
    """From when on it is as it is now, unless that was said."""
    if record.state is State.RUNNING:
        if record.cancelling:
            yield Happening(at=record.cancel_asked_at or 0.0, what=Happened.CANCEL_ASKED)
        return
    if record.state is not State.WAITING or record.changed_at > record.created_at or record.run:
        run = record.run if record.state is State.DONE else 0
        yield Happening(at=record.changed_at, what=Happened.BECAME, state=record.state, run=run, reason=record.reason)
    if record.state is State.WAITING and record.due_at > max(record.changed_at, record.created_at):
        yield Happening(at=record.due_at, what=Happened.DUE)
