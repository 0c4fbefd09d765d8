"""A disk that fills up: new jobs are refused with a word that says so, what ended is recorded, and it goes on when there is space."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from random import Random

import pytest

from cabrank.errors import StoreUnavailable
from cabrank.job import Job, Settlement
from cabrank.settings import Durability, Settings
from cabrank.states import Cause
from cabrank.stores.contract import Submission, Terms, Turn, Verdict, Want
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.room import FULL_S, LOOK_S
from cabrank.stores.sqlite.settle import Ended
from cabrank.testing import FakeClock
from tests.contract.sqlite.disk import Disk, faulty_disk

WANT = {"line": Want(jobs=10, bytes=1_000, idle=10)}
NOTHING = Ended((), {})
HUGE = 1 << 60


@pytest.fixture
def disk() -> Generator[Disk]:
    with faulty_disk() as disk:
        yield disk


def opened(path: Path, clock: FakeClock, settings: Settings | None = None) -> Ledger:
    return Ledger(path, clock, Terms(handlers=frozenset({"work"}), settings=settings or Settings(min_free=0), max_crashes={}), Random(1))


@pytest.fixture
def ledger(disk: Disk, tmp_path: Path, clock: FakeClock) -> Generator[Ledger]:
    ledger = opened(tmp_path / "jobs.db", clock)
    yield ledger
    disk.full = False
    ledger.close()


def submission(id: int, key: str = "") -> Submission:
    return Submission(jobs=[Job(id=id, handler="work", queue="line", payload=b"1")], key=key, digest=b"d" if key else b"")


def verdict(turn: Turn) -> Verdict:
    return turn.admitted[0].verdict


async def test_a_full_disk_refuses_new_jobs_and_records_what_ended(ledger: Ledger, disk: Disk, clock: FakeClock) -> None:
    [lease] = ledger.turn(1, [submission(1)], NOTHING, WANT).leases
    disk.writes_to_fail = 1
    turn = ledger.turn(2, [submission(2)], Ended([Settlement(1, lease.run, Cause.RETURNED)], {}), WANT)
    assert (verdict(turn), "full" in turn.admitted[0].bound) == (Verdict.NO_SPACE, True)
    assert ledger._connection.execute("select count(*) from job").get == 0, "the one is done, the other was never stored"
    assert verdict(ledger.turn(3, [submission(3)], NOTHING, WANT)) is Verdict.NO_SPACE, "it is not tried again at once"
    await clock.advance(FULL_S)
    assert verdict(ledger.turn(4, [submission(4)], NOTHING, WANT)) is Verdict.STORED


async def test_while_nothing_at_all_can_be_written_what_ended_waits(ledger: Ledger, disk: Disk, clock: FakeClock) -> None:
    [lease] = ledger.turn(1, [submission(1)], NOTHING, WANT).leases
    disk.full = True
    ended = Ended([Settlement(1, lease.run, Cause.RETURNED)], {})
    with pytest.raises(StoreUnavailable, match="full"):
        ledger.turn(2, [submission(2)], ended, WANT)
    disk.full = False
    turn = ledger.turn(2, [submission(2)], ended, WANT)
    assert (verdict(turn), list(turn.lost)) == (Verdict.NO_SPACE, [])
    await clock.advance(FULL_S)
    assert verdict(ledger.turn(3, [submission(3)], NOTHING, WANT)) is Verdict.STORED


async def test_below_the_floor_no_new_jobs_are_taken_but_keys_are_answered(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "jobs.db"
    before = opened(path, clock)
    assert verdict(before.turn(1, [submission(1, "k")], NOTHING, {})) is Verdict.STORED
    before.close()
    ledger = opened(path, clock, Settings(min_free=HUGE))
    turn = ledger.turn(1, [submission(2), submission(3, "k")], NOTHING, WANT)
    assert [answer.verdict for answer in turn.admitted] == [Verdict.NO_SPACE, Verdict.REPEATED]
    assert "min_free is" in turn.admitted[0].bound
    assert [lease.job.id for lease in turn.leases] == [1], "what was there is worked on"
    assert list(ledger.turn(2, (), Ended([Settlement(1, 1, Cause.RETURNED)], {}), WANT).lost) == []
    ledger._space._floor = 1  # somebody makes space
    await clock.advance(LOOK_S)
    assert verdict(ledger.turn(3, [submission(4)], NOTHING, WANT)) is Verdict.STORED
    ledger.close()


@pytest.mark.parametrize(("durability", "synchronous"), [(Durability.DISK, 2), (Durability.PROCESS, 1)])
def test_what_is_synced_is_as_the_setting_says(tmp_path: Path, clock: FakeClock, durability: Durability, synchronous: int) -> None:
    ledger = opened(tmp_path / "jobs.db", clock, Settings(durability=durability))
    assert ledger._connection.execute("pragma synchronous").get == synchronous
    ledger.close()


@pytest.mark.parametrize(("durability", "syncs"), [(Durability.DISK, 1), (Durability.PROCESS, 0)])
def test_a_turn_is_synced_before_its_answer_or_not(
    disk: Disk, tmp_path: Path, clock: FakeClock, durability: Durability, syncs: int
) -> None:
    ledger = opened(tmp_path / "jobs.db", clock, Settings(durability=durability))
    ledger.turn(1, [submission(1)], NOTHING, {})
    before = disk.syncs
    ledger.turn(2, [submission(2)], NOTHING, {})
    assert disk.syncs - before == syncs
    ledger.close()
