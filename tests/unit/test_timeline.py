"""What happened to a job, out of what its record says: nothing that the record does not say."""

from __future__ import annotations

from typing import Any

import pytest

from cabrank.job import FailedRun
from cabrank.states import State
from cabrank.stores.contract import JobRecord
from cabrank.timeline import timeline_of


def record(state: State, *, run: int = 0, **said: Any) -> JobRecord:
    return JobRecord(id=1, handler="upload", queue="async", state=state, run=run, **said)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (record(State.DONE, run=0, changed_at=9.0), [(9.0, "done")]),
        (record(State.DONE, run=2, changed_at=9.0), [(0.0, "run 1: not kept"), (9.0, "done")]),
        (record(State.WAITING, run=2), [(0.0, "runs 1 to 2: not kept"), (0.0, "waiting")]),
        (record(State.RUNNING, run=1, started_at=3.0), [(3.0, "run 1 began")]),
        (record(State.RUNNING, run=1), [(0.0, "run 1: not kept")]),
        (record(State.RUNNING, run=1, started_at=3.0, cancel_asked_at=0.0), [(3.0, "run 1 began"), (0.0, "cancel asked")]),
        (
            record(State.DEAD, run=1, changed_at=4.0, failed_runs=[FailedRun(1, 4.0, "ValueError", "it broke")]),
            [(4.0, "run 1 failed: ValueError"), (4.0, "dead")],
        ),
    ],
)
def test_what_was_not_kept_is_not_said(record: JobRecord, told: list[tuple[float, str]]) -> None:
    """As of a file of an older version, or of a job that has returned."""
    assert [(one.at, str(one)) for one in timeline_of(record)] == told


def test_words_for_people() -> None:
    failed, why = [FailedRun(2, 4.0, "WorkerLost", "killed", 3.0)], "worker_lost"
    whole = record(State.EXPIRED, run=9, created_at=1.0, due_at=5.0, started_at=6.0, changed_at=7.0, reason=why, failed_runs=failed)
    assert [str(one) for one in timeline_of(whole)] == [
        "submitted",
        "run 1: not kept",
        "run 2 began",
        "run 2 crashed: WorkerLost",
        "runs 3 to 8: not kept",
        "due",
        "run 9 began",
        "expired: worker lost",
    ]


def test_a_due_time_that_never_came_or_belongs_to_another_run_is_not_said() -> None:
    cancelled = record(State.CANCELLED, created_at=1.0, due_at=100.0, changed_at=50.0)
    assert [str(one) for one in timeline_of(cancelled)] == ["submitted", "cancelled"]
    again = record(State.CANCELLED, run=1, created_at=1.0, started_at=2.0, due_at=100.0, changed_at=50.0)
    assert [str(one) for one in timeline_of(again)] == ["submitted", "run 1 began", "cancelled"]
