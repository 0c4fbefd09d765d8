"""`cabrank serve` from its start to its end, as real processes."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from cabrank import Dispatcher, DispatcherFailed
from cabrank.cli.serve import FULL_AFTER
from cabrank.clock import SystemClock
from cabrank.server import life
from cabrank.server.listening import bind
from cabrank.stores.contract import Turn
from cabrank.stores.memory import MemoryStore
from tests.server.app import make_app
from tests.server.process import Gate, command, gated, server
from tests.server.serving import get, post, serving

MEMORY = ("--store", "memory://")
COUNTING_APP = """
import gc
import cabrank

app = cabrank.App()

@app.job
async def count() -> list[int]:
    return [gc.get_freeze_count(), gc.get_threshold()[2]]
"""
HOLD = post("/jobs/hold", b'"a"')


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncGenerator[Gate]:
    async with gated(tmp_path) as gate:
        yield gate


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_what_runs_finish_and_takes_nothing_more_on(gate: Gate, tmp_path: Path, number: signal.Signals) -> None:
    async with server(tmp_path, *MEMORY) as started:
        await started.listening()
        kept_alive = await started.connect()
        assert (await kept_alive.ask(HOLD)).status == 202
        assert await gate.came.get() == "a run 1"
        started.tell(number)
        await started.logged(b"stopping: ")
        for wire in (kept_alive, await started.connect()):  # the port still answers, old connections and new ones
            answer = await wire.ask(HOLD)
            assert (answer.status, answer.headers["retry-after"] in {"4", "5", "6"}) == (503, True)
            assert (await wire.ask(get("/readyz"))).status == 503
            assert (await wire.ask(get("/healthz"))).status == 200
            await wire.close()
        gate.open()
        assert await started.ended() == 0
        assert gate.came.empty()
        assert b"Traceback" not in started.log


async def test_a_second_signal_hands_back_at_once_and_the_next_start_takes_it_on(gate: Gate, tmp_path: Path) -> None:
    store = ("--store", "sqlite:///jobs.db")
    async with server(tmp_path, *store) as started:
        await started.listening()
        assert (await started.ask(HOLD)).status == 202
        assert await gate.came.get() == "a run 1"
        started.tell(signal.SIGTERM)
        await started.logged(b"stopping: ")
        started.tell(signal.SIGTERM)
        assert await started.ended() == 0
    async with server(tmp_path, *store):
        assert await gate.came.get() == "a run 2"


async def test_the_next_start_takes_on_what_a_killed_server_left(gate: Gate, tmp_path: Path) -> None:
    store = ("--store", "sqlite:///jobs.db")
    async with server(tmp_path, *store) as started:
        await started.listening()
        assert (await started.ask(HOLD)).status == 202
        assert await gate.came.get() == "a run 1"
        started.tell(signal.SIGKILL)
        assert await started.ended() == -signal.SIGKILL
    async with server(tmp_path, *store):
        assert await gate.came.get() == "a run 2"


async def test_a_second_signal_does_not_wait_for_a_client_that_is_slow(gate: Gate, tmp_path: Path) -> None:
    async with server(tmp_path, *MEMORY) as started:
        await started.listening()
        slow = await started.connect()
        await slow.send(post("/jobs/hold", b"", "Expect: 100-continue", length=100))
        assert (await slow.receive()).status == 100
        started.tell(signal.SIGTERM)
        await started.logged(b"stopping: ")
        started.tell(signal.SIGTERM)
        assert await started.ended() == 0
        assert b"timeout" not in started.log  # it was not the patience that ended
        await slow.close()


async def test_signals_are_not_the_http_servers() -> None:
    """It would close its listeners at the first one, and end by the signal."""
    async with serving(make_app()) as served:
        before = signal.getsignal(signal.SIGTERM)
        with served.http.capture_signals():
            assert signal.getsignal(signal.SIGTERM) is before


async def test_the_grace_ends_and_what_runs_is_handed_back(gate: Gate, tmp_path: Path) -> None:
    async with server(tmp_path, *MEMORY, "--grace", "0.05") as started:
        await started.listening()
        await started.ask(HOLD)
        await gate.came.get()
        started.tell(signal.SIGTERM)
        assert await started.ended() == 0


async def test_a_signal_while_it_opens_ends_it_before_the_port_answers(gate: Gate, tmp_path: Path) -> None:
    async with server(tmp_path, *MEMORY, SLOW="yes") as started:
        assert await gate.came.get() == "opening"
        started.tell(signal.SIGTERM)
        await started.logged(b"stopping: it is not open yet")
        gate.open()
        assert await started.ended() == 0
        assert b"serves" not in started.log


async def test_what_is_there_at_the_start_is_not_gone_through_again_while_requests_wait(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(COUNTING_APP, "utf-8")
    async with command(tmp_path, "serve", "counting.py:app", "--port", "0", *MEMORY) as started:
        await started.listening()
        id = (await started.ask(post("/jobs/count", b""))).json()["id"]
        frozen, full_after = (await started.ask(get(f"/jobs/{id}?wait_s=20"))).json()["result"]
        assert frozen > 10_000
        assert full_after == FULL_AFTER


async def test_the_start_says_what_is_served_where_and_what_an_acknowledgement_means(gate: Gate, tmp_path: Path) -> None:
    async with server(tmp_path, CABRANK_STORE="memory://", CABRANK_MAX_WORKERS="async=7", CABRANK_MAX_QUEUE="9") as started:
        await started.listening()
        await started.logged(b"stop with")
        lines = started.log.decode()
        assert "serves gated.py:app on http://127.0.0.1:" in lines
        assert "POST /jobs/hold" in lines
        assert "memory://: a 202 means accepted in memory" in lines
        assert "queue async: 7 workers; at most 9 jobs" in lines


async def test_each_entry_of_the_log_is_one_line(gate: Gate, tmp_path: Path) -> None:
    async with server(tmp_path, *MEMORY) as started:
        await started.listening()
        id = (await started.ask(HOLD)).json()["id"]
        await gate.came.get()
        await started.logged(f"INFO cabrank.job.hold: {id}: holding\\na\n".encode())


async def test_a_port_in_use_is_one_clear_line(gate: Gate, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with server(tmp_path, *MEMORY, port=port) as started:
            assert await started.ended() == 1
            told = f"cabrank: port {port} of 127.0.0.1 is in use: stop what listens there, or choose another with --port\n"
            assert started.log.decode() == told


async def test_a_port_that_is_taken_while_it_opens_is_one_clear_line(gate: Gate, tmp_path: Path) -> None:
    [held] = bind("127.0.0.1", 0)
    with held:
        async with server(tmp_path, *MEMORY, port=held.getsockname()[1], SLOW="yes") as started:
            assert await gate.came.get() == "opening"
            held.listen()
            gate.open()
            assert await started.ended() == 1
            assert b"in use" in started.log
            assert b"Traceback" not in started.log


class FailingStore(MemoryStore):
    """Fails as no store may: with an error that is none of the contract's."""

    failing = False

    async def turn(self, *args: object, **kwargs: object) -> Turn:
        if self.failing:
            raise RuntimeError("planted")
        return await super().turn(*args, **kwargs)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def test_a_dispatcher_that_fails_inside_ends_the_server() -> None:
    store = FailingStore(SystemClock())
    dispatcher = Dispatcher(make_app(), store=store)

    def fail() -> None:
        store.failing = True
        dispatcher.engine.committer.wake()

    [bound] = bind("127.0.0.1", 0)
    with bound, pytest.raises(DispatcherFailed, match="planted"):
        await life.serve(dispatcher, [bound], fail)
