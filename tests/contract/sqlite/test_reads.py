"""What people and servers ask is one short read each: it looks at a bounded part of the file, and leaves no read open behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from cabrank.clock import SystemClock
from cabrank.job import Job, Settlement
from cabrank.settings import Settings
from cabrank.states import Cause, State
from cabrank.stores.contract import JobFilter, Submission, Terms, Want
from cabrank.stores.sqlite.browse import LOOKED_AT
from cabrank.stores.sqlite.inspector import Reader
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.settle import Ended

JOBS, ENDED = 60_000, 3_000
TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(min_free=0, keep_done_jobs=ENDED), max_crashes={})
STEPS = 40 * LOOKED_AT  # of SQLite's machine, some 50 million a second: 20 ms where it is quick, and it does not grow with the backlog

QUESTIONS: dict[str, Callable[[Reader], object]] = {
    "find": lambda reader: reader.find(range(1, 1_000)),
    "tally": lambda reader: reader.tally(),
    "ready": lambda reader: reader.ready("line", 1_000, SystemClock.now(), 9),
    "standing": lambda reader: reader.standing(JOBS, 0.0),
    "changes": lambda reader: reader.anything_new(),
    "all": lambda reader: reader.browse(JobFilter(), 0, 100),
    "none of all": lambda reader: reader.browse(JobFilter(handler="absent"), 0, 100),
    **{f"{state} ones": lambda reader, state=state: reader.browse(JobFilter(state=state), 0, 100) for state in State},  # type: ignore[misc] # mypy sees no defaults of a lambda
    **{f"no {state} one": lambda reader, state=state: reader.browse(JobFilter(state=state, handler="absent"), 0, 100) for state in State},  # type: ignore[misc] # as above
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("reads") / "jobs.db"
    ledger = Ledger(path, SystemClock(), TERMS, Random(1))
    nothing = Ended([], {})
    for turn, first in enumerate(range(1, JOBS, 10_000), 1):
        jobs = [Job(id=id, handler="work", queue="line", payload=b"{}") for id in range(first, first + 10_000)]
        ledger.turn(turn, [Submission(jobs=jobs)], nothing, {})
    want = {"line": Want(jobs=2 * ENDED, bytes=1 << 20, idle=2 * ENDED)}
    leases = [(lease.job.id, lease.run) for lease in ledger.turn(100, [], nothing, want).leases]
    causes = [Cause.RETURNED if id % 2 else Cause.GAVE_UP for id, _ in leases]
    ledger.turn(101, [], Ended([Settlement(*fence, cause) for fence, cause in zip(leases, causes, strict=True)], {}), {})
    yield path
    ledger.close()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_a_bounded_look_and_leaves_no_read_open(path: Path, question: str) -> None:
    reader = Reader(path)
    steps: list[int] = []

    def count(event: dict[str, Any]) -> None:
        steps.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

    reader._connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, count)
    try:
        QUESTIONS[question](reader)
        assert sum(steps) < STEPS
        assert reader._connection.txn_state("main") == apsw.SQLITE_TXN_NONE, "the log can be folded back"
    finally:
        reader.close()
