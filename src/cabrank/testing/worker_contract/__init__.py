# ruff: noqa: S101 -- tests are named as facts, their numbers are examples, and they assert
"""What every worker kind promises, as tests. Run them over your own: derive a test class and say how a worker is made.

    pytest.register_assert_rewrite("cabrank.testing.worker_contract")  # in conftest.py: failures then show the values

    class TestMyWorker(WorkerContract):
        kind = Kind.THREAD

        @pytest.fixture
        def spawn(self) -> Spawner:
            return MyWorkers()

They need pytest and pytest-asyncio, and an operating system with named pipes. Override `app` where the kind needs other handlers
than those of `functions` and `coroutines`, which have the same names.
"""

from __future__ import annotations

import contextvars
import traceback
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from cabrank.app import App
from cabrank.block import Block, Call, Leases
from cabrank.inject import Resources
from cabrank.policy import RETURNED_NONE, Cancelled, GiveUp, Outcome, Returned, Snooze, TimedOut, TryAgain, Unreadable
from cabrank.settings import Kind
from cabrank.testing.worker_contract.batches import BatchContract, raised_by
from cabrank.testing.worker_contract.coroutines import ASYNC
from cabrank.testing.worker_contract.driven import Desk, Driven, Gate, driven
from cabrank.testing.worker_contract.functions import ERRORS, PROCESS, THREAD
from cabrank.workers.contract import Calls, Spawner

__all__ = ["APPS", "Driven", "Gate", "WorkerContract", "driven"]

APPS = {Kind.ASYNC: ASYNC, Kind.THREAD: THREAD, Kind.PROCESS: PROCESS}


@pytest.mark.asyncio
class WorkerContract(BatchContract):
    """All promises of `Worker` that do not depend on the kind."""

    kind: Kind

    @pytest.fixture
    def spawn(self) -> Spawner:
        """Override this: what makes a worker."""
        raise NotImplementedError("a fixture `spawn` says how a worker is made")

    @pytest.fixture
    def app(self) -> App:
        """The handlers that are run."""
        return APPS[self.kind]

    @pytest_asyncio.fixture
    async def calls(self, app: App) -> AsyncGenerator[Calls]:
        """How a lease becomes a call, with the resources open."""
        resources, calls = Resources(), Calls(app.handlers)
        await calls.open("aaaaaaaa", resources)
        yield calls
        await resources.close()

    @pytest_asyncio.fixture
    async def worker(self, spawn: Spawner, calls: Calls, app: App) -> AsyncGenerator[Driven]:
        """A worker that is driven as the pool does it."""
        async with driven(spawn(self.kind, calls, contextvars.copy_context()), app) as worker:
            yield worker

    @pytest.fixture
    def gate(self, tmp_path: Path) -> Generator[Gate]:
        """Where a run can be held."""
        with Gate(tmp_path) as gate:
            yield gate

    async def test_what_a_handler_returns_is_the_outcome(self, worker: Driven) -> None:
        assert await worker.outcome("adds", 1, 2) == Returned(3)
        assert await worker.outcome("nothing") == RETURNED_NONE
        assert await worker.outcome("adds", 3, 4) == Returned(7)

    async def test_a_megabyte_goes_in_and_comes_out(self, worker: Driven) -> None:
        text = "é" * 500_000
        assert await worker.outcome("echoes", text) == Returned(text)

    @pytest.mark.parametrize("name", ["ValueError", "SystemExit", "GeneratorExit", "StopAsyncIteration"])
    async def test_whatever_is_raised_ends_its_run_and_not_the_worker(self, worker: Driven, name: str) -> None:
        error = raised_by(await worker.outcome("raises", name, "it broke"))
        assert (type(error), str(error)) == (ERRORS[name], "it broke")
        assert await worker.outcome("adds", 1, 2) == Returned(3)

    async def test_a_stop_iteration_is_no_result(self, worker: Driven) -> None:
        assert isinstance(raised_by(await worker.outcome("raises", "StopIteration", "x")), StopIteration | RuntimeError)
        assert await worker.outcome("adds", 1, 2) == Returned(3)

    async def test_an_error_says_where_it_was_raised(self, worker: Driven) -> None:
        text = "".join(traceback.format_exception(raised_by(await worker.outcome("raises", "ValueError", "it broke"))))
        assert "in raises" in text
        assert "ValueError: it broke" in text

    async def test_outcomes_that_are_raised_keep_what_they_say(self, worker: Driven) -> None:
        again = raised_by(await worker.outcome("tries_again", 1.5))
        assert isinstance(again, TryAgain)
        assert (str(again), again.after_s) == ("not yet", 1.5)
        snooze = raised_by(await worker.outcome("snoozes", 2.5))
        assert isinstance(snooze, Snooze)
        assert snooze.for_s == 2.5  # noqa: PLR2004
        gave_up = raised_by(await worker.outcome("gives_up"))
        assert isinstance(gave_up, GiveUp)
        assert str(gave_up) == "no such account"

    async def test_a_payload_that_does_not_decode_runs_nothing(self, worker: Driven) -> None:
        lease = worker.lease("echoes", "x")
        broken = msgspec.structs.replace(lease, job=msgspec.structs.replace(lease.job, payload=b"7"))
        outcome = await worker.outcome_of(broken)
        assert isinstance(outcome, Unreadable)
        assert "str" in outcome.why
        assert await worker.outcome("echoes", "x") == Returned("x")

    async def test_each_run_sees_a_fresh_copy_of_the_context(self, worker: Driven) -> None:
        assert [await worker.outcome("marks") for _ in range(2)] == [Returned(1), Returned(1)]

    async def test_a_run_knows_which_it_is(self, worker: Driven) -> None:
        lease = worker.lease("describes_its_run", run=3, failures=1, deadline_at=9e9)
        outcome = await worker.outcome_of(lease)
        assert isinstance(outcome, Returned)
        assert tuple(outcome.value) == (f"aaaaaaaa-{lease.job.id}", "describes_its_run", 3, 2, 9e9)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- what it returns

    async def test_a_resource_is_opened_once_for_all_runs(self, worker: Driven) -> None:
        first, second = [await worker.outcome("takes_a_resource") for _ in range(2)]
        assert first == second
        assert isinstance(first, Returned)

    async def test_a_run_is_held_and_let_through(self, worker: Driven, gate: Gate) -> None:
        worker.give(worker.lease("held", *gate.paths))
        await gate.reached()
        assert worker.outcomes == []
        gate.open()
        assert await worker.next_outcome() == Returned("let through")

    @pytest.mark.parametrize("asked", [TimedOut(0.5), Cancelled()])
    async def test_a_run_that_is_asked_to_stop_ends_as_it_was_asked(self, worker: Driven, gate: Gate, asked: Outcome) -> None:
        worker.give(worker.lease("held", *gate.paths))
        await gate.reached()
        assert worker.worker.interrupt(asked)
        assert not worker.worker.interrupt(Cancelled()), "it was asked before"
        assert await worker.next_outcome() == asked
        assert await worker.outcome("adds", 1, 2) == Returned(3), "the worker goes on"

    async def test_nothing_is_stopped_where_nothing_runs(self, worker: Driven) -> None:
        assert not worker.worker.interrupt(Cancelled())
        assert await worker.outcome("adds", 1, 2) == Returned(3)
        assert not worker.worker.interrupt(Cancelled())
        assert await worker.outcome("adds", 1, 2) == Returned(3)

    async def test_a_stop_that_comes_too_late_does_not_reach_the_next_run(self, worker: Driven, gate: Gate) -> None:
        for _ in range(8):
            worker.give(worker.lease("held", *gate.paths))
            await gate.reached()
            gate.open()  # it may have returned, though nobody here can know it yet
            worker.worker.interrupt(Cancelled())
            worker.give(worker.lease("adds", 1, 2))
            assert await worker.next_outcome() in (Returned("let through"), Cancelled())
            assert await worker.next_outcome() == Returned(3)

    async def test_jobs_that_are_alike_are_run_one_after_another_or_one_by_one(self, spawn: Spawner, calls: Calls, app: App) -> None:
        handler, desk = app.handlers["adds"], Desk()
        items = [(number, 1) for number in range(50)]
        leases = Leases(Block(1, items, Call.ARGS, handler.name, handler.queue, None, list(map(handler.codec.encode, items)), 0))
        async with driven(spawn(self.kind, calls, contextvars.copy_context()), app) as worker:
            one_by_one = False
            while leases and not one_by_one:
                run = worker.worker.run_through(leases, desk)
                one_by_one = run is None
                if run is not None:
                    await run
                    await worker.worker.settle_down()
        if not one_by_one:
            assert desk.outcomes == {number + 1: Returned(number + 1) for number in range(50)}
            assert (desk.ended, desk.at_work) == (50, 0)

    async def test_a_worker_that_is_closed_while_it_runs_ends(self, spawn: Spawner, calls: Calls, app: App, gate: Gate) -> None:
        async with driven(spawn(self.kind, calls, contextvars.copy_context()), app) as worker:
            worker.give(worker.lease("held", *gate.paths))
            await gate.reached()

    async def test_a_worker_that_never_ran_closes(self, spawn: Spawner, calls: Calls, app: App) -> None:
        async with driven(spawn(self.kind, calls, contextvars.copy_context()), app):
            pass
