"""Blocks and turns in one statement, looked at with hostile eyes: each test is of something that could go wrong unseen."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from cabrank.errors import StoreUnavailable
from cabrank.job import Job, Lease, Progress, Settlement
from cabrank.settings import Settings
from cabrank.states import Cause
from cabrank.stores.contract import Submission, Terms, Turn, Want
from cabrank.stores.sqlite.inspector import Reader
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.settle import Ended
from cabrank.testing import FakeClock
from tests.contract.sqlite.disk import Disk, faulty_disk

TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})
WANT = {"line": Want(jobs=100, bytes=1_000_000, idle=100)}
NOTHING = Ended((), {})


@pytest.fixture
def disk() -> Generator[Disk]:
    with faulty_disk() as disk:
        yield disk


class Two:
    """Two holders of one file, without the threads around them."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self.path = path
        self.clock = clock
        self.one = Ledger(path, clock, TERMS, Random(1))
        self.other = Ledger(path, clock, TERMS, Random(2))

    def rows(self, statement: str) -> list[Any]:
        return self.other._connection.execute(statement).fetchall()


@pytest.fixture
def two(disk: Disk, tmp_path: Path, clock: FakeClock) -> Generator[Two]:
    two = Two(tmp_path / "jobs.db", clock)
    yield two
    disk.gone = False
    two.one.close()
    two.other.close()


def jobs(first: int, count: int, payload: bytes = b"1") -> Submission:
    return Submission(jobs=[Job(id=id, handler="work", queue="line", payload=payload) for id in range(first, first + count)])


def ran(turn: Turn) -> list[tuple[int, int, int]]:
    return [(lease.job.id, lease.run, lease.crashes) for lease in turn.leases]


def returned(leases: Sequence[Lease], result: bytes | None = None) -> Ended:
    return Ended([Settlement(lease.job.id, lease.run, Cause.RETURNED, result=result) for lease in leases], {})


def test_progress_is_told_of_a_job_in_a_block_after_the_file_was_opened_again(two: Two) -> None:
    """As it is before each fork. The block is not remembered then, but the job is in it."""
    two.one.turn(1, [jobs(1, 2)], NOTHING, WANT)
    two.one.rest()
    two.one.turn(2, (), Ended((), {}, [Progress(id=1, run=1, at=1.0, fraction=0.5, note="half")]), {})
    assert two.rows("select id, note from progress") == [(1, "half")]


def test_what_is_kept_of_results_is_counted_in_bytes(two: Two) -> None:
    """Not in characters, of which one may have four bytes."""
    turn = two.one.turn(1, [jobs(1, 2)], NOTHING, WANT)
    two.one.turn(2, (), returned(turn.leases, '"€€€€"'.encode()), {})
    [(size, there)] = two.rows("select size, length(cast(results as blob)) from done_block")
    assert size == there


def test_jobs_that_another_process_has_taken_back_and_runs_are_not_stored_a_second_time(two: Two, disk: Disk) -> None:
    """Their turn seemed to fail, its process was taken for dead, and sends it again: whatever is said to it, no job is there twice."""
    two.one.turn(1, [jobs(1, 1)], NOTHING, WANT)
    disk.syncs_to_fail = 2
    with pytest.raises(StoreUnavailable):
        two.one.turn(2, [jobs(2, 2)], NOTHING, WANT)
    two.one.rest()
    with contextlib.suppress(apsw.IOError):
        two.other.rest()  # the last that closes the file cannot fold the log back, so whoever opens it finds that turn in the log
    disk.syncs_to_fail = 0
    two.other.renew()
    two.other._connection.execute("update holder set boot = 'an earlier one' where id = ?", (two.one._holders.id,))
    two.clock._monotonic += 6
    taken = two.other.turn(1, (), NOTHING, WANT)
    there = [lease.job.id for lease in taken.leases]
    assert there == [1, 2, 3]
    try:
        again = two.one.turn(2, [jobs(2, 2)], NOTHING, WANT)
    except apsw.ConstraintError:
        again = None
    # Where they are there twice, parting the block of one of them fails for every holder, at each sweep
    twice = "select job.id from job, block where job.id between block.first and block.first + block.jobs - 1"
    found = two.rows(twice)
    two.other._connection.execute("delete from block where first = 2 and ?", (bool(found),))  # so that the holders can close
    assert found == []
    if again is not None:
        assert not {lease.job.id for lease in again.leases} & set(there)


def test_of_blocks_that_are_partly_settled_a_dead_process_gives_back_what_was_left(two: Two) -> None:
    """One that was parted, one that ended, one that is whole, and a job that waits: one crash for what ran, none for what did not."""
    turn = two.one.turn(1, [jobs(1, 4)], NOTHING, WANT)
    whole = two.one.turn(2, [jobs(5, 4)], NOTHING, WANT)
    two.one.turn(3, [jobs(9, 4)], returned(turn.leases[1:2]), WANT)
    two.one.turn(4, (), returned(whole.leases), WANT)
    two.one.turn(5, [jobs(20, 1)], NOTHING, {})
    assert two.rows("select first from block") == []
    two.other._connection.execute("update holder set boot = 'an earlier one' where id = ?", (two.one._holders.id,))
    two.clock._monotonic += 6
    back = two.other.turn(1, (), NOTHING, WANT)
    assert sorted(ran(back)) == [*((id, 2, 1) for id in (1, 3, 4, 9, 10, 11, 12)), (20, 1, 0)]
    assert sorted(two.one.turn(6, (), returned(turn.leases[2:]), {}).lost) == [(3, 1), (4, 1)]


def test_jobs_of_parted_and_whole_blocks_are_found_and_counted_as_if_they_were_rows(two: Two) -> None:
    turn = two.one.turn(1, [jobs(1, 3, b'"x"')], NOTHING, WANT)
    two.one.turn(2, [jobs(4, 3)], returned(turn.leases[:1]), WANT)
    reader = Reader(two.path)
    found = reader.find(range(1, 7))
    assert [found[id].state.value for id in range(1, 7)] == ["done", *["running"] * 5]
    assert reader.tally()["line"].running == 5
    reader.close()
