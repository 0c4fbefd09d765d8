"""What a handler, or a signal, does to the process that runs it: real processes, threads and signals."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import cabrank
from cabrank.cli.loading import load_app
from cabrank.states import State
from tests.server.process import Gate, Server, command, gated

STORE = ("--store", "sqlite:///jobs.db")
LEASE_S = 8.0  # a machine that stalls for less than this does not take it away
SHORT = {"CABRANK_LEASE_S": f"{LEASE_S}", "CABRANK_RENEW_S": "0.3", "CABRANK_SWEEP_S": "0.1"}

APP = """
import asyncio, os, socket, threading, time
import cabrank

app = cabrank.App()

def pass_gate(word):
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(os.environ["GATE"])
        gate.sendall(word.encode() + b"\\n")
        gate.recv(1)

@app.job
async def blocks(*, job: cabrank.JobContext = cabrank.context()) -> str:
    pass_gate(f"blocks run {job.run}")
    return "done"

@app.job
async def swallows(*, job: cabrank.JobContext = cabrank.context()) -> None:
    reader, writer = await asyncio.open_unix_connection(os.environ["GATE"])
    writer.write(f"swallows run {job.run}\\n".encode())
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@app.job
def hangs(*, job: cabrank.JobContext = cabrank.context()) -> None:
    pass_gate(f"hangs run {job.run}")
    time.sleep(3600)
"""


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncGenerator[Gate]:
    async with gated(tmp_path) as gate:
        (tmp_path / "faulty.py").write_text(APP, "utf-8")
        yield gate


def worker(folder: Path, *options: str, **environment: str):  # type: ignore[no-untyped-def] # noqa: ANN201 -- as `command`
    return command(folder, "work", "faulty.py:app", *STORE, *options, **environment)


async def submit(folder: Path, *names: str) -> list[str]:
    app = load_app(f"{folder / 'faulty.py'}:app")
    async with cabrank.Intake(app, store=f"sqlite:///{folder / 'jobs.db'}") as intake:
        return [(await intake.submit(app.handlers[name])).id for name in names]


async def states(folder: Path, ids: list[str]) -> list[tuple[State, int, int]]:
    async with cabrank.Intake(store=f"sqlite:///{folder / 'jobs.db'}") as intake:
        records = await intake.engine.store.find([intake.handle(id).number for id in ids])
        return [(record.state, record.failures, record.crashes) for record in records.values()]


async def test_a_blocked_event_loop_keeps_its_lease_and_is_named_and_can_be_looked_into(gate: Gate, tmp_path: Path) -> None:
    async with worker(tmp_path, **SHORT) as blocked, worker(tmp_path, **SHORT) as other:
        await blocked.logged(b"stop with")
        [id] = await submit(tmp_path, "blocks")
        assert await gate.came.get() == "blocks run 1"
        both = {
            asyncio.create_task(each.logged(f"by job {id} of blocks, run 1; it stands at ".encode())): each for each in (blocked, other)
        }
        done, pending = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for waiting in pending:
            waiting.cancel()
        await asyncio.wait(both)
        holder: Server = both[done.pop()]
        holder.tell(signal.SIGUSR1)
        await holder.logged(b"in pass_gate: gate.recv(1)")
        await asyncio.sleep(1.25 * LEASE_S)  # the lease would have ended: nobody may take the job
        assert gate.came.empty()
        gate.open()
        while (await states(tmp_path, [id]))[0][0] is not State.DONE:
            await asyncio.sleep(0.05)
        assert gate.came.empty(), "it ran once"


@pytest.mark.timeout(120)  # a lease has to run out, and two processes to start
async def test_a_loop_blocked_for_too_long_lets_its_jobs_go_and_is_unfit_until_it_turns_again(gate: Gate, tmp_path: Path) -> None:
    let_go = SHORT | {"CABRANK_LEASE_S": "4", "CABRANK_MAX_LOOP_BLOCK_S": "1"}
    async with command(tmp_path, "serve", "faulty.py:app", "--port", "0", *STORE, **let_go) as blocked:
        await blocked.listening()
        [id] = await submit(tmp_path, "blocks")
        assert await gate.came.get() == "blocks run 1"
        probe = asyncio.create_task(blocked.ask(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        await blocked.logged(b"longer than max_loop_block_s: the leases of this process are not renewed any more")
        async with worker(tmp_path, **SHORT):
            assert await gate.came.get() == "blocks run 2", "another process has taken the job"
            gate.open()
            said = await probe
            assert said.status == 503
            assert b"its event loop was blocked for more than max_loop_block_s (1 s) by job" in said.body
            while (await blocked.ask(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")).status != 200:
                await asyncio.sleep(0.1)
            while (
                b"cabrank_jobs_lost_total 1" not in (metrics := await blocked.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")).body
            ):
                await asyncio.sleep(0.1)
            assert b"cabrank_leases_let_go_total 1" in metrics.body
            while (await states(tmp_path, [id]))[0] != (State.DONE, 0, 1):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", ["swallows", "hangs"])
async def test_a_run_that_never_ends_does_not_hold_up_a_stop_and_is_handed_back(gate: Gate, tmp_path: Path, name: str) -> None:
    async with worker(tmp_path, "--grace", "0.1") as started:
        await started.logged(b"stop with")
        ids = await submit(tmp_path, name)
        assert await gate.came.get() == f"{name} run 1"
        gate.open()
        await asyncio.sleep(0.2)
        started.tell(signal.SIGTERM)
        assert await started.ended() == 0
    assert await states(tmp_path, ids) == [(State.WAITING, 0, 0)], "neither a failure nor a crash"


async def test_a_thread_that_never_returns_gives_its_slot_back_at_its_timeout() -> None:
    app, go = cabrank.App(), threading.Event()

    @app.job(timeout_s=0.1, retry=cabrank.Retry(attempts=1))
    def hangs() -> None:
        go.wait()

    @app.job
    def works() -> int:
        return 42

    async with cabrank.Dispatcher(app, max_workers=1) as dispatcher:
        hanging = await dispatcher.submit(hangs)
        assert await (await dispatcher.submit(works)).result() == 42, "on the only worker"
        with pytest.raises(cabrank.JobFailed, match="timed_out"):
            await hanging.result()
        assert dispatcher.engine.counters.left_behind == 1
        go.set()


async def test_a_signal_to_an_idle_worker_ends_it_well(gate: Gate, tmp_path: Path) -> None:
    async with worker(tmp_path) as started:
        await started.logged(b"stop with")
        started.tell(signal.SIGTERM)
        assert await started.ended() == 0


async def test_a_signal_during_the_start_ends_it_well(gate: Gate, tmp_path: Path) -> None:
    async with command(tmp_path, "work", "gated.py:app", *STORE, SLOW="yes") as started:
        assert await gate.came.get() == "opening"
        started.tell(signal.SIGTERM)
        gate.open()
        assert await started.ended() == 0


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_jobs_that_each_submit_two_fill_their_own_queue_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """A bomb of jobs: the bound of its queue stops it with an error, and others go on."""
    app = cabrank.App()
    refused = asyncio.Event()
    over = False

    @app.job(queue="bomb", retry=cabrank.Retry(attempts=1))
    async def splits() -> None:
        for _ in range(0 if over else 2):
            try:
                await dispatcher.submit(splits)
            except cabrank.QueueFull:
                refused.set()

    @app.job(queue="calm")
    async def works(number: int) -> int:
        return number

    store = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    async with cabrank.Dispatcher(app, store=store, max_workers=4, max_queue=50) as dispatcher:
        await dispatcher.submit(splits)
        await refused.wait()
        for number in range(20):
            assert await (await dispatcher.submit(works, number)).result() == number
            assert (await dispatcher.engine.store.tally())["bomb"].waiting <= 50
        over = True
        await dispatcher.join()
