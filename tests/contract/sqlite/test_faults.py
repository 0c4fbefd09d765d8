"""A disk that fails: a turn is done once or not at all, whatever its commit seemed to do."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from cabrank.errors import StoreUnavailable
from cabrank.job import Job, Settlement
from cabrank.settings import Settings
from cabrank.states import Cause
from cabrank.stores.contract import Submission, Terms, Turn, Want
from cabrank.stores.sqlite.holders import folder_of
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.locks import is_held
from cabrank.stores.sqlite.settle import Ended
from cabrank.testing import FakeClock
from tests.contract.sqlite.disk import Disk, faulty_disk

WANT = {"line": Want(jobs=10, bytes=1_000, idle=10)}


@pytest.fixture
def disk() -> Generator[Disk]:
    with faulty_disk() as disk:
        yield disk


@pytest.fixture
def ledger(disk: Disk, tmp_path: Path, clock: FakeClock) -> Generator[Ledger]:
    """A holder without the thread around it, so that its connection is the only one."""
    ledger = Ledger(tmp_path / "jobs.db", clock, Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={}), Random(1))
    yield ledger
    disk.gone = False
    ledger.close()


def submit(ledger: Ledger, number: int) -> Turn:
    return ledger.turn(number, [Submission(jobs=[Job(id=number, handler="work", queue="line", payload=b"1")])], Ended((), {}), WANT)


def running(ledger: Ledger) -> list[tuple[int, int]]:
    """The (id, run) of all jobs there are."""
    rows: list[Any] = ledger._connection.execute(
        "select id, run from job where phase = 1 union all select first + key, 1 from block, json_each(sizes) order by 1"
    ).fetchall()
    assert not ledger._connection.execute("select count(*) from job where phase <> 1").get
    return rows


def test_a_turn_whose_commit_failed_is_done_by_its_number(ledger: Ledger, disk: Disk) -> None:
    submit(ledger, 1)
    disk.syncs_to_fail = 1
    with pytest.raises(StoreUnavailable):
        submit(ledger, 2)
    turn = submit(ledger, 2)
    assert [lease.job.id for lease in turn.leases] == [2]
    assert running(ledger) == [(1, 1), (2, 1)]


def test_a_turn_whose_commit_only_seemed_to_fail_is_not_done_again(ledger: Ledger, disk: Disk) -> None:
    """The commit is in the log although its sync failed; when the file is opened again, SQLite recovers it."""
    submit(ledger, 1)
    disk.syncs_to_fail = 2  # the commit's, and that of the checkpoint when the file is closed
    with pytest.raises(StoreUnavailable):
        submit(ledger, 2)
    assert ledger._unsure is not None
    seeming = ledger._unsure[1]
    assert submit(ledger, 2) is seeming
    assert running(ledger) == [(1, 1), (2, 1)]
    settled = ledger.turn(3, (), Ended([Settlement(id, 1, Cause.RETURNED) for id in (1, 2)], {}), {})
    assert list(settled.lost) == []


def test_runs_that_ended_in_a_turn_whose_commit_only_seemed_to_fail_are_not_lost(ledger: Ledger, disk: Disk) -> None:
    submit(ledger, 1)
    ended = Ended([Settlement(1, 1, Cause.RETURNED)], {})
    disk.syncs_to_fail = 2
    with pytest.raises(StoreUnavailable):
        ledger.turn(2, (), ended, WANT)
    assert not ledger.turn(2, (), ended, WANT).lost
    assert running(ledger) == []


def test_a_disk_that_is_gone_for_a_while_is_waited_for(ledger: Ledger, disk: Disk) -> None:
    submit(ledger, 1)
    disk.gone = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            submit(ledger, 2)
        ledger.renew()  # it comes due in between, and must not fail the thread
        with pytest.raises(StoreUnavailable):
            ledger.take_ids()
        with pytest.raises(StoreUnavailable):
            ledger.change(lambda change: change.cancel(1))
    disk.gone = False
    assert [lease.job.id for lease in submit(ledger, 2).leases] == [2]
    assert running(ledger) == [(1, 1), (2, 1)]
    ledger.renew()


def test_a_holder_whose_disk_is_gone_can_close(disk: Disk, tmp_path: Path, clock: FakeClock) -> None:
    terms = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})
    ledger = Ledger(tmp_path / "jobs.db", clock, terms, Random(1))
    submit(ledger, 1)
    disk.gone = True
    with pytest.raises(StoreUnavailable):
        submit(ledger, 2)
    ledger.close()
    disk.gone = False
    after = Ledger(tmp_path / "jobs.db", clock, terms, Random(1))
    assert [(lease.job.id, lease.run) for lease in after.turn(1, (), Ended((), {}), WANT).leases][:1] == [(1, 2)]
    after.close()


def test_a_file_that_somebody_else_writes_to_is_waited_for(ledger: Ledger, tmp_path: Path) -> None:
    ledger._connection.set_busy_timeout(1)
    other = apsw.Connection(str(tmp_path / "jobs.db"))
    other.execute("begin immediate")
    with pytest.raises(StoreUnavailable, match="locked"):
        submit(ledger, 1)
    other.execute("rollback")
    other.close()
    assert len(submit(ledger, 1).leases) == 1


def test_a_renewal_that_fails_does_not_end_the_thread_but_the_turn_says_why(ledger: Ledger, tmp_path: Path) -> None:
    with contextlib.closing(apsw.Connection(str(tmp_path / "jobs.db"))) as other:
        other.execute("alter table holder rename to gone")
        ledger.renew()
        with pytest.raises(apsw.SQLError, match="holder"):
            submit(ledger, 1)
        other.execute("alter table gone rename to holder")
    assert len(submit(ledger, 1).leases) == 1


def test_a_disk_that_fails_while_a_file_is_opened_makes_the_store_unavailable_and_leaves_no_lock(
    disk: Disk, tmp_path: Path, clock: FakeClock
) -> None:
    """Whichever of its writes fails. A life lock that stayed behind would be that of the next holder, which gets the same number."""
    terms = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})
    syncs = 0
    for syncs in range(100):
        path = tmp_path / f"{syncs}.db"
        disk.syncs_before, disk.syncs_to_fail = syncs, 1
        try:
            ledger = Ledger(path, clock, terms, Random(1))
        except StoreUnavailable:
            assert not any(map(is_held, folder_of(path).iterdir())), f"after {syncs} syncs"
        else:
            disk.syncs_to_fail = 0
            ledger.close()
            break
    assert syncs > 2
