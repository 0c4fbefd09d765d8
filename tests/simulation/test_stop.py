"""A stop over a slow store, in virtual time."""

from __future__ import annotations

import asyncio
from random import Random

from cabrank import Dispatcher, IntakeClosed
from cabrank.settings import Settings
from cabrank.stores.memory import MemoryStore
from cabrank.testing import Faults, FaultyStore
from tests.simulation.clock import VirtualClock
from tests.simulation.loop import SimulatedLoop
from tests.simulation.plan import Act, Order
from tests.simulation.process import SHARED
from tests.simulation.program import app, work

WAY_S = 0.1
LATER = Order("later", (Act.RETURN,), 0.0)


def _dispatcher(loop: SimulatedLoop, *, max_queue: int) -> Dispatcher:
    clock, rng = VirtualClock(loop), Random(1)
    store = FaultyStore(MemoryStore(clock), clock=clock, rng=rng, faults=Faults(latency_s=(WAY_S, WAY_S)), capabilities=SHARED)
    settings = Settings(sweep_s=1000.0, loop_block_s=0, max_queue=max_queue)  # no duty may help by chance
    return Dispatcher(app, store=store, settings=settings, clock=clock, rng=rng)


def test_a_stop_takes_the_turns_that_are_left_and_no_longer() -> None:
    loop = SimulatedLoop(Random(1))

    async def run() -> float:
        dispatcher = _dispatcher(loop, max_queue=10)
        async with dispatcher:
            on_its_way = asyncio.ensure_future(dispatcher.submit(work, LATER, delay_s=60.0))
            await asyncio.sleep(WAY_S / 2)
            behind_it = asyncio.ensure_future(dispatcher.submit(work, LATER, delay_s=60.0))
            await asyncio.sleep(WAY_S / 2)
            began_at = loop.time()
        await asyncio.gather(on_its_way, behind_it)
        return loop.time() - began_at

    assert loop.run_until_complete(run()) < 8 * WAY_S
    loop.close()


def test_who_is_refused_room_by_the_last_turn_does_not_wait_for_it() -> None:
    loop = SimulatedLoop(Random(1))

    async def run() -> object:
        dispatcher = _dispatcher(loop, max_queue=1)
        async with dispatcher:
            await dispatcher.submit(work, LATER, delay_s=60.0)
            waiting = asyncio.ensure_future(dispatcher.submit(work, LATER, delay_s=60.0))
            await asyncio.sleep(WAY_S / 2)
        return (await asyncio.gather(waiting, return_exceptions=True))[0]

    assert isinstance(loop.run_until_complete(run()), IntakeClosed)
    loop.close()
