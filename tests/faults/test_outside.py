"""Somebody else's program holds the file: whoever needs it waits a bounded time, is told, and goes on when it is free."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

import cabrank

HOLD = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(5000)
connection.execute("begin immediate")
print("held", flush=True)
sys.stdin.readline()
connection.execute("rollback")
"""


@pytest.mark.timeout(120)
async def test_an_outside_writer_delays_everybody_and_breaks_nothing(tmp_path: Path) -> None:
    app = cabrank.App()

    @app.job
    async def work(number: int) -> int:
        return number

    async with cabrank.Dispatcher(app, store=f"sqlite:///{tmp_path}/jobs.db") as dispatcher:
        assert await (await dispatcher.submit(work, 1)).result() == 1
        holder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLD, str(tmp_path / "jobs.db")), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert await holder.stdout.readline() == b"held\n"
        waiting = asyncio.create_task(dispatcher.submit(work, 2))
        while dispatcher.engine.committer.failing_since is None:  # after the 5 s for which SQLite waits
            assert not waiting.done()
            await asyncio.sleep(0.01)
        told = dispatcher.engine.answering
        holder.stdin.write(b"\n")
        assert await (await waiting).result(timeout_s=60) == 2
        assert (told, dispatcher.engine.answering) == (False, True), "/readyz said so"
        assert dispatcher.engine.counters.done == 2
        await holder.wait()
