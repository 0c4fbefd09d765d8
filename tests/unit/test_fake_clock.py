from __future__ import annotations

import asyncio

from cabrank.testing import FakeClock


async def test_time_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(now=100.0)
    assert (clock.now(), clock.monotonic()) == (100.0, 0.0)
    await clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (102.5, 2.5)


async def test_sleepers_wake_in_order_each_at_its_own_moment() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, duration_s: float) -> None:
        await clock.sleep(duration_s)
        woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for name, duration_s in (("late", 3.0), ("early", 1.0), ("never here", 9.0)):
            group.create_task(sleeper(name, duration_s))
        await asyncio.sleep(0)
        await clock.advance(5.0)
        assert woken == [("early", 1.0), ("late", 3.0)]
        await clock.advance(5.0)
    assert woken[-1] == ("never here", 9.0)


async def test_who_sleeps_again_within_an_advance_is_woken_again() -> None:
    clock = FakeClock()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(1.0)
            ticks.append(clock.monotonic())

    ticking = asyncio.ensure_future(tick())
    await asyncio.sleep(0)
    await clock.advance(3.0)
    assert ticks == [1.0, 2.0, 3.0]
    ticking.cancel()


async def test_a_sleeper_that_was_cancelled_is_passed_over() -> None:
    clock = FakeClock()
    sleeping = asyncio.ensure_future(clock.sleep(1.0))
    await asyncio.sleep(0)
    sleeping.cancel()
    await clock.advance(2.0)
    await asyncio.wait([sleeping])
    assert sleeping.cancelled()
    assert clock.monotonic() == 2.0


async def test_a_jump_moves_the_wall_clock_alone() -> None:
    clock = FakeClock(now=100.0)
    clock.jump(-60.0)
    assert (clock.now(), clock.monotonic()) == (40.0, 0.0)
