"""Limits in the file: which indexes answer, what a claim costs, and what is left of a key that has no jobs any more."""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from cabrank.job import Settlement
from cabrank.policy import Limit
from cabrank.settings import Settings
from cabrank.states import Cause
from cabrank.stores.contract import Terms
from cabrank.stores.sqlite import holders
from cabrank.stores.sqlite import limit_statements as sql
from cabrank.stores.sqlite.ledger import PRUNE_S
from cabrank.testing import FakeClock
from cabrank.testing.store_contract import Opened, submission
from cabrank.testing.store_contract.opened import PLENTY
from tests.contract.sqlite.files import Files

TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={}, limits={"work": Limit(running=1)})


async def opened(files: Files, limit: Limit) -> Opened:
    one = Opened(files.another(), files)
    await one.open(msgspec.structs.replace(TERMS, limits={"work": limit}))
    return one


@pytest.fixture
async def one(files: Files) -> AsyncGenerator[Opened]:
    one = await opened(files, Limit(running=1))
    yield one
    await one.close()


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (sql.OPEN_DUE, ("[1]", 0), "allowance_opens"),
        (sql.OPEN_HANDLERS, ("[1]",), "allowance_open"),
        (sql.OPEN_LINES, (1, 1, 10, 1), "allowance_open"),
        (sql.OPEN_LINES, (1, 1, 10, 1), "job_limited"),
        (sql.HEADS, ("[1]", 2), "job_limited"),
        (sql.NEXT_OPEN, ("[1]",), "allowance_opens"),
        (sql.FREE, (apsw.carray(array("q", [1])),), "job"),
        (sql.COME_BACK, (1, apsw.carray(array("q", [1]))), "job"),
        (sql.PROMOTE, (1, 0), "job_later"),
        (sql.GIVE_BACK, (1,), "job_running"),
        (sql.OLD_LINES, (10, 0), "allowance_idle"),
        (sql.OLD_LINES, (10, 0), "job_limited"),
    ],
)
async def test_what_a_turn_asks_of_the_lines_is_answered_by_an_index(
    files: Files, one: Opened, statement: str, values: tuple[Any, ...], index: str
) -> None:
    """However many keys there are and however much waits: nothing is scanned, no jobs are sorted."""
    await one.submit(*(one.job(limit_key=f"k{number % 100}") for number in range(1_000)))
    with files.outside() as connection:
        plan = [str(row[3]) for row in connection.execute(f"explain query plan {statement}", values)]
    assert any(index in step for step in plan if step.startswith(("SEARCH", "SCAN")))
    assert not [step for step in plan if "TEMP B-TREE" in step or step in {"SCAN job", "SCAN its", "SCAN allowance"}]


async def steps_of(one: Opened, files: Files) -> int:
    """How many of SQLite's steps a turn takes that claims five jobs, after their lines were found."""
    ledger = files_ledger(one)
    counted = 0

    def count() -> bool:
        nonlocal counted
        counted += 1
        return False

    ledger._connection.set_progress_handler(count, 10)
    leases = await one.claim(5)
    ledger._connection.set_progress_handler(None)
    assert len(leases) == 5
    await one.settle(leases, Cause.RELEASED)
    return counted


def files_ledger(one: Opened) -> Any:
    return one.store._ledger  # type: ignore[attr-defined]


async def test_a_claim_does_not_cost_more_when_more_waits(files: Files, one: Opened) -> None:
    await one.submit(*(one.job(limit_key=f"k{number % 50}") for number in range(200)))
    few = await steps_of(one, files)
    for _ in range(5):
        await one.submit(*(one.job(limit_key=f"k{number % 1_000}") for number in range(4_000)))
    assert await steps_of(one, files) < 2 * few


async def test_keys_that_have_no_jobs_any_more_are_forgotten_when_they_would_start_afresh(files: Files, clock: FakeClock) -> None:
    one = await opened(files, Limit(per_s=0.01))
    await one.submit(*(one.job(limit_key=key) for key in "abc"))
    await one.submit(*(one.job(limit_key=key) for key in "aa"))
    await one.settle(await one.claim(), Cause.RETURNED)
    await clock.advance(PRUNE_S + 1)
    await one.turn()
    assert keys(files) == ["a", "b", "c"]
    await clock.advance(100)
    await one.turn()
    assert keys(files) == ["a"]
    await one.close()


async def test_a_key_whose_job_is_dead_is_not_forgotten(files: Files, one: Opened, clock: FakeClock) -> None:
    await one.submit(one.job(limit_key="a"))
    await one.settle(await one.claim(), Cause.GAVE_UP)
    await clock.advance(PRUNE_S + 1)
    await one.turn()
    assert keys(files) == ["a"]


def keys(files: Files) -> list[str]:
    with files.outside() as connection:
        return [str(key) for (key,) in connection.execute("select key from allowance order by key")]


async def test_buckets_begin_empty_when_the_machine_has_booted(
    files: Files, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """How long it was off is not known, and its clock begins anew."""
    limit = Limit(per_s=1, burst=2)
    await clock.advance(90_000)
    one = await opened(files, limit)
    await one.submit(*(one.job(limit_key="a") for _ in range(5)))
    await one.settle(await one.claim(), Cause.RETURNED)
    await one.close()

    booted = tmp_path / "boot"
    booted.write_text("another")
    monkeypatch.setattr(holders, "BOOT_ID", booted)
    later = FakeClock(clock.now() + 60)
    other = await opened(Files(tmp_path, later), limit)
    turn = await other.turn(want=PLENTY)
    assert not turn.leases
    assert turn.next_due_s == pytest.approx(1)
    await later.advance(1)
    assert len(await other.claim()) == 1
    await other.close()


async def test_payloads_of_limited_jobs_are_kept_to_the_byte(one: Opened) -> None:
    payloads = [b'{"a": "\xc3\xa9\\u00e9" }', b"", b"[1,\n2]", b'"x"' * 1000]
    jobs = [one.job(limit_key=str(number), payload=payload) for number, payload in enumerate(payloads)]
    await one.turn(submission(*jobs))
    assert [lease.job.payload for lease in await one.claim()] == payloads


async def test_a_turn_that_could_start_nothing_is_not_synced_again_and_again(files: Files, one: Opened) -> None:
    """A line that looked open and is not is written down as closed, once."""
    running, waiting = one.job(limit_key="a"), one.job(limit_key="a")
    await one.run(running, waiting)
    await one.store.cancel(waiting.id)
    await one.turn(settlements=[Settlement(running.id, 1, Cause.SNOOZED, after_s=60)])
    ledger = files_ledger(one)
    before = ledger._connection.total_changes()
    await one.claim()
    after = ledger._connection.total_changes()
    assert after > before
    assert await one.claim() == []
    assert ledger._connection.total_changes() == after


@pytest.mark.parametrize("limit", [Limit(running=1), Limit(per_s=10, burst=1)], ids=["running", "per_s"])
async def test_a_holder_that_has_no_worker_left_tells_others_of_a_line_that_they_may_serve(files: Files, limit: Limit) -> None:
    one, other = await opened(files, limit), await opened(files, limit)
    jobs = [one.job(limit_key="a") for _ in range(3)]
    await one.submit(*jobs)
    while not (await other.store.arrival()).work:
        pass
    [lease] = await one.claim(1)
    if limit.running:
        await one.settle([lease], Cause.RETURNED)  # and wants none itself
    assert (await other.store.arrival()).work
    turn = await other.turn(want=PLENTY)
    assert len(turn.leases) == (limit.running or 0)
    assert turn.next_due_s == (None if limit.running else pytest.approx(0.1))
    await one.close()
    await other.close()


async def test_what_a_limit_says_is_known_to_who_does_not_know_the_handler(files: Files, one: Opened) -> None:
    await one.submit(one.job(limit_key="a"))
    stranger = Opened(files.another(), files)
    await stranger.open(msgspec.structs.replace(TERMS, handlers=frozenset(), limits={}))
    standing = await stranger.store.standing(one.job().id - 1)
    assert standing is not None
    assert standing.limit.running == 1
    await stranger.close()
