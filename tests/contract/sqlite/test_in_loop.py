"""A file without threads: all in the event loop, by the test's own clock."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cabrank import App, Dispatcher, Retry, TryAgain
from cabrank.settings import Settings
from cabrank.stores.sqlite import SqliteStore
from cabrank.testing import FakeClock, InLoop
from tests.contract.sqlite.files import Files

app = App()
LATER_S = 60.0


@app.job(retry=Retry(attempts=3))
async def patient(attempts: int) -> str:
    Tried.attempts += 1
    if Tried.attempts < attempts:
        raise TryAgain(after_s=LATER_S)
    return "done"


class Tried:
    attempts = 0


async def test_minutes_pass_at_once_over_a_file(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tried, "attempts", 0)
    store = SqliteStore(tmp_path / "jobs.db", clock, doers=InLoop(clock))
    before = threading.active_count()
    dispatcher = Dispatcher(app, store=store, clock=clock, settings=Settings(loop_block_s=0))
    await dispatcher.__aenter__()
    handle = await dispatcher.submit(patient, 3, delay_s=LATER_S)
    await clock.advance(2 * LATER_S)
    assert Tried.attempts == 2
    await clock.advance(LATER_S)
    assert await handle.result() == "done"
    assert threading.active_count() == before
    await dispatcher.stop(grace_s=0)


async def test_a_lease_is_renewed_by_the_clock(tmp_path: Path, clock: FakeClock) -> None:
    files = Files(tmp_path, clock, InLoop(clock))
    store = files.another()
    dispatcher = Dispatcher(app, store=store, clock=clock, settings=Settings(loop_block_s=0, lease_s=3.0, renew_s=1.0))
    await dispatcher.__aenter__()
    await clock.advance(60.0)
    with files.outside() as outside:
        [(expires_at,)] = outside.execute("select expires_at from holder")
    assert isinstance(expires_at, float)
    assert expires_at > clock.monotonic()
    await dispatcher.stop(grace_s=0)
