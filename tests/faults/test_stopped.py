"""A process that stood still for longer than its lease finds its job done by another, and changes nothing any more."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

import cabrank
from cabrank.stores.sqlite.locks import is_held
from tests.faults.stopping import SETTINGS, make_app

ROOT = Path(__file__).parents[2]


async def exists(file: Path) -> None:
    while not await asyncio.to_thread(file.exists):
        await asyncio.sleep(0.01)


def stands_still(pid: int) -> bool:
    """Whether each thread of it has been stopped."""
    return all(stat.read_text("ascii").rsplit(")", 1)[1].split()[0] == "T" for stat in Path("/proc").glob(f"{pid}/task/*/stat"))


async def stop(process: asyncio.subprocess.Process, folder: Path) -> None:
    """Stop it where it holds no turn: one that does stops everybody, which other tests show."""
    while True:
        process.send_signal(signal.SIGSTOP)
        while not stands_still(process.pid):
            await asyncio.sleep(0.001)
        if not is_held(folder / "jobs.db-locks" / "turn") and not is_held(folder / "jobs.db-locks" / "next"):
            return
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.05)


@pytest.mark.timeout(120)  # a lease has to run out, and two processes to start
async def test_a_process_that_was_stopped_beyond_its_lease_cannot_settle_any_more(tmp_path: Path) -> None:
    url, app = f"sqlite:///{tmp_path}/jobs.db", make_app(tmp_path)
    async with cabrank.Intake(app, store=url, settings=SETTINGS) as intake:
        handle = await intake.submit(app.handler("work"))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.faults.stopping", str(tmp_path), cwd=ROOT)
    try:
        await exists(tmp_path / f"began-{process.pid}")
        await stop(process, tmp_path)
        async with cabrank.Dispatcher(app, store=url, settings=SETTINGS) as other:
            await exists(tmp_path / f"began-{os.getpid()}")
            (tmp_path / "go").touch()
            assert await other.handle(handle.id).result(timeout_s=30) == f"by {os.getpid()}"
            process.send_signal(signal.SIGCONT)
            assert await process.wait() == 0
            assert (tmp_path / "lost").exists(), "it was told that its settlement came too late"
            record = (await other.engine.store.find([handle.number]))[handle.number]
            assert (record.state, record.run) == (cabrank.State.DONE, 2)
            assert record.result == f'"by {os.getpid()}"'.encode()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            await process.wait()
