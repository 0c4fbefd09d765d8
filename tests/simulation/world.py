"""One run: processes, clients and fate in one loop, first a storm, then quiet, then the reckoning."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec

from cabrank import dispatcher, engine, queue
from cabrank.events import logger
from cabrank.states import UNFINISHED
from cabrank.workers.process import link, sent
from tests.simulation.apart import CALM, with_processes
from tests.simulation.client import client
from tests.simulation.clock import EPOCH
from tests.simulation.file_home import FileHome
from tests.simulation.home import Home, Kind
from tests.simulation.limits import LimitWatch
from tests.simulation.loop import Deadlock, Over, SimulatedLoop
from tests.simulation.memory_home import MemoryHome
from tests.simulation.people import People
from tests.simulation.plan import Fate, Plan, Weather, draw
from tests.simulation.process import OFFSET_S, SWEEP_S, Process
from tests.simulation.program import LIMIT, app
from tests.simulation.program_apart import app_with_processes
from tests.simulation.record import Record
from tests.simulation.watch import Watch

QUIET_S = 300.0  # longer than every wait that may be left: retries, timeouts, leases, one worker for all
LOOK_S = 0.1
STEPS_S = (600.0, 60.0, -20.0)  # how a wall clock is set. What is due later is late by what it is set back, so that is less than the quiet


class Outcome(msgspec.Struct, frozen=True):
    """How one run ended: clean if there are no `violations`."""

    seed: int
    violations: tuple[str, ...]
    trace: tuple[str, ...]
    steps: int
    simulated_s: float
    acknowledged: int


def simulate(seed: int, *, store: Kind = Kind.MEMORY, tracing: bool = False) -> Outcome:
    """Carry out the plan of a seed."""
    loop = SimulatedLoop(Random(seed + 1))
    plan = with_processes(draw(seed))
    world = _World(plan, loop, (FileHome if store is Kind.SQLITE else MemoryHome)(loop, seed))
    world.record.tracing = tracing
    with _coarse_polls(plan), _log_into(world.record):
        try:
            loop.run_until_complete(world.run())
        except Over:
            pass
        except Deadlock as deadlock:
            world.record.violated("I17", str(deadlock))
        finally:
            world.bury()
            loop.close()
    return Outcome(seed, tuple(world.record.violations), tuple(world.record.trace), loop.steps, loop.time(), len(world.record.acked))


@contextlib.contextmanager
def _coarse_polls(plan: Plan) -> Iterator[None]:
    """Poll less often than in production: each poll of each process costs as much as the event that it may find.

    And send more calls ahead, and after fewer runs, for there are not many.
    """
    apart = plan.apart or CALM
    with (
        patch.object(engine, "ELSEWHERE_S", 0.2),
        patch.object(dispatcher, "TIMEOUT_SWEEP_S", SWEEP_S),
        patch.object(sent, "QUIET", apart.quiet),
        patch.object(queue, "HOLD_S", apart.hold_s),
        patch.object(link, "OWN", (-1, -1)),  # what simulated processes print goes nowhere
    ):
        yield


@contextlib.contextmanager
def _log_into(record: Record) -> Iterator[None]:
    """What the program logs goes into the trace."""
    log = _Log(record)
    with patch.object(logger, "propagate", False):
        logger.addHandler(log)
        try:
            yield
        finally:
            logger.removeHandler(log)


class _Log(logging.Handler):
    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        self._record.note(f"log: {record.getMessage()}")


class _World:
    def __init__(self, plan: Plan, loop: SimulatedLoop, ledger: Home) -> None:
        self._plan = plan
        self._loop = loop
        self._rng = Random(plan.seed + 2)
        self._home = ledger
        self.record = Record(ledger)
        self.record.broken = loop.end
        bound = plan.settings.max_queue
        assert isinstance(bound, int)
        self._watch = Watch(ledger, self.record, bound=bound)
        LimitWatch(ledger, self.record, LIMIT)
        self._processes = [
            Process(
                f"p{number}",
                app if plan.apart is None else app_with_processes,
                ledger,
                self.record,
                loop=loop,
                settings=plan.settings,
                rng=Random(plan.seed * 10 + number),
                apart=plan.apart or CALM,
            )
            for number in range(1, plan.processes + 1)
        ]
        self._people = People(self._processes, self.record, self._watch, Random(f"{plan.seed} people"))
        self._started: list[asyncio.Task[None]] = []
        loop.set_exception_handler(self._complained)

    async def run(self) -> None:
        """The storm, the quiet, the end."""
        for process in self._processes:
            process.faults = self._plan.faults
            process.start()
        clients = [
            self._loop.create_task(client(request, self._processes, self.record, Random(f"{self._plan.seed} {request.token}")))
            for request in self._plan.requests
        ]
        self._started += [self._loop.create_task(self._people.visit(visit)) for visit in self._plan.visits]
        if self._plan.weather:
            self._started.append(self._loop.create_task(self._change_weather(Random(f"{self._plan.seed} weather"))))
        await self._storm()
        await self._calm_down()
        await self._quiet(clients)
        if not self.record.violations:
            await self._end()

    def bury(self) -> None:
        """Tidy up. What the `finally` blocks of the killed say is no part of the run."""
        self.record.tracing = False
        for process in self._processes:
            process.bury()
        self._home.close()

    # ------------------------------------------------------------------------------------------------------------- storm

    async def _storm(self) -> None:
        plan, rng = self._plan, self._rng
        while not self.record.violations and (left_s := plan.storm_s - self._loop.time()) > 0:
            await asyncio.sleep(min(left_s, rng.expovariate(1 / plan.fate_every_s)))
            process = rng.choice(self._processes)
            if plan.fates and process.up and not process.life.frozen:
                self._started.append(self._loop.create_task(self._strike(process, rng.choice(plan.fates))))

    async def _strike(self, process: Process, fate: Fate) -> None:
        rng, life = self._rng, process.life
        match fate:
            case Fate.KILL:
                process.kill()
            case Fate.FREEZE:
                process.freeze()
                await asyncio.sleep(rng.uniform(0.1, 4.0) * self._plan.settings.lease_s)
                if not life.dead:
                    process.thaw()
                return
            case Fate.STOP:
                stopping = self._loop.create_task(process.stop())
                await asyncio.wait({stopping}, timeout=rng.choice((0.01, 0.3, 60.0)))
                if not stopping.done():
                    stopping.cancel()
                    process.kill()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        process.start()

    async def _change_weather(self, rng: Random) -> None:
        """What befalls the whole machine."""
        while (left_s := self._plan.storm_s - self._loop.time()) > 0:
            await asyncio.sleep(min(left_s, rng.expovariate(1 / self._plan.weather_every_s)))
            if rng.choice(self._plan.weather) is Weather.SUSPEND:
                await self._suspend(rng.uniform(0.1, 4.0) * self._plan.settings.lease_s)
            elif rng.random() < 0.5:
                by_s = rng.choice(STEPS_S)
                self.record.note(f"the store's clock is set {by_s:+g} s")
                self._home.clock.step(by_s)
            else:
                process, to_s = rng.choice(self._processes), rng.uniform(-OFFSET_S, OFFSET_S)
                self.record.note(f"the clock of {process.name} is set {to_s:+g} s off")
                process.clock.step(EPOCH + to_s + self._loop.time() - process.clock.now())

    async def _suspend(self, duration_s: float) -> None:
        """All stand still, and go on together."""
        suspended = [(process, process.life) for process in self._processes if process.up and not process.life.frozen]
        for process, _ in suspended:
            process.freeze()
        await asyncio.sleep(duration_s)
        for process, life in suspended:
            if not life.dead:
                process.thaw()

    async def _calm_down(self) -> None:
        """Faults end; whoever is frozen goes on, whoever is dead starts again."""
        for process in self._processes:
            process.faults = process.store.faults = self._plan.faults.__class__()
        await asyncio.gather(*self._started)
        while not all(process.up for process in self._processes):
            await asyncio.sleep(LOOK_S)
        for process in self._processes:
            process.calm()
        await self._people.let_all_go_on()

    # ------------------------------------------------------------------------------------------------------------- quiet

    async def _quiet(self, clients: list[asyncio.Task[None]]) -> None:
        """Everything that was begun ends."""
        ends_at = self._loop.time() + QUIET_S
        while not self.record.violations:
            self._home.look()
            waiting = [one for one in clients if not one.done()]
            if not waiting and not self._watch.unfinished:
                break
            if self._loop.time() > ends_at:
                self.record.violated("I17", f"{len(waiting)} clients wait and jobs {self._watch.unfinished} have not ended")
            await asyncio.sleep(LOOK_S)
        for one in clients:
            if one.done():
                one.result()
            else:
                one.cancel()

    async def _end(self) -> None:
        """Nothing is left: every `join` returns, every handle knows, every process stops."""
        await self._all([process.spawn(process.dispatcher.join()) for process in self._processes], "join does not return")
        await asyncio.sleep(1.0)
        for process in self._processes:
            process.look_at_workers()
        await self._all([self._loop.create_task(process.stop()) for process in self._processes], "stop does not return")
        self._reckon()

    async def _all(self, futures: list[asyncio.Task[Any]], complaint: str) -> None:
        done, pending = await asyncio.wait(futures, timeout=60.0)
        for one in done:
            one.result()
        if pending:
            self.record.violated("I17", complaint)

    def _reckon(self) -> None:
        """Compare what the clients know with what the ledger has."""
        record, watch = self.record, self._watch
        self._home.look()
        for token, id in record.acked.items():
            state = watch.state_of(id)
            if state is None or state in UNFINISHED:
                record.violated("I1", f"{token} was acknowledged as job {id}, which is {state}")
            if watch.tokens.get(token) != id:
                record.violated("I12", f"{token} was acknowledged as job {id} and is stored as {watch.tokens.get(token)}")
        for token in record.refused:
            if f"{token}.0" in watch.tokens:
                record.violated("I15", f"{token} was refused and is stored")
        for request in self._plan.requests:
            if not {request.token} & (record.refused | record.unknown) and not all(o.token in record.acked for o in request.orders):
                record.violated("I17", f"{request.token} was never answered")
        for id, said in record.outcomes:
            state = watch.state_of(id)
            if said is not state and id not in record.reopened:
                record.violated("I2", f"a handle said that job {id} is {said}, it is {state}")
        for fault in self._home.faults():
            record.violated("I16", fault)

    def _complained(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.record.violated("I19", f"the event loop complains: {context.get('message')}: {context.get('exception')!r}")
